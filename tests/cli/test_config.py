"""`brokerjobs config`: each setting, where it came from, and never a password. No broker is asked."""

from __future__ import annotations

from typing import Any

import pytest

from brokerjobs.settings import Settings
from tests.shell import Shell


def config(shell: Shell, *options: str, **env: str) -> dict[str, Any]:
    done = shell.run("config", "--json", *options, **env)
    assert (done.code, done.err) == (0, "")
    value = done.json
    assert isinstance(value, dict)
    return value


def test_every_setting_is_shown_with_its_variable_and_what_it_does(offline: Shell) -> None:
    del offline.env["BROKERJOBS_METRICS_PORT"]
    shown = config(offline)
    assert list(shown) == list(Settings.model_fields)
    assert {each["source"] for each in shown.values()} == {"default"}
    assert all(each["description"] for each in shown.values())
    assert shown["drain_timeout"]["variable"] == "BROKERJOBS_DRAIN_TIMEOUT"
    assert shown["drain_timeout"]["value"] == 25.0


def test_what_wins_and_where_it_came_from(offline: Shell) -> None:
    offline.write(
        "pyproject.toml",
        '[tool.brokerjobs]\nconcurrency = 3\ndrain-timeout = "2m"\nnamespace = "file"\nprefetch = 7\n',
    )
    shown = config(
        offline, "--namespace", "option", BROKERJOBS_NAMESPACE="variable", BROKERJOBS_CONCURRENCY="5"
    )
    found = {name: (each["value"], each["source"]) for name, each in shown.items()}
    assert found["prefetch"] == (7, "pyproject.toml")
    assert found["drain_timeout"] == (120.0, "pyproject.toml")
    assert found["concurrency"] == (5, "BROKERJOBS_CONCURRENCY")
    assert found["namespace"] == ("option", "--namespace")
    assert found["heartbeat"] == (10, "default")


@pytest.mark.parametrize(
    "source", ["BROKERJOBS_URL", "BROKERJOBS_URL_FILE", "RABBITMQ_URL", "--url", "pyproject.toml"]
)
def test_password_is_hidden_wherever_it_came_from(offline: Shell, source: str) -> None:
    secret = "amqp://jane:geheim@broker.example:5673/shop?password=geheim"
    options: tuple[str, ...] = ()
    env: dict[str, str] = {}
    match source:
        case "--url":
            options = ("--url", secret)
        case "pyproject.toml":
            offline.write("pyproject.toml", f'[tool.brokerjobs]\nurl = "{secret}"\n')
        case "BROKERJOBS_URL_FILE":
            env = {source: str(offline.write("secret", secret + "\n"))}
        case _:
            env = {source: secret}
    shown = config(offline, *options, **env)["url"]
    assert (shown["value"], shown["source"]) == ("amqp://jane:***@broker.example:5673/shop", source)
    table = offline.run("config", *options, **env)
    assert table.code == 0
    assert f"url\tamqp://jane:***@broker.example:5673/shop\t{source}\t" in table.out
    assert "geheim" not in table.out + table.err


def test_table_is_for_cut_and_awk(offline: Shell) -> None:
    lines = offline.run("config").out.splitlines()
    assert lines[0].split("\t") == ["setting", "value", "from", "what it does"]
    assert [line.split("\t")[0] for line in lines[1:]] == list(Settings.model_fields)
    assert all(line.count("\t") == 3 for line in lines)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BROKERJOBS_CONCURRENCY", "lots"),
        ("BROKERJOBS_CONCURRENCY", "0"),
        ("BROKERJOBS_DRAIN_TIMEOUT", "soon"),
        ("BROKERJOBS_METRICS_PORT", "70000"),
        ("BROKERJOBS_TOPOLOGY", "maybe"),
        ("BROKERJOBS_URL", "http://localhost"),
        ("BROKERJOBS_URL", "amqp://jane:gehe/im@localhost/"),
        ("BROKERJOBS_URL_FILE", "/no/such/file"),
    ],
)
def test_bad_value_names_its_variable(offline: Shell, variable: str, value: str) -> None:
    for verb in "config", "consume":
        done = offline.run(verb, **{variable: value})
        assert (done.code, done.out) == (78, "")
        assert done.err.count("\n") == 1
        assert variable in done.err
        assert "gehe" not in done.err


def test_all_bad_values_are_named_at_once(offline: Shell) -> None:
    offline.write("pyproject.toml", "[tool.brokerjobs]\nprefetch = 0\ncolour = 1\n")
    done = offline.run("config", "--url", "localhost", BROKERJOBS_HEARTBEAT="1")
    assert done.code == 78
    for said in (
        "prefetch (pyproject.toml)",
        "heartbeat (BROKERJOBS_HEARTBEAT)",
        "url (--url)",
        "is no setting",
    ):
        assert said in done.complaint


def test_broken_pyproject_is_said(offline: Shell) -> None:
    offline.write("pyproject.toml", "[tool.brokerjobs\n")
    done = offline.run("config")
    assert (done.code, done.out) == (78, "")
    assert done.complaint.startswith("brokerjobs: cannot read pyproject.toml: ")

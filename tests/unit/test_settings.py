from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from brokerjobs import Settings, settings
from brokerjobs.errors import ConfigurationError
from brokerjobs.settings import DEFAULT_URL, load, load_with_sources

PASSWORD = "hunter2"


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Settings, dict[str, str]]]:
    """The settings from these sources alone."""

    def found(
        given: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        pyproject: str | None = None,
        running: str | None = None,
    ) -> tuple[Settings, dict[str, str]]:
        monkeypatch.setattr(settings, "running_url", lambda: running)
        if pyproject is not None:
            (tmp_path / "pyproject.toml").write_text(pyproject)
        return load_with_sources(given or {}, environment or {}, tmp_path)

    return found


Found = Callable[..., tuple[Settings, dict[str, str]]]


# ---- where a value comes from


def test_without_any_source_there_are_defaults(found: Found) -> None:
    values, sources = found()

    assert values.amqp_url == DEFAULT_URL
    assert (values.namespace, values.consumers, values.concurrency) == ("", "consumers", 10)
    assert (values.drain_timeout, values.publish_timeout) == (25, 10)
    assert set(sources) == set(Settings.model_fields)
    assert set(sources.values()) == {"default"}


def test_stronger_sources_win_over_weaker_ones(found: Found) -> None:
    pyproject = "[tool.brokerjobs]\nconcurrency = 2\nnamespace = 'file'\nlog-level = 'error'\n"
    environment = {"BROKERJOBS_CONCURRENCY": "3", "BROKERJOBS_NAMESPACE": "env"}

    values, sources = found({"concurrency": 4, "prefetch": None}, environment, pyproject)

    assert (values.concurrency, sources["concurrency"]) == (4, "--concurrency")
    assert (values.namespace, sources["namespace"]) == ("env", "BROKERJOBS_NAMESPACE")
    assert (values.log_level, sources["log_level"]) == ("error", "pyproject.toml")
    assert (values.prefetch, sources["prefetch"]) == (None, "default")


URL_SOURCES: list[tuple[str, dict[str, Any]]] = [
    ("--url", {"given": {"url": "amqp://h0"}}),
    ("BROKERJOBS_URL", {"environment": {"BROKERJOBS_URL": "amqp://h0"}}),
    ("BROKERJOBS_URL_FILE", {"environment": {"BROKERJOBS_URL_FILE": "@secret"}}),
    ("pyproject.toml", {"pyproject": "[tool.brokerjobs]\nurl = 'amqp://h0'\n"}),
    ("RABBITMQ_URL", {"environment": {"RABBITMQ_URL": "amqp://h0"}}),
    ("AMQP_URL", {"environment": {"AMQP_URL": "amqp://h0"}}),
    ("CLOUDAMQP_URL", {"environment": {"CLOUDAMQP_URL": "amqp://h0"}}),
    ("brokerjobs broker start", {"running": "amqp://h0"}),
]


@pytest.mark.parametrize("strongest", range(len(URL_SOURCES)))
def test_url_comes_from_the_strongest_source_that_has_one(
    found: Found, tmp_path: Path, strongest: int
) -> None:
    sources: dict[str, Any] = {"given": {}, "environment": {}}
    secret = tmp_path / "secret"
    secret.write_text("amqp://h2\n")
    for rank, (_, source) in enumerate(URL_SOURCES[strongest:], strongest):
        for key, value in source.items():
            if isinstance(value, dict):
                sources[key] |= {
                    name: text.replace("h0", f"h{rank}").replace("@secret", str(secret))
                    for name, text in value.items()
                }
            else:
                sources[key] = value.replace("h0", f"h{rank}")

    values, where = found(**sources)

    assert values.amqp_url == f"amqp://h{strongest}"
    assert where["url"] == URL_SOURCES[strongest][0]


def test_empty_variable_is_no_value(found: Found) -> None:
    environment = {
        "BROKERJOBS_URL": "",
        "BROKERJOBS_PREFETCH": "",
        "RABBITMQ_URL": "",
        "AMQP_URL": "amqp://there",
    }

    values, sources = found(environment=environment)

    assert (values.amqp_url, sources["url"]) == ("amqp://there", "AMQP_URL")
    assert values.prefetch is None


def test_environment_of_the_process_is_read_when_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKERJOBS_CONCURRENCY", "7")

    assert load().concurrency == 7
    assert load(concurrency=8).concurrency == 8


def test_settings_made_by_hand_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKERJOBS_CONCURRENCY", "7")

    assert Settings().concurrency == 10


@pytest.mark.parametrize(
    ("name", "written", "expected"),
    [
        ("drain_timeout", "1m30s", 90),
        ("drain_timeout", "0", 0),
        ("publish_timeout", "500ms", 0.5),
        ("heartbeat", "30", 30),
        ("metrics_port", "0", 0),
        ("metrics_port", "none", None),
        ("queue_type", "quorum", "quorum"),
        ("topology", "check", "check"),
        ("max_message_size", "1000", 1000),
    ],
)
def test_value_is_read_from_text(found: Found, name: str, written: str, expected: object) -> None:
    values, sources = found(environment={f"BROKERJOBS_{name.upper()}": written})

    assert getattr(values, name) == expected
    assert sources[name] == f"BROKERJOBS_{name.upper()}"


def test_values_of_a_file_have_the_kinds_of_toml(found: Found) -> None:
    values, _ = found(
        pyproject="[tool.brokerjobs]\ndrain-timeout = 90\nconnect_timeout = '10s'\nprefetch = 5\n"
    )

    assert (values.drain_timeout, values.connect_timeout, values.prefetch) == (90, 10, 5)


def test_settings_do_not_change(found: Found) -> None:
    values, _ = found()

    with pytest.raises(ValueError, match="frozen"):
        values.concurrency = 5


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())


# ---- values that cannot be used


@pytest.mark.parametrize(
    ("sources", "complaint"),
    [
        ({"given": {"concurrency": 0}}, r"^concurrency \(--concurrency\): .*greater than or equal to 1"),
        ({"given": {"metrics_port": 70_000}}, r"^metrics_port \(--metrics-port\): "),
        ({"environment": {"BROKERJOBS_CONCURRENCY": "many"}}, r"^concurrency \(BROKERJOBS_CONCURRENCY\): .*integer"),
        ({"environment": {"BROKERJOBS_DRAIN_TIMEOUT": "soon"}}, r"^drain_timeout \(BROKERJOBS_.*'soon'"),
        ({"environment": {"BROKERJOBS_DRAIN_TIMEOUT": "-1"}}, r"^drain_timeout \(BROKERJOBS_DRAIN_TIMEOUT\): "),
        ({"environment": {"BROKERJOBS_PUBLISH_TIMEOUT": "0"}}, r"^publish_timeout .*greater than 0"),
        ({"environment": {"BROKERJOBS_QUEUE_TYPE": "stream"}}, r"^queue_type .*'auto', 'classic' or 'quorum'"),
        ({"environment": {"BROKERJOBS_HEARTBEAT": "1"}}, r"^heartbeat "),
        ({"environment": {"BROKERJOBS_URL": "localhost"}}, r"^url \(BROKERJOBS_URL\): must look like amqp://"),
        ({"environment": {"BROKERJOBS_URL": "http://localhost"}}, r"^url .*must look like amqp://"),
        ({"environment": {"BROKERJOBS_URL": "amqp:///vhost"}}, r"^url .*must look like amqp://"),
        ({"environment": {"RABBITMQ_URL": "amqp://h:99999"}}, r"^url \(RABBITMQ_URL\): "),
        ({"environment": {"BROKERJOBS_URL": "amqp://[::1"}}, r"^url \(BROKERJOBS_URL\): "),
        ({"environment": {"BROKERJOBS_URL_FILE": "/nowhere"}}, r"URL_FILE: cannot read /nowhere: No such file"),
        ({"pyproject": "[tool.brokerjobs]\nconcurency = 5\n"}, r"^concurency \(pyproj.*\): is no setting; there are:"),
        ({"pyproject": "[tool.brokerjobs]\nurl = 5\n"}, r"^url \(pyproject.toml\): "),
        ({"pyproject": "[tool.brokerjobs]\ndrain-timeout = true\n"}, r"^drain_timeout \(pyproject.toml\): "),
        ({"pyproject": "[tool\n"}, r"^cannot read pyproject.toml: "),
        ({"pyproject": "[tool]\nbrokerjobs = 5\n"}, r"\[tool.brokerjobs\] in pyproject.toml must be a table"),
        ({"pyproject": "tool = 5\n"}, r"\[tool.brokerjobs\] in pyproject.toml must be a table"),
    ],
    ids=str,
)  # fmt: skip
def test_value_that_cannot_be_used_is_named_with_its_source(
    found: Found, sources: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        found(**sources)


def test_all_mistakes_are_named_at_once(found: Found) -> None:
    with pytest.raises(ConfigurationError) as caught:
        found({"concurrency": 0}, {"BROKERJOBS_HEARTBEAT": "x", "BROKERJOBS_DRAIN_TIMEOUT": "soon"})

    for name in (
        "concurrency (--concurrency)",
        "heartbeat (BROKERJOBS_HEARTBEAT)",
        "drain_timeout (BROKERJOBS_DRAIN",
    ):
        assert name in str(caught.value)


def test_unreadable_files_are_refused_in_a_line(found: Found, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigurationError, match="URL_FILE: cannot read"):
        found(environment={"BROKERJOBS_URL_FILE": str(secret)})
    with pytest.raises(ConfigurationError, match="URL_FILE: cannot read"):
        found(environment={"BROKERJOBS_URL_FILE": str(tmp_path)})
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"cannot read pyproject\.toml"):
        found()


@pytest.mark.parametrize(
    ("query", "instead"),
    [
        ("cacertfile=/ca.pem", "set tls_ca"),
        ("certfile=/c.pem", "set tls_certificate"),
        ("keyfile=/k.pem", "set tls_key"),
        ("no_verify_ssl=1", "certificates are always verified"),
        ("verify=verify_none", "certificates are always verified"),
        ("ssl_options={'cert_reqs':0}", "certificates are always verified"),
        ("NO_VERIFY_SSL=", "certificates are always verified"),
        ("heartbeat=5&auth=external", "authentication is by name and password"),
    ],
)
def test_url_cannot_weaken_tls_and_says_what_to_do_instead(found: Found, query: str, instead: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^url \(BROKERJOBS_URL\): takes no .*=…: {instead}"):
        found(environment={"BROKERJOBS_URL": f"amqps://user:{PASSWORD}@host/?{query}"})


def test_what_is_set_for_tls_is_not_of_no_effect(found: Found) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^tls_ca is set, but the URL is not encrypted: write amqps://"
    ):
        found({"url": "amqp://host/", "tls_ca": "/ca.pem"})
    with pytest.raises(ConfigurationError, match=r"^tls_key is set without tls_certificate"):
        found({"url": "amqps://host/", "tls_key": "/key.pem"})
    values, _ = found({"management_url": "https://host", "tls_ca": "/ca.pem"})
    assert not values.uses_tls


@pytest.mark.parametrize("name", settings.SECRETS)
def test_every_secret_may_come_from_a_file(found: Found, tmp_path: Path, name: str) -> None:
    secret = {"url": "amqp://user:pw@host", "management_url": "http://user:pw@host"}.get(name, "open sesame")
    (tmp_path / "secret").write_text(f"{secret}\n")

    values, sources = found(environment={f"BROKERJOBS_{name.upper()}_FILE": str(tmp_path / "secret")})

    assert getattr(values, name).get_secret_value() == secret
    assert sources[name] == f"BROKERJOBS_{name.upper()}_FILE"


def test_names_are_a_list_in_any_of_its_spellings(found: Found) -> None:
    for written in "worker operator", "worker, operator", "worker,operator":
        values, _ = found(environment={"BROKERJOBS_TRUSTED_COPIERS": written})
        assert values.trusted_copiers == ("worker", "operator")
    values, _ = found(pyproject='[tool.brokerjobs]\ntrusted-copiers = ["worker"]\n')
    assert values.trusted_copiers == ("worker",)


# ---- the password


def test_settings_made_by_hand_hide_it_in_their_errors() -> None:
    with pytest.raises(ValueError, match="must look like amqp://") as caught:
        Settings(url=SecretStr(f"http://user:{PASSWORD}@host"))
    assert PASSWORD not in str(caught.value)
    with pytest.raises(ValueError, match="must look like amqp://") as caught:
        Settings.model_validate({"url": f"http://user:{PASSWORD}@host"})
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://user:{PASSWORD}@host:5672/vhost",
        f"amqp://user:{PASSWORD}@host:port/vhost",
        f"amqp://user:{PASSWORD}/x@host:5672/vhost",  # a slash that should have been %2F
        f"amqp://user:{PASSWORD}#@host/vhost",
        f"amqp://user:1{PASSWORD}2/@host/vhost",
        f"amqp://user:{PASSWORD}?@host/vhost",
        f"amqp://user:{PASSWORD}@[host/vhost",
        f"amqp://user:{PASSWORD}\N{ACCOUNT OF}@host/vhost",
        f"http://user:{PASSWORD}@host",
        f"user:{PASSWORD}@host",
        f"amqp://user:{PASSWORD}@",
    ],
)
def test_password_is_in_no_text(found: Found, url: str) -> None:
    try:
        values, sources = found(environment={"BROKERJOBS_URL": url})
        said = (
            f"{values} {values!r} {values.model_dump()} {values.address} {sources} {values.model_dump_json()}"
        )
    except ConfigurationError as error:
        said = f"{error} {error!r} {error.__cause__} {error.__context__ if not error.__suppress_context__ else ''}"

    assert PASSWORD not in said


@pytest.mark.parametrize(
    "password", [f"{PASSWORD}/x", f"{PASSWORD}#", f"{PASSWORD}?", "7777/x", "7777#", "7777?"]
)
def test_unescaped_password_is_refused_with_a_hint(found: Found, password: str) -> None:
    """Of digits, its beginning would even pass for a port."""
    with pytest.raises(ConfigurationError, match="write / as %2F") as caught:
        found(environment={"BROKERJOBS_URL": f"amqp://user:{password}@host:5672/vhost"})

    assert password[:4] not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{PASSWORD}@host:15672",
        f"http://user:{PASSWORD}/x@host:15672",
        f"http://user:{PASSWORD}@host:port",
        f"amqp://user:{PASSWORD}@host",
    ],
)
def test_password_of_the_management_api_is_in_no_text_either(found: Found, url: str) -> None:
    try:
        values, _ = found(environment={"BROKERJOBS_MANAGEMENT_URL": url})
        said = f"{values!r} {values.model_dump()}"
    except ConfigurationError as error:
        said = str(error)
        assert said.startswith("management_url (BROKERJOBS_MANAGEMENT_URL): ")

    assert PASSWORD not in said


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (DEFAULT_URL, "localhost:5672"),
        ("amqp://user:secret@rabbit", "rabbit:5672"),
        ("amqps://rabbit", "rabbit:5671"),
        ("amqps://rabbit:5672/", "rabbit:5672"),
        ("amqp://rabbit/shop", "rabbit:5672 (vhost shop)"),
        ("amqp://rabbit/%2Fshop%20a", "rabbit:5672 (vhost /shop a)"),
        ("amqp://rabbit/%2F", "rabbit:5672"),
        ("amqp://[::1]:5673", "[::1]:5673"),
    ],
)
def test_address_is_what_people_need_and_no_more(found: Found, url: str, expected: str) -> None:
    values, _ = found({"url": url})

    assert values.address == expected


@given(st.text(max_size=60))
def test_any_text_is_an_url_or_a_clear_error(url: str) -> None:
    try:
        values, _ = load_with_sources({"url": f"amqp://{url}"}, {}, Path("/nowhere"))
    except ConfigurationError as error:
        assert str(error).startswith("url (--url): ")  # noqa: PT017
    else:
        assert values.address

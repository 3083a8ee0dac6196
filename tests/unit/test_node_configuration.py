import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerjobs.node.configuration import Ports, conf_text, environment, project_conf
from brokerjobs.node.installation import Installation

INSTALLATION = Installation(scripts=Path("/r/sbin"), erlang=Path("/e/bin"), version=(4, 3, 6))
PORTS = Ports(amqp=20001, management=20002, prometheus=20003, distribution=20004)


def node_environment(inherited: dict[str, str], extra: dict[str, str] | None = None) -> dict[str, str]:
    return environment(
        inherited,
        INSTALLATION,
        Path("/node"),
        name="n@localhost",
        distribution_port=20004,
        epmd_port=20005,
        extra=extra,
    )


def settings(text: str) -> dict[str, str]:
    """As RabbitMQ reads it: of two lines for one key the last."""
    lines = [line.split("#")[0] for line in text.splitlines()]
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines) if value}


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_nothing_of_the_surrounding_rabbitmq_reaches_the_node(surrounding: dict[str, str]) -> None:
    hostile = {f"RABBITMQ_{key}": "theirs" for key in surrounding} | {
        "ERL_FLAGS": "-x",
        "NOTIFY_SOCKET": "/s",
    }
    assert node_environment(hostile | {"PATH": "/bin"}) == node_environment({"PATH": "/bin"})


def test_everything_the_node_writes_lies_in_its_folder() -> None:
    env = node_environment({"HOME": "/home/user", "PATH": "/bin"})
    paths = {key: value for key, value in env.items() if value.startswith("/") and key != "PATH"}
    assert len(paths) >= 10
    assert all(value == "/node" or value.startswith("/node/") for value in paths.values())
    assert env["PATH"] == "/e/bin:/bin"


def test_extra_erlang_arguments_are_added_and_other_variables_replace() -> None:
    key = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"
    env = node_environment({}, {key: "+S 1:1", "RABBITMQ_LOGS": "x.log", "TZ": "UTC"})
    assert "inet_dist_use_interface {127,0,0,1}" in env[key]
    assert env[key].endswith(" +S 1:1")
    assert (env["RABBITMQ_LOGS"], env["TZ"]) == ("x.log", "UTC")


def test_a_private_node_listens_on_loopback_and_its_owner_has_the_last_word() -> None:
    project = project_conf().read_text()
    mine = settings(conf_text(project, PORTS, "heartbeat = 3\nvm_memory_high_watermark.relative = 0.1"))
    assert mine["listeners.tcp.default"] == "127.0.0.1:20001"
    assert (mine["management.tcp.ip"], mine["management.tcp.port"]) == ("127.0.0.1", "20002")
    assert (mine["prometheus.tcp.ip"], mine["prometheus.tcp.port"]) == ("127.0.0.1", "20003")
    assert (mine["heartbeat"], mine["vm_memory_high_watermark.relative"]) == ("3", "0.1")


def test_the_projects_conf_leaves_the_amqp_listener_to_whoever_uses_it() -> None:
    # Another name for the listener would open a second port.
    assert not [key for key in settings(project_conf().read_text()) if key.startswith("listeners.")]


def test_each_line_of_the_projects_conf_says_why() -> None:
    for block in project_conf().read_text().split("\n\n"):
        if not re.match(r"# ----", block) and settings(block):
            assert block.startswith("#") or "log." in block or ".tcp.port" in block, block


@pytest.mark.parametrize("place", ["checkout", "wheel"])
def test_the_conf_is_found_in_a_checkout_and_in_a_wheel(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "brokerjobs"
    package.mkdir()
    monkeypatch.setattr("brokerjobs.node.configuration._PACKAGE", package)
    if place == "checkout":
        (tmp_path / "pyproject.toml").touch()
        expected = tmp_path / "rabbitmq.conf"
    else:
        (tmp_path / "rabbitmq.conf").touch()  # in site-packages, and not ours
        expected = package / "rabbitmq.conf"
    expected.touch()
    assert project_conf() == expected

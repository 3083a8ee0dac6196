"""Where RabbitMQ comes from, with fake programs in the roles of apt-get, brew, sudo and docker."""

import io
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from brokerjobs.errors import ConfigurationError
from brokerjobs.node import broker, compose, installation, package_manager
from brokerjobs.node.errors import RabbitMQNotFound, RabbitMQNotInstalled, RabbitMQUnavailable
from brokerjobs.node.installation import Installation

FOUND = Installation(scripts=Path("/r/sbin"), erlang=Path("/e/bin"), version=(3, 10, 8))
INSTALL = "apt-get install -y --no-install-recommends rabbitmq-server"


class Programs:
    """The only programs on PATH. Each call is written down."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder.parent / "calls"
        folder.mkdir()

    def add(self, name: str, script: str = "") -> None:
        path = self._folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self._log}"\n{script}\n')
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("BROKERJOBS_URL", raising=False)
    monkeypatch.delenv("BROKERJOBS_RABBITMQ", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(package_manager, "_SYSTEMD_RUNS", tmp_path / "no systemd")
    monkeypatch.setattr(installation.find, "__defaults__", (None, ()))
    return Programs(tmp_path / "bin")


@pytest.fixture
def then_found(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation appears once a package manager has run."""
    monkeypatch.setattr(
        installation, "find", lambda: FOUND if any(" install " in call for call in programs.calls) else None
    )


# ---- installed by a package manager


@pytest.mark.usefixtures("then_found")
def test_apt_installs_without_recommends(programs: Programs) -> None:
    programs.add("apt-get")
    programs.add("apt-cache")
    assert package_manager.install(yes=True) is FOUND
    assert programs.calls == ["apt-cache policy rabbitmq-server", INSTALL]


@pytest.mark.usefixtures("then_found")
def test_apt_updates_its_lists_if_the_package_is_not_known(programs: Programs, tmp_path: Path) -> None:
    programs.add("apt-cache")
    programs.add(
        "apt-get",
        f'case $1 in update) : > "{tmp_path}/updated" ;; *) [ -e "{tmp_path}/updated" ] || exit 100 ;; esac',
    )
    assert package_manager.install(yes=True) is FOUND
    assert programs.calls[1:] == [INSTALL, "apt-get update", INSTALL]


def test_a_failing_apt_shows_its_last_lines(programs: Programs) -> None:
    programs.add("apt-cache")
    programs.add("apt-get", "echo 'E: no space left' >&2; exit 100")
    with pytest.raises(RabbitMQNotInstalled, match=r"exit code 100:\nE: no space left"):
        package_manager.install(yes=True)


def test_a_version_that_is_too_old_is_not_installed(programs: Programs) -> None:
    programs.add("apt-get")
    programs.add("apt-cache", "echo '  Candidate: 3.9.13-1'")
    with pytest.raises(RabbitMQNotInstalled, match=r"apt offers RabbitMQ 3\.9, but 3\.10 or newer"):
        package_manager.install(yes=True)
    assert not [call for call in programs.calls if "install" in call]


@pytest.mark.usefixtures("then_found")
def test_brew_installs_where_there_is_no_apt(programs: Programs) -> None:
    programs.add("brew")
    assert package_manager.install(yes=True) is FOUND
    assert programs.calls == ["brew install rabbitmq"]


def test_without_a_package_manager_it_says_so(programs: Programs) -> None:
    programs.add("true")
    with pytest.raises(RabbitMQNotInstalled, match="neither apt-get nor brew"):
        package_manager.install(yes=True)


@pytest.mark.usefixtures("then_found")
def test_a_person_is_asked_first_and_may_decline(programs: Programs) -> None:
    programs.add("apt-get")
    programs.add("apt-cache")
    asked: list[str] = []

    def answer(yes: bool) -> Callable[[str], bool]:
        def answer_to(question: str) -> bool:
            asked.append(question)
            return yes

        return answer_to

    with pytest.raises(RabbitMQNotInstalled, match=f"by hand: {INSTALL}"):
        package_manager.install(ask=answer(False))
    assert INSTALL not in programs.calls
    assert package_manager.install(ask=answer(True)) is FOUND
    assert len(asked) == 2
    assert INSTALL in asked[0]
    package_manager.install(yes=True, ask=answer(False))
    assert len(asked) == 2


@pytest.mark.usefixtures("then_found")
def test_without_a_terminal_nobody_is_asked(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.add("brew")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert package_manager.install() is FOUND


@pytest.mark.usefixtures("then_found")
def test_a_user_who_is_not_root_goes_through_sudo(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    programs.add("apt-get")
    programs.add("apt-cache")
    programs.add("sudo", 'shift; exec "$@"')
    programs.add("true")
    assert package_manager.install(yes=True) is FOUND
    assert f"sudo -n {INSTALL}" in programs.calls


@pytest.mark.parametrize("sudo", [None, "exit 1"])
def test_a_user_who_may_not_become_root_is_told_the_command(
    sudo: str | None, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    programs.add("apt-get")
    programs.add("apt-cache")
    if sudo:
        programs.add("sudo", sudo)
    with pytest.raises(RabbitMQNotInstalled, match=f"takes root: sudo {INSTALL}"):
        package_manager.install(yes=True)
    assert INSTALL not in programs.calls


@pytest.mark.usefixtures("then_found")
def test_the_service_that_the_package_brings_does_not_start(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "units").mkdir()
    (tmp_path / "units/epmd.socket").touch()  # was there before, so it is somebody's
    monkeypatch.setattr(package_manager, "_SYSTEMD_RUNS", tmp_path)
    monkeypatch.setattr(package_manager, "_UNIT_FOLDERS", (tmp_path / "units",))
    programs.add("apt-get")
    programs.add("apt-cache")
    programs.add("systemctl", 'case "$*" in *"disable epmd"*) exit 1 ;; esac')
    assert package_manager.install(yes=True) is FOUND
    assert programs.calls[1:] == [
        "systemctl --quiet mask --runtime rabbitmq-server.service epmd.service",
        INSTALL,
        "systemctl --quiet unmask --runtime rabbitmq-server.service epmd.service",
        "systemctl --quiet disable rabbitmq-server.service",
        "systemctl --quiet disable epmd.service",
    ]


# ---- which source


@pytest.mark.usefixtures("programs")
def test_the_url_that_is_set_comes_first() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        url = f"amqp://me:secret@127.0.0.1:{port}/vhost"
        with broker.obtain(environ={"BROKERJOBS_URL": url}) as found:
            assert found.url == url
            assert "secret" not in found.how
            assert found.management_url is None


@pytest.mark.usefixtures("programs")
def test_a_url_where_nothing_answers_is_an_error_and_never_skipped() -> None:
    with pytest.raises(RabbitMQUnavailable, match=r"names 127\.0\.0\.1:1, where nothing answers") as caught:
        broker.obtain(environ={"BROKERJOBS_URL": "amqp://me:secret@127.0.0.1:1/"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost", "http://localhost", "amqp://h:port", "me:secret@host"])
@pytest.mark.usefixtures("programs")
def test_what_is_no_amqp_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="BROKERJOBS_URL is not a URL such as") as caught:
        broker.obtain(environ={"BROKERJOBS_URL": url})
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("programs")
def test_one_asked_for_by_name_goes_before_the_url(tmp_path: Path) -> None:
    environ = {"BROKERJOBS_URL": "amqp://127.0.0.1:1/"}
    with pytest.raises(RabbitMQNotFound, match="no RabbitMQ in"):
        broker.obtain(str(tmp_path), environ=environ)
    with pytest.raises(ConfigurationError, match=r"'9\.9' cannot be fetched"):
        broker.obtain(environ=environ | {"BROKERJOBS_RABBITMQ": "9.9"})


@pytest.mark.usefixtures("programs")
def test_without_any_source_the_ways_to_get_one_are_listed() -> None:
    with pytest.raises(RabbitMQUnavailable, match="neither apt-get nor brew") as caught:
        broker.obtain(environ={})
    for way in (
        "BROKERJOBS_URL=",
        "--rabbitmq VERSION",
        "--rabbitmq FOLDER",
        "apt-get install",
        "docker compose",
    ):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    "script",
    ['case "$*" in info) exit 1 ;; esac', 'case "$*" in "compose version") exit 1 ;; esac', "exit 1"],
)
def test_docker_without_its_engine_or_compose_is_passed_over(script: str, programs: Programs) -> None:
    programs.add("docker", script)
    assert not compose.engine_answers()
    with pytest.raises(RabbitMQUnavailable, match="neither apt-get nor brew"):
        broker.obtain(environ={})
    assert not [call for call in programs.calls if " up " in call]


def test_docker_compose_is_brought_up_and_taken_down_again(programs: Programs) -> None:
    programs.add("docker")
    found = broker.obtain(environ={})
    assert found.url == compose.URL
    assert found.management_url == compose.MANAGEMENT_URL
    up = programs.calls[-1]
    assert up.endswith("docker/compose.yaml up --detach --wait")
    found.stop()
    assert programs.calls[-1].endswith("docker/compose.yaml down")


def test_a_compose_that_ran_before_is_left_running(programs: Programs) -> None:
    programs.add("docker", 'case "$*" in *" ps "*) echo 0123abcd ;; esac')
    broker.obtain(environ={}).stop()
    assert not [call for call in programs.calls if " up " in call or " down" in call]


def test_a_compose_that_fails_is_told_and_the_next_source_tried(programs: Programs) -> None:
    programs.add("docker", 'case "$*" in *" up "*) echo "port is already allocated" >&2; exit 1 ;; esac')
    said: list[str] = []
    with pytest.raises(RabbitMQUnavailable, match="neither apt-get nor brew"):
        broker.obtain(environ={}, say=said.append)
    assert any("port is already allocated" in line for line in said)

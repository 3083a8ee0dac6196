"""What systemd is told, on a socket of the test."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from brokerjobs.cli.exits import CONFIGURATION, DRAIN_TIMEOUT, INTERRUPTED
from brokerjobs.health import STILL, WorkerHealth
from brokerjobs.settings import Settings
from brokerjobs.supervisor.child import GRACE
from brokerjobs.systemd import Systemd
from brokerjobs.vitals import Vitals
from brokerjobs.worker import START_TIMEOUT
from tests.pages import ROOT
from tests.unit.test_health import PAUSED, WELL


class Unit:
    """A service, and systemd's end."""

    def __init__(self, link: socket.socket, name: str) -> None:
        self.link = link
        self.link.setblocking(False)
        self.now = 1000.0
        self.is_fed = False
        self.health = WorkerHealth("rabbit:5672")
        self.vitals = Vitals(lambda: self.health, "1.2.3", lambda: self.now)
        self.environ = {
            "NOTIFY_SOCKET": name,
            "WATCHDOG_USEC": "30000000",
            "WATCHDOG_PID": str(os.getpid()),
            "A": "B",
        }
        self.systemd = Systemd(self.vitals, 35.0, self.environ)

    def hear(self) -> list[str]:
        """All that was said since it was last asked, beside food for the watchdog."""
        self.systemd.tell()
        said = self.heard()
        self.is_fed = "WATCHDOG=1" in said
        return [line for line in said if line != "WATCHDOG=1"]

    def heard(self) -> list[str]:
        said = []
        while True:
            try:
                said += self.link.recv(4096).decode().splitlines()
            except BlockingIOError:
                return said


@pytest.fixture(params=["file", "abstract"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Unit]:
    name = str(tmp_path / "notify") if request.param == "file" else f"@brokerjobs-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(name.replace("@", "\0"))
        unit = Unit(link, name)
        yield unit
        unit.systemd.close()


def test_life_of_a_worker(unit: Unit) -> None:
    assert unit.environ == {"A": "B"}  # nothing of this is for what jobs start
    assert unit.hear() == ["STATUS=not ready: starting"]
    assert unit.hear() == []

    unit.health = WELL
    assert unit.hear() == ["READY=1", "STATUS=consuming emails"]
    unit.health = replace(WELL, blocked=True)
    assert unit.hear() == [
        "STATUS=not ready: RabbitMQ at rabbit:5672 blocks publishers: a memory or disk alarm"
    ]
    unit.health = replace(WELL, queues=[replace(PAUSED, paused={"operator": "first\nsecond"})])
    assert unit.hear() == ["STATUS=consuming emails; queue emails is paused by operator: first second"]

    unit.health = replace(WELL, draining=True)
    assert unit.hear() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=35000000", "STATUS=draining"]
    assert unit.hear() == []


def test_a_worker_is_started_though_an_alarm_keeps_it_from_being_ready(unit: Unit) -> None:
    """Or systemd would end it for a start that takes too long, again and again while the alarm lasts."""
    unit.health = replace(WELL, blocked=True)
    assert unit.hear() == [
        "READY=1",
        "STATUS=not ready: RabbitMQ at rabbit:5672 blocks publishers: a memory or disk alarm",
    ]


def test_a_worker_that_has_not_begun_is_not_started(unit: Unit) -> None:
    for health in (
        replace(unit.health, trouble="connection refused"),
        replace(WELL, begun=False),
        replace(WELL, draining=True),
    ):
        unit.health = health
        assert "READY=1" not in unit.hear()


def test_watchdog_is_fed_each_time_while_it_is_live(unit: Unit) -> None:
    """So that a loop that stops has all of that time."""
    unit.health = WELL
    unit.hear()
    for _ in range(3):
        unit.now += 1
        unit.vitals.beat()
        assert unit.hear() == []
        assert unit.is_fed

    unit.now += 1 + STILL
    unit.hear()
    assert not unit.is_fed
    unit.vitals.beat()
    assert unit.hear() == ["STATUS=consuming emails"]
    assert unit.is_fed


def test_end_is_told_even_if_it_came_too_fast_to_be_seen(unit: Unit) -> None:
    unit.systemd.close()
    assert unit.heard()[0] == "STOPPING=1"
    unit.systemd.close()
    assert unit.hear() == []


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "soon"},
    ],
)
def test_without_systemd_nothing_is_said(environ: dict[str, str]) -> None:
    systemd = Systemd(Vitals(lambda: WELL, "1.2.3"), 35.0, environ)
    systemd.tell()
    systemd.close()
    assert environ == {}


@pytest.mark.parametrize(
    ("microseconds", "pid", "every"),
    [
        ("2000000", "", 0.5),
        ("2000000", "own", 0.5),
        ("2000000", "1", 1.0),
        ("0", "", 1.0),
        ("x", "", 1.0),
    ],
)
def test_short_watchdog_makes_a_faster_pulse(microseconds: str, pid: str, every: float) -> None:
    environ = {"WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid.replace("own", str(os.getpid()))}
    assert Systemd(Vitals(lambda: WELL, "1.2.3"), 35.0, environ).every == every


def test_what_is_not_read_in_time_is_said_again_and_holds_nobody_up(unit: Unit) -> None:
    starting = unit.health
    for number in range(2000):  # far more than the socket holds
        unit.health = starting if number % 2 else replace(starting, trouble="connection refused")
        unit.systemd.tell()
    unit.health = WELL
    unit.systemd.tell()
    assert "READY=1" not in unit.heard()
    assert unit.hear() == ["READY=1", "STATUS=consuming emails"]


def test_the_unit_fits_the_worker() -> None:
    path = ROOT / "docker" / "systemd" / "brokerjobs@.service"
    unit = configparser.RawConfigParser(strict=False, interpolation=None, inline_comment_prefixes=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(path.read_text())
    service = unit["Service"]

    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert float(service["TimeoutStopSec"]) == Settings().drain_timeout + GRACE
    assert float(service["WatchdogSec"]) > STILL
    assert float(service["TimeoutStartSec"]) > 2 * START_TIMEOUT  # imports and start-up hooks come before
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", str(CONFIGURATION))
    assert service["SuccessExitStatus"] == f"{DRAIN_TIMEOUT} {INTERRUPTED}"


def test_each_instance_of_the_example_has_a_port_of_its_own() -> None:
    """A port that is taken ends a worker with 78, and systemd does not start it again."""
    text = (ROOT / "docker" / "systemd" / "brokerjobs@.service").read_text()
    ports = dict(re.findall(r"echo BROKERJOBS_METRICS_PORT=(\d+) > /etc/brokerjobs/(\w+)\.env", text))
    (started,) = re.findall(r"enable --now (.*)", text)
    assert sorted(ports.values()) == sorted(re.findall(r"brokerjobs@(\w+)", started))
    assert len(ports) == len(set(ports.values())) > 1
    assert str(Settings().metrics_port) in ports


@pytest.mark.parametrize("with_credentials", [False, True])
def test_systemd_understands_the_unit(tmp_path: Path, *, with_credentials: bool) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:  # not everywhere; then the test before has to do
        return
    text = (ROOT / "docker" / "systemd" / "brokerjobs@.service").read_text()
    if with_credentials:
        for line in "LoadCredential=url:/etc/brokerjobs/url\n", "Environment=BROKERJOBS_URL_FILE=%d/url\n":
            assert f"#{line}" in text  # which alone expands %d: the files of settings do not
            text = text.replace(f"#{line}", line)
    path = tmp_path / "brokerjobs@.service"
    path.write_text(text.replace("/srv/brokerjobs/.venv/bin/brokerjobs", sys.executable))
    instance = tmp_path / "brokerjobs@emails.service"
    instance.symlink_to(path)
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(instance)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

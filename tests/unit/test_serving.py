"""The port of a process, asked by a real client: its routes, and that nobody can hold it up."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from brokerjobs import serving
from brokerjobs.errors import ConfigurationError
from brokerjobs.health import STILL, WorkerHealth
from brokerjobs.metrics import Metrics
from brokerjobs.serving import Server
from brokerjobs.totals import Teller, Totals
from brokerjobs.vitals import Vitals
from tests.unit.test_health import LOST, PAUSED, WELL

Ask = Callable[..., tuple[int, dict[str, str], str]]


class Patient:
    """A process as a test wants it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.health: Callable[[], WorkerHealth] = lambda: WELL
        self.metrics = Metrics()
        self.vitals = Vitals(self._health, "1.2.3", lambda: self.now)

    def _health(self) -> WorkerHealth:
        return self.health()


@pytest.fixture
def patient() -> Patient:
    return Patient()


@pytest.fixture
def server(patient: Patient) -> Iterator[Server]:
    with closing(Server("127.0.0.1", 0, patient.metrics.registry, patient.vitals)) as server:
        yield server


@pytest.fixture
def ask(server: Server) -> Ask:
    def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
        with closing(connection(server)) as client:
            client.request(
                method, path, headers={name.replace("_", "-"): text for name, text in headers.items()}
            )
            answer = client.getresponse()
            body = answer.read()
            said = {name.lower(): text for name, text in answer.getheaders()}
            plain = gzip.decompress(body) if said.get("content-encoding") == "gzip" else body
            return answer.status, said, plain.decode()

    return ask


def connection(server: Server) -> http.client.HTTPConnection:
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    return http.client.HTTPConnection(host, int(port), timeout=10)


def test_probes_say_yes_or_why_not_one_reason_a_line(patient: Patient, ask: Ask) -> None:
    assert ask("/livez")[::2] == (200, "live\n")
    assert ask("/readyz")[::2] == (200, "ready\n")

    patient.health = lambda: replace(WELL, queues=[PAUSED])
    assert ask("/readyz")[2].splitlines()[:2] == ["ready", "queue emails is paused by operator: bad deploy"]

    patient.health = lambda: replace(WELL, queues=[LOST], blocked=True)
    code, _, text = ask("/readyz")
    assert (code, text.splitlines()) == (503, patient.health().hindrances)
    assert ask("/livez")[0] == 200

    patient.now += STILL + 1
    for path in "/livez", "/readyz":
        code, _, text = ask(path)
        assert (code, text.startswith("the event loop stands still since ")) == (503, True)
    patient.vitals.beat()
    assert ask("/livez")[0] == 200


def test_status_is_json_of_all(patient: Patient, ask: Ask) -> None:
    code, headers, text = ask("/status")
    said = json.loads(text)

    assert (code, headers["content-type"]) == (200, "application/json")
    assert list(said) == (
        [
            "version",
            "pid",
            "since",
            "live",
            "ready",
            "reasons",
            "remarks",
            "draining",
            "stands_still",
            "broker",
            "queues",
        ]
    )
    assert said["queues"] == [{"queue": "emails", "consuming": True, "running": 2, "slots": 10, "paused": {}}]


def test_metrics_are_what_prometheus_asks_for(patient: Patient, ask: Ask) -> None:
    patient.metrics.prepare("emails", ["emails.welcome"], 10)
    code, headers, page = ask("/metrics", Accept_Encoding="gzip")
    names = {family.name for family in text_string_to_metric_families(page)}

    assert (code, headers["content-encoding"]) == (200, "gzip")
    assert "brokerjobs_worker_slots" in names
    assert not [name for name in names if name.endswith("_created")]
    only = ask("/metrics?name%5B%5D=brokerjobs_worker_slots")[2]
    assert {line.partition("{")[0] for line in only.splitlines() if line[0] != "#"} == {
        "brokerjobs_worker_slots"
    }
    assert ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")[2].endswith("# EOF\n")
    _, headers, body = ask("/metrics", "HEAD")
    assert (int(headers["content-length"]) > 100, body) == (True, "")


def test_metrics_that_come_later_can_be_asked_for_by_name(patient: Patient) -> None:
    """As those of a parent, which knows none before its children tell it."""
    totals = Totals()
    with (
        closing(Server("127.0.0.1", 0, totals, patient.vitals)) as server,
        closing(connection(server)) as client,
    ):
        patient.metrics.prepare("emails", ["emails.welcome"], 10)
        totals.take(1, Teller(patient.metrics.registry).changes())
        client.request("GET", "/metrics?name%5B%5D=brokerjobs_worker_slots")
        lines = client.getresponse().read().decode().splitlines()
    assert lines[2:] == ['brokerjobs_worker_slots{queue="emails"} 10.0']


@pytest.mark.parametrize("path", ["/", "/metrics/", "/status/../metrics", "/favicon.ico"])
def test_there_is_nothing_else(path: str, ask: Ask) -> None:
    code, _, text = ask(path)
    assert (code, text) == (404, "there are:\n/metrics\n/livez\n/readyz\n/status\n")
    assert ask(path, "HEAD")[::2] == (404, "")


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "PUT"])
def test_it_only_tells(method: str, ask: Ask) -> None:
    for path in "/metrics", "/livez", "/":
        code, headers, _ = ask(path, method)
        assert (code, headers["allow"]) == (405, "GET, HEAD")


def test_defect_is_an_answer_and_a_line_in_the_log(patient: Patient, ask: Ask) -> None:
    def fail() -> WorkerHealth:
        raise ZeroDivisionError

    patient.health = fail
    with capture_logs() as log:
        assert ask("/readyz")[0] == 500
    (line,) = log
    assert (line["event"], line["path"], type(line["exc_info"])) == (
        "question not answered",
        "/readyz",
        ZeroDivisionError,
    )


def test_nobody_holds_up_another(
    server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving, "MOST", 3)
    with ExitStack() as stack:

        def begin(words: bytes) -> socket.socket:
            client = connection(server)
            stack.enter_context(closing(client))
            client.connect()
            client.sock.sendall(words)
            return client.sock

        silent = [begin(words) for words in (b"", b"GET /metr", b"GET /livez HTTP/1.1\r\nX-Slow: ")]
        assert ask("/livez")[0] == 200  # more than three at once: the first is cut off
        silent[0].settimeout(serving.DEADLINE / 3)
        assert silent[0].recv(1) == b""

        monkeypatch.setattr(serving, "DEADLINE", 0.2)
        for client in silent[1:]:
            assert client.recv(1) == b""
        assert ask("/livez")[0] == 200
        assert ask("/" + "x" * 70_000)[0] == 414

    assert capfd.readouterr().err == ""  # neither lines for questions, nor tracebacks for who hung up


def test_taken_port_is_refused_with_a_way_out(patient: Patient, server: Server) -> None:
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(ConfigurationError) as caught:
        Server("127.0.0.1", port, patient.metrics.registry, patient.vitals)
    said = str(caught.value)
    assert f"127.0.0.1:{port}: Address already in use, perhaps by another worker on this machine" in said
    for way in f"--metrics-port {port + 1}", "--metrics-port 0", "--metrics-port none":
        assert way in said

    for host in "192.0.2.1", "no-such-host.invalid":
        with pytest.raises(ConfigurationError, match="BROKERJOBS_METRICS_HOST"):
            Server(host, 0, patient.metrics.registry, patient.vitals)

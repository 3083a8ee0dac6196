from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from brokerjobs import Consumer, Message, Retry, logs
from brokerjobs.logs import FIELDS, configure, hears_info, log
from brokerjobs.metrics import Metrics
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, Succeeded
from brokerjobs.records import Records
from brokerjobs.testing import run

LOGGERS = ("", "brokerjobs", "consumers", "aiormq", "aio_pika", "pika", "elsewhere")


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "_shows_arguments", False)  # as it is in the end too
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in LOGGERS]
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers
    for logger, level in before:
        logger.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def read(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""  # what a command prints is its own
    return [json.loads(line) for line in captured.err.splitlines()]


def test_line_is_json_with_an_event_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure(format="json")

    log.info("job succeeded", job="emails.welcome", id="7", queue="emails", attempt=2, duration=0.5)

    [line] = read(capsys)
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is not None
    assert line == {
        "event": "job succeeded",
        "level": "info",
        "job": "emails.welcome",
        "id": "7",
        "queue": "emails",
        "attempt": 2,
        "duration": 0.5,
    }


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


def test_whatever_a_line_carries_it_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure(format="json")

    log.info("odd", thing=Odd(), half="\ud800", raw=b"\xff", names={1: "ü"}, error=ValueError("x"))

    [line] = read(capsys)
    assert (line["thing"], line["half"], line["raw"]) == ("<odd>", "\ud800", "b'\\xff'")
    assert (line["names"], line["error"]) == ({"1": "ü"}, "ValueError('x')")


@pytest.mark.parametrize(("level", "heard"), [("debug", True), ("info", True), ("warning", False)])
def test_whether_a_line_would_be_written_can_be_asked(level: str, heard: bool) -> None:
    structlog.reset_defaults()  # other tests in this process may have configured it
    assert hears_info(), "who has not configured it may capture all"
    configure(level)
    assert hears_info() == heard
    with capture_logs():
        assert hears_info()


def test_line_is_one_line_to_whoever_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where standard error is no UTF-8, and to readers that end lines at other characters too."""
    configure(format="json")
    id = "ü \u2028 \x85 \U0001f407"

    log.info("odd", id=id)

    written = capsys.readouterr().err
    assert written.isascii()
    assert json.loads(written)["id"] == id


def test_lines_of_jobs_and_libraries_have_the_same_shape(capsys: pytest.CaptureFixture[str]) -> None:
    configure(format="json")

    structlog.contextvars.bind_contextvars(job="emails.welcome", id="7")
    logging.getLogger("consumers.emails").info("template %s rendered", "welcome")

    [line] = read(capsys)
    assert (line["event"], line["level"], line["logger"]) == (
        "template welcome rendered",
        "info",
        "consumers.emails",
    )
    assert (line["job"], line["id"]) == ("emails.welcome", "7")


def test_error_is_one_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure(format="json")

    try:
        raise ValueError("no")
    except ValueError:
        log.exception("run failed", queue="emails")
        logging.getLogger("consumers.emails").exception("oops")

    for line in read(capsys):
        assert line["level"] == "error"
        assert "ValueError: no" in line["exception"]


def test_fields_of_any_kind_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure(format="json")

    log.info("odd", error=ValueError("no"), path=object, text="é\n\x00")

    [line] = read(capsys)
    assert line["text"] == "é\n\x00"


def test_format_is_for_people_on_a_terminal_and_for_machines_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal, pipe = Terminal(), io.StringIO()

    for stream in terminal, pipe:
        monkeypatch.setattr("sys.stderr", stream)
        configure()
        log.warning("job retried", job="emails.welcome")

    assert "job retried" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()  # colours
    assert json.loads(pipe.getvalue())["event"] == "job retried"


def test_console_without_a_terminal_has_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    configure(format="console")

    log.warning("job retried", job="emails.welcome")

    line = capsys.readouterr().err
    assert "job=emails.welcome" in line
    assert "\x1b[" not in line


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level_is_the_least_severe_that_is_printed(
    capsys: pytest.CaptureFixture[str], level: str, heard: list[str]
) -> None:
    configure(level, "json")

    for each in ("debug", "info", "warning", "error"):
        getattr(log, each)("line")
        logging.getLogger("consumers.emails").log(getattr(logging, each.upper()), "line")

    lines = read(capsys)
    assert [line["level"] for line in lines] == [each for each in heard for _ in range(2)]


def test_other_libraries_are_heard_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "json")

    logging.getLogger("elsewhere").info("chatter")
    logging.getLogger("elsewhere").warning("careful")

    assert [line["event"] for line in read(capsys)] == ["careful"]


@pytest.mark.parametrize("name", ["aiormq", "aiormq.connection", "pika.channel", "aio_pika.queue"])
def test_clients_are_silent_since_they_log_whole_frames(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    configure("debug", "json")

    logging.getLogger(name).debug("frame of a payload")
    logging.getLogger(name).warning("frame of a payload")

    assert read(capsys) == []


def test_configuring_again_prints_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure(format="json")
    configure(format="json")

    log.info("once")

    assert len(read(capsys)) == 1


def test_importing_takes_over_no_logging() -> None:
    """Only programs of ours configure it: a library must leave it to its host. Asked of a process of its own."""
    program = (
        "import logging, structlog, brokerjobs.worker, brokerjobs.client\n"
        "assert not structlog.is_configured()\n"
        "assert not logging.getLogger().handlers\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# ---- what is said of jobs

consumer = Consumer("logins", retry=Retry(2))


@consumer.job()
def login(pin: str, how: str) -> str:
    match how:
        case "fail":
            raise ValueError("no")
        case _:
            return pin


@pytest.mark.parametrize("how", ["succeed", "fail"])
@pytest.mark.parametrize("attempt", [1, 2])
def test_line_of_a_job_has_its_fields_and_no_argument(
    capsys: pytest.CaptureFixture[str], how: str, attempt: int
) -> None:
    configure("debug", "json")
    message = login.message("hunter2", how=how).copy(attempt=attempt)

    Records("logins", Metrics()).finished(message, run(message).outcome, duration=0.25)

    [line] = read(capsys)
    assert (line["job"], line["id"], line["queue"], line["attempt"]) == (
        "logins.login",
        message.id,
        "logins",
        attempt,
    )
    assert "hunter2" not in str(line)


@pytest.mark.parametrize("how", ["succeed", "fail"])
def test_line_of_an_attempt_shows_arguments_where_somebody_asks_for_them(
    capsys: pytest.CaptureFixture[str], how: str
) -> None:
    configure("debug", "json", arguments=True)
    message = login.message("hunter2" * 1000, how=how)

    Records("logins", Metrics()).finished(message, run(message).outcome, duration=0.25)

    [line] = read(capsys)
    assert line["arguments"].startswith('{"pin":"hunter2')
    assert len(line["arguments"]) <= 1000
    assert (line["outcome"], line["duration"]) == ("succeeded" if how == "succeed" else "retried", 0.25)


def test_what_a_job_logs_says_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    consumer = Consumer("talkers")

    @consumer.job()
    async def by_structlog() -> None:
        structlog.get_logger("consumers.talkers").info("said", id="its own")

    @consumer.job()
    def by_logging() -> None:
        logging.getLogger("consumers.talkers").info("said")

    messages = [by_structlog.message(), by_logging.message().copy(attempt=2)]
    for message in messages:
        run(message)
    log.info("outside")

    lines = read(capsys)
    told = [[line.get(name) for name in ("event", "job", "id", "queue", "attempt")] for line in lines]
    assert told == [
        ["said", "talkers.by_structlog", "its own", "talkers", 1],
        ["said", "talkers.by_logging", messages[1].id, "talkers", 2],
        ["outside", None, None, None, None],
    ]


@pytest.mark.parametrize(
    ("how", "attempt", "event", "level"),
    [
        ("succeed", 1, "job succeeded", "info"),
        ("fail", 1, "job retried", "warning"),
        ("fail", 2, "job dead", "error"),
    ],
)
def test_event_of_a_job_is_constant_and_as_severe_as_it_is(
    capsys: pytest.CaptureFixture[str], how: str, attempt: int, event: str, level: str
) -> None:
    configure("debug", "json")
    message = login.message("hunter2", how=how).copy(attempt=attempt)

    Records("logins", Metrics()).finished(message, run(message).outcome, duration=0.25)

    [line] = read(capsys)
    assert (line["event"], line["level"]) == (event, level)


def test_released_job_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "json")
    outcome: Outcome = Released("the worker is stopping")

    Records("a", Metrics()).finished(Message(job="a.b", routing_key="a.b", id="7"), outcome, duration=0.25)

    [line] = read(capsys)
    assert (line["event"], line["reason"]) == ("job released", "the worker is stopping")


def test_fields_of_every_line_are_named_once() -> None:
    assert FIELDS[:4] == ("job", "id", "queue", "attempt")
    assert len(set(FIELDS)) == len(FIELDS)
    assert {Succeeded, Retried, DeadLettered, Released}

"""What `brokerjobs top` draws and writes of a look."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from brokerjobs.cli.drawing import draw
from brokerjobs.cli.picture import Failures, Picture, as_json, lines
from brokerjobs.cli.section import share
from brokerjobs.delay import LEVELS, UNIT
from brokerjobs.inspection import Flow, Level, Look, standings
from brokerjobs.worker_state import RecentFailure
from tests.unit.looks import NOW, counts, failure, job, look, work, worker

BUSY = Flow(running=2, slots=10, arrivals=1.25, done=2.0, failed=0.5, oldest=3.21, drain=60.0)


def picture(seen: Look, flow: Flow = BUSY, failures: Sequence[RecentFailure] = (), note: str = "") -> Picture:
    flows = {counts.queue: flow for counts in seen.snapshot.queues}
    return Picture(
        address="127.0.0.1:5672",
        look=seen,
        standings=standings(seen, flows),
        failures=failures,
        notes=[note] if note else [],
    )


def drawn(shown: Picture, width: int = 80, height: int = 24, encoding: str = "utf-8", **more: str) -> str:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=out, width=width, height=height)
    console.print(draw(shown, width=width, height=height, **more))
    out.flush()
    out.seek(0)
    return out.read()


def row(text: str, start: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(start))


CROWD = picture(
    look(
        NOW,
        [counts(f"queue-{number:03}-{'x' * 60}", ready=number) for number in range(100)],
        [worker(f"host-{number}.a.long.domain.example:{number}", {f"queue-{number:03}-{'x' * 60}": work()},
                running=tuple(job(n) for n in range(10))) for number in range(50)],
    ),
    failures=[failure(number, error="x" * 200) for number in range(100)],
    note="unacked deliveries are not shown: nothing answers at http://127.0.0.1:15672; " + "x" * 100,
)  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 10), (110, 30), (200, 60), (80, 5), (20, 3)])
def test_picture_fits_the_terminal(width: int, height: int) -> None:
    levels = tuple(Level(2**k * UNIT, 10**6) for k in range(LEVELS))
    for shown in (
        CROWD,
        picture(look(levels=levels)),
        picture(look()),
        replace(CROWD, look=replace(CROWD.look, workers=())),
    ):
        for alarm in "", "not of now: " + "x" * 100:
            text = drawn(shown, width, height, head="every 2s   q quits", alarm=alarm).splitlines()
            assert len(text) <= max(height, 4)
            assert max(map(len, text)) <= width


def test_picture_says_what_is_left_out() -> None:
    text = drawn(CROWD)

    assert "more queues" in text
    assert "more workers or jobs" in text
    assert "more failures" in text


def test_queue_is_told_in_one_line() -> None:
    text = drawn(picture(look(NOW, [counts(ready=120, dead=3)], [worker()])))

    assert row(text, "emails") == [
        "emails", "120", "2/10", "3", "≤3.2s", "1.2", "2.0", "1m", "dead",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (56, "waiting by delay level  1s 12  4s 123k  1m4s 3  194d4h 1"),
        (54, "waiting by delay level  1s 12  4s 123k  1m4s or more 4"),
        (46, "waiting by delay level  1s 12  4s or more 123k"),
        (40, "waiting by delay level  1s or more 123k"),
    ],
)
def test_each_delay_level_that_holds_something_is_told(width: int, line: str) -> None:
    levels = Level(1.0, 12), Level(4.0, 123_456), Level(64.0, 3), Level(2**27 * UNIT, 1)
    shown = picture(look(levels=levels))

    assert drawn(shown, width=width).splitlines()[2].rstrip() == line
    assert [told for told in lines(shown, None) if told.startswith("level")] == [
        "level 1s waiting=12", "level 4s waiting=123456", "level 1m4s waiting=3", "level 194d4h waiting=1",
    ]  # fmt: skip
    assert as_json(shown)["waiting"] == {
        "total": 123_472,
        "levels": [{"delay_seconds": level.delay, "waiting": level.waiting} for level in levels],
    }
    assert "delay level" not in drawn(picture(look()), width=width)


def test_wide_terminal_shows_more() -> None:
    text = drawn(picture(look(NOW, [counts(ready=120, unacked=7)], [worker()])), width=140)

    assert row(text, "emails") == [
        "emails", "120", "2/10", "7", "1", "0", "≤3.2s", "1.2", "2.0", "0.5", "1m", "ok",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flow", "cells"),
    [
        (Flow(), ["?", "0", "?", "?", "?", "?"]),
        (Flow(running=0, arrivals=0.0, done=0.0, oldest=0.0, drain=0.0), ["0", "0", "0s", "0", "0", "0s"]),
        (
            Flow(running=3, arrivals=12_345.0, done=123.4, oldest=75.0, drain=math.inf),
            ["3", "0", "≤1m15s", "12k", "123", "∞"],
        ),
    ],
)
def test_what_nobody_knows_is_a_question_mark(flow: Flow, cells: list[str]) -> None:
    assert row(drawn(picture(look(), flow)), "emails")[2:8] == cells


def test_trouble_is_said_in_words_and_stands_on_top() -> None:
    seen = look(
        NOW,
        [counts("calm"), counts("lone", ready=1, consumers=0)],
        [worker("a", {"calm": work()}), worker("b", {"calm": work()}, paused={"calm": {"operator": "why"}})],
        heard={"a": NOW - 6},
    )
    text = drawn(picture(seen, replace(BUSY, drain=None)))

    assert text.index("lone") < text.index("calm")
    assert row(text, "lone")[-2:] == ["no", "worker"]
    assert "a" in row(text, "a  ")
    assert "no answer for 6s" in text
    assert "calm paused by operator: why" in text


def test_jobs_are_shown_with_their_worker() -> None:
    running = job(1, began=NOW - 90, attempt=3), job(2, began=NOW - 4)
    text = drawn(picture(look(NOW, workers=[worker("host:1", running=running), worker("host:2")])))

    assert row(text, "host:1") == ["host:1", "2/10", "emails.welcome", "01a20134-a509-7024", "3", "1m30s"]
    assert "01a20134-a509-7024   1    4s" in text
    assert row(text, "host:2") == ["host:2", "0/10", "idle:", "emails"]


def test_strangers_text_moves_no_terminal() -> None:
    evil = "\x1b[2J\x9b1m[red]\r\nboo"
    seen = look(NOW, workers=[worker(f"host{evil}", running=(replace(job(1), job=evil, id=evil),))])
    shown = picture(seen, failures=[failure(1, error=evil, job=evil)])

    for text in drawn(shown, width=200, alarm=evil), "\n".join(lines(shown, None)):
        assert not {"\x1b", "\x9b", "\r"} & set(text)
        assert "[red]" in text  # and no markup


def test_picture_that_is_old_is_grey_below_the_alarm() -> None:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system="standard")
    old = draw(picture(look(NOW, [counts(ready=1, consumers=0)])), width=80, height=24, alarm="gone")
    alarm, *rest = console.render_lines(old)

    assert {segment.style.color.name for segment in alarm if segment.style and segment.style.color} == {"red"}
    assert all(
        segment.style.dim for line in rest for segment in line if segment.text.strip() and segment.style
    )
    assert not any(segment.style.color for line in rest for segment in line if segment.style)


def test_terminal_without_unicode_gets_ascii() -> None:
    assert drawn(picture(look(NOW, [counts(ready=3)])), encoding="ascii").isascii()
    assert row(drawn(picture(look(NOW, [counts(ready=3)])), encoding="ascii"), "emails")[4] == "<3.2s"


@pytest.mark.parametrize(
    ("room", "wants", "given"),
    [
        (30, [5, 5, 5], [5, 5, 5]),
        (22, [5, 6, 100], [5, 6, 11]),
        (18, [100, 100, 100], [8, 6, 4]),
        (18, [100, 3, 3], [12, 3, 3]),
        (9, [100], [9]),
        (-3, [5, 5, 5], [0, 0, 0]),
    ],
)
def test_sections_share_the_room(room: int, wants: list[int], given: list[int]) -> None:
    assert share(room, wants, (4, 3, 2)[: len(wants)]) == given


# -- plain lines and JSON


def test_lines_tell_one_thing_each() -> None:
    state = worker("host:1", running=(job(1),), paused={"emails": {"operator": "why"}})
    seen = look(NOW, [counts(ready=3, dead=1)], [state])
    shown = picture(seen, replace(BUSY, drain=math.inf), failures=[failure(0)], note="no API")

    assert list(lines(shown, None)) == [
        "look 2027-01-15T08:00:00.000+00:00 127.0.0.1:5672 ready=3 waiting=0 dead=1 unrouted=0 workers=1",
        "queue emails ready=3 running=2/10 consumers=1 dead=1 oldest=3.2s arrivals=1.2/s done=2.0/s "
        "failed=0.5/s drain=never state=paused",
        "worker host:1 queues=emails running=1 paused=emails:operator",
        "job emails.welcome queue=emails id=01a20134-a509-7024-0001-c0ffee attempt=1 for=5s worker=host:1",
        "failure 2027-01-15T08:00:00.000+00:00 emails.welcome id=01a20134-a509-7024-0000 attempt=2 "
        "outcome=retried error=ConnectionError: gateway is away",
        "missing no API",
    ]


def test_lines_tell_failures_and_what_is_missing_once() -> None:
    first = picture(look(), failures=[failure(5)], note="no API")
    second = picture(look(NOW + 2), failures=[failure(1), failure(5)], note="no API")

    kinds = [line.split()[0] for line in lines(second, first)]

    assert kinds == ["look", "queue", "failure"]


def test_object_has_a_field_for_each_figure() -> None:
    state = worker("host:1", running=(job(1),))
    seen = look(NOW, [counts(ready=3, dead=1)], [state], heard={"host:1": NOW - 6})
    shown = picture(seen, replace(BUSY, drain=math.inf), failures=[failure(0)])

    told = json.loads(json.dumps(as_json(shown), allow_nan=False))

    assert told["queues"] == [
        {
            "queue": "emails", "ready": 3, "unacked": None, "consumers": 1, "dead": 1, "paused": False,
            "state": "dead", "running": 2, "slots": 10, "oldest_seconds": 3.21, "arrivals_per_second": 1.25,
            "done_per_second": 2.0, "failed_per_second": 0.5, "seconds_to_drain": None,
        }
    ]  # fmt: skip
    assert told["workers"][0]["silent_seconds"] == 6.0
    assert told["workers"][0]["running"][0]["began"] == "2027-01-15T07:59:55.000+00:00"
    assert told["failures"][0]["error"] == "ConnectionError: gateway is away"


def test_failures_outlive_their_worker() -> None:
    known = Failures()
    old, new, other = failure(9), failure(1), failure(2, queue="orders")
    known.take(look(workers=[worker(failures=(old, other))]), ["emails"])

    assert known.take(look(NOW + 2, workers=[worker("b", failures=(new,))]), ["emails"]) == [new, old]

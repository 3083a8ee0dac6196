"""The checker of the chaos runs, against planted faults: one that reports nothing would be worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checker import Report, check
from tests.chaos.history import NEVER, Fault, Found, History, Notice, Run, Sample, Send

MOST = 4


def send(id: str = "a", **changes: Any) -> Send:
    return replace(Send(id=id, queue="swift", invoked=100.0, ended=100.1, fate="ok"), **changes)


def run(id: str = "a", **changes: Any) -> Run:
    made = Run(id=id, queue="swift", worker="w1", pid=1, started=100.2, finished=100.3, succeeded=True)
    return replace(made, **changes)


def failed(id: str = "a", **changes: Any) -> Run:
    return run(id, **{"succeeded": False, "again_in": 0.5, **changes})


def again(id: str = "a", **changes: Any) -> Run:
    """A second run of the same message, by another worker."""
    return run(
        id, **{"worker": "w2", "pid": 2, "started": 110.0, "finished": 110.1, "redelivered": True, **changes}
    )


def dead(id: str = "a", **changes: Any) -> Found:
    return replace(Found(id=id, queue="swift.dead", place="dead", hop=1, reason="exhausted"), **changes)


def fault(*effects: str, **changes: Any) -> Fault:
    return replace(Fault(kind="planted", began=104.0, ended=106.0, effects=frozenset(effects)), **changes)


def checked(*parts: Any, absorbing: bool = True, **more: Any) -> Report:
    sorts: dict[type, str] = {
        Send: "sends", Run: "runs", Found: "found", Fault: "faults", Notice: "notices", Sample: "samples",
    }  # fmt: skip
    lists: dict[str, list[Any]] = {name: [] for name in sorts.values()}
    for part in parts:
        lists[sorts[type(part)]].append(part)
    history = History(**lists, **more)  # type: ignore[arg-type]
    return check(history, max_attempts=MOST, absorbing=absorbing)


def kinds(report: Report) -> list[str]:
    return [violation.kind for violation in report.violations]


def test_a_clean_history_has_no_violations() -> None:
    report = checked(
        send("a"), run("a"),
        send("b"), failed("b"), run("b", hop=1, attempt=2, started=100.9, finished=101.0),
        send("c", end="dead"), failed("c"), dead("c"),
        send("d", delay=2.0), run("d", started=102.1, finished=102.2),
        send("e", fate="unknown", ended=NEVER),
        send("f", fate="refused"), send("f", fate="refused", invoked=101.0),
        send("g", fate="unknown"), run("g"),
    )  # fmt: skip
    assert kinds(report) == []
    assert (report.jobs, report.done, report.dead, report.recovered) == (7, 4, 1, 1)
    assert report.sends == {"ok": 4, "unknown": 2, "refused": 1}
    assert report.tries == 8
    assert report.repeats.total() == 0


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        pytest.param([send()], "lost", id="never ran"),
        pytest.param([send(), failed()], "lost", id="its retry vanished"),
        pytest.param([send(), run(finished=NEVER, succeeded=None)], "lost", id="its worker died with it"),
        pytest.param([send(fate="unknown"), send(invoked=101.0)], "lost", id="confirmed at the second try"),
        pytest.param([run()], "phantom", id="ran but was never sent"),
        pytest.param([dead()], "phantom", id="dead but never sent"),
        pytest.param([send(fate="refused"), run()], "refused", id="refused and ran"),
        pytest.param([send(fate="refused", end="dead"), dead()], "refused", id="refused and dead"),
        pytest.param([send(fate="refused"), send(invoked=100.1), run()], "", id="refused, then sent"),
        pytest.param([send(fate="refused"), send(invoked=100.3), run()], "refused", id="ran before it was sent"),
        pytest.param([send(), failed(), run(hop=1, attempt=2, started=101.0), dead()], "both", id="done and dead"),
        pytest.param([send(), failed(), dead()], "wrong end", id="dead, should be done"),
        pytest.param([send(end="dead"), run()], "wrong end", id="done, should be dead"),
        pytest.param([send(delay=2.0), run(started=102.0)], "", id="on time"),
        pytest.param([send(delay=2.0), run(started=101.9)], "early", id="its delay was cut"),
        pytest.param([send(), failed(), run(hop=1, attempt=2, started=100.6)], "early", id="its retry came early"),
        pytest.param([send(), run(attempt=MOST)], "", id="its last attempt"),
        pytest.param([send(), run(attempt=MOST + 1)], "attempts", id="an attempt too many"),
        pytest.param([send(), Found(id="a", queue="swift", place="work")], "stuck", id="nobody took it"),
        pytest.param([send(), Found(id="a", queue="l", place="waiting")], "stuck", id="its wait never ended"),
        pytest.param([send(), Found(id="a", queue="u", place="unrouted")], "unrouted", id="nobody would ever"),
        pytest.param([send(), run(), again()], "unexplained", id="ran twice"),
        pytest.param([send(), run(), run(started=100.4)], "unexplained", id="ran twice, two copies"),
        pytest.param([send(), run(), run(hop=1, started=100.4)], "unexplained", id="ran again as a copy"),
        pytest.param([send(end="dead"), failed(), dead(), dead()], "unexplained", id="dead twice"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_reported(parts: list[Any], kind: str) -> None:
    assert kinds(checked(*parts)) == ([kind] if kind else [])


def test_what_a_deleted_queue_held_is_excused_and_no_more() -> None:
    deletion = fault("delete", target="swift")
    assert kinds(checked(send(), deletion)) == []
    assert checked(send(), deletion).excused == 1
    assert kinds(checked(send(queue="steady"), deletion)) == ["lost"]
    assert kinds(checked(send(invoked=106.5, ended=106.6), deletion)) == ["lost"]


UNFINISHED = run(finished=NEVER, succeeded=None)


@pytest.mark.parametrize(
    ("cause", "evidence", "first", "wrong"),
    [
        pytest.param("killed", Notice(worker="w1", event="died", at=105.0), UNFINISHED,
                     {"worker": "w3"}, id="killed"),
        pytest.param("killed", Notice(worker="w1", event="died", at=105.0, pid=1), UNFINISHED,
                     {"pid": 7}, id="a child killed"),
        pytest.param("killed", Notice(worker="w1", event="died", at=105.0), UNFINISHED,
                     {"at": 112.0}, id="killed in time"),
        pytest.param("released", Notice(worker="w1", event="job released", at=105.0, id="a"), UNFINISHED,
                     {"id": "b"}, id="released"),
        pytest.param("failpoint", Notice(worker="w1", event="failpoint", at=105.0, id="a"), run(),
                     {"id": "b"}, id="failpoint"),
        pytest.param("frozen", fault("freeze", target="w1"), UNFINISHED, {"target": "w2"}, id="frozen"),
        pytest.param("frozen", fault("freeze", target="w1"), UNFINISHED, {"began": 111.0, "ended": 112.0},
                     id="frozen in time"),
        pytest.param("broker crash", fault("undo"), run(), {"effects": frozenset({"resend"})}, id="crash"),
        pytest.param("broker crash", fault("undo"), run(), {"began": 90.0, "ended": 92.0}, id="crash before"),
        pytest.param("ack lost", Notice(worker="w1", event="settlement lost", at=105.0, id="a"), run(),
                     {"id": "b"}, id="ack lost"),
        pytest.param("session lost", Notice(worker="w1", event="session ended", at=105.0), UNFINISHED,
                     {"worker": "w2"}, id="session lost"),
        pytest.param("session lost", Notice(worker="w1", event="session ended", at=105.0, pid=1), UNFINISHED,
                     {"pid": 7}, id="a child's session lost"),
        pytest.param("released", Notice(worker="w1", event="job released", at=105.0, id="a", pid=1), UNFINISHED,
                     {"pid": 7}, id="released by a child"),
        pytest.param("released", Notice(worker="w1", event="job released", at=105.0, id="a"), UNFINISHED,
                     {"worker": "w3"}, id="released by who had it"),
        pytest.param("failpoint", Notice(worker="w1", event="failpoint", at=105.0, id="a", pid=1), run(),
                     {"pid": 7}, id="failpoint of who had it"),
        pytest.param("ack lost", Notice(worker="w1", event="settlement lost", at=105.0, id="a", pid=1), run(),
                     {"pid": 7}, id="a child's ack lost"),
        pytest.param("session lost", Notice(worker="w1", event="session ended", at=130.0), run(),
                     {"at": 190.0}, id="session lost, noticed late"),
    ],
)  # fmt: skip
def test_a_second_delivery_needs_a_cause_that_fits(
    cause: str, evidence: Any, first: Run, wrong: dict[str, Any]
) -> None:
    explained = checked(send(), first, again(), evidence)
    assert kinds(explained) == []
    assert explained.repeats == {cause: 1}
    assert kinds(checked(send(), first, again(), replace(evidence, **wrong))) == ["unexplained"]
    # A message that is not marked as redelivered, or one hop further, is another copy, and needs another cause.
    assert kinds(checked(send(), first, again(redelivered=False), evidence)) == ["unexplained"]
    assert kinds(checked(send(), first, again(hop=1), evidence)) == ["unexplained"]


@pytest.mark.parametrize(
    ("cause", "explained", "unexplained"),
    [
        pytest.param("sent again", [send(fate="unknown"), send(invoked=103.0), run(), again()],
                     [send(), run(), again()], id="sent again"),
        pytest.param("send unsure", [send(ended=105.0), run(), again(), fault("resend")],
                     [send(ended=103.0), run(), again(), fault("resend")], id="send unsure"),
        pytest.param("copied again",
                     [send(), failed(), again(succeeded=False), Notice(worker="w1", event="died", at=105.0),
                      run(hop=1, attempt=2, started=112.0), again(hop=1, attempt=2, started=113.0)],
                     None, id="copied again"),
        pytest.param("copy unsure",
                     [send(), failed(finished=104.5), run(hop=1, attempt=2, started=112.0),
                      again(hop=1, attempt=2, started=113.0), fault("resend")],
                     [send(), failed(finished=100.3), run(hop=1, attempt=2, started=112.0),
                      again(hop=1, attempt=2, started=113.0), fault("resend", began=103.0)], id="copy unsure"),
        pytest.param("broker fault",
                     [send(), failed(finished=100.3), run(hop=1, attempt=2, started=112.0),
                      again(hop=1, attempt=2, started=113.0), fault("echo")],
                     [send(), failed(finished=100.3), run(hop=1, attempt=2, started=112.0),
                      again(hop=1, attempt=2, started=113.0),
                      fault("echo", began=116.0, ended=117.0)], id="in the levels"),
    ],
)  # fmt: skip
def test_a_second_copy_needs_a_cause_that_fits(
    cause: str, explained: list[Any], unexplained: list[Any] | None
) -> None:
    def unmarked(parts: list[Any]) -> list[Any]:
        return [
            replace(part, redelivered=False) if isinstance(part, Run) and part.hop else part for part in parts
        ]

    report = checked(*unmarked(explained))
    assert kinds(report) == []
    assert report.repeats[cause] == 1
    if unexplained is not None:
        assert kinds(checked(*unmarked(unexplained))) == ["unexplained"]


def test_a_queue_that_cannot_be_read_is_told() -> None:
    report = checked(send(), run(), unreadable={"jobs.v1.delay.02": "541 noproc"})
    assert [(violation.kind, violation.text) for violation in report.violations] == [
        ("unreadable", "jobs.v1.delay.02: 541 noproc")
    ]


@pytest.mark.parametrize("event", ["session ended", "queue lost", "died"])
def test_first_delivery_may_run_after_the_second_where_its_process_was_cut_off(event: str) -> None:
    overtaking, overtaken = run(worker="w2", pid=2, redelivered=True), run(started=100.25)
    evidence = Notice(worker="w1", event=event, at=100.4)
    explained = checked(send(), overtaking, overtaken, evidence)
    assert (kinds(explained), explained.repeats) == ([], {"overtaken": 1})
    for wrong in (
        [overtaking, overtaken],
        [overtaking, overtaken, replace(evidence, worker="w2")],
        [overtaking, overtaken, replace(evidence, at=100.1)],  # then it would have known
        [overtaking, overtaken, replace(evidence, at=190.0)],
        [replace(overtaking, redelivered=False), overtaken, evidence],
        [overtaking, replace(overtaken, hop=1), evidence],
        [overtaking, replace(overtaken, worker="w2", pid=2), replace(evidence, worker="w2")],
    ):
        assert kinds(checked(send(), *wrong)) == ["unexplained"]


@pytest.mark.parametrize(
    "evidence",
    [
        Notice(worker="w1", event="session ended", at=105.0),
        Notice(worker="w1", event="settlement lost", at=105.0, id="a"),
        fault("freeze", target="w1"),
        fault("undo"),
    ],
)
def test_a_process_must_recognise_what_it_has_run_itself(evidence: Any) -> None:
    same = again(worker="w1", pid=1)
    assert kinds(checked(send(), run(), same, evidence)) == ["unexplained"]
    assert kinds(checked(send(), run(), same, evidence, absorbing=False)) == []


def later(id: str = "a", **changes: Any) -> Run:
    return run(id, **{"succeeded": False, "later": True, "again_in": 0.5, **changes})


def test_a_job_may_ask_to_run_later_and_spends_no_attempt() -> None:
    report = checked(
        send(), later(), later(hop=1, started=100.9, finished=101.0),
        failed(hop=2, started=101.6, finished=101.7), run(hop=3, attempt=2, started=102.3, finished=102.4),
    )  # fmt: skip
    assert kinds(report) == []
    assert report.repeats.total() == 0
    assert report.late_ms["max"] == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        pytest.param([later()], "lost", id="it never ran again"),
        pytest.param([later(), run(hop=1, started=100.6)], "early", id="its wait was cut"),
        pytest.param([later(), run(hop=1, attempt=2, started=101.0)], "unexplained", id="it spent an attempt"),
        pytest.param([failed(), run(hop=1, started=101.0)], "unexplained", id="a failure spent none"),
        pytest.param([later(), later(started=101.0, redelivered=True, finished=101.1), run(hop=1, started=102.0)],
                     "unexplained", id="its turn came twice"),
        pytest.param([later(), run(hop=1, started=101.0), run(hop=1, started=101.1)],
                     "unexplained", id="the next turn came twice"),
        pytest.param([later(), run(hop=1, started=101.0), run(hop=2, started=102.0)],
                     "unexplained", id="a turn that nobody asked for"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_job_that_asks_to_run_later_is_reported(parts: list[Any], kind: str) -> None:
    assert kinds(checked(send(), *parts)) == [kind]


def test_a_turn_that_came_twice_may_make_two_copies() -> None:
    twice = [later(), later(worker="w2", pid=2, started=110.0, finished=110.1, redelivered=True)]
    copies = [run(hop=1, started=111.0), run(hop=1, started=112.0)]
    report = checked(send(), *twice, *copies, Notice(worker="w1", event="died", at=105.0, pid=1))
    assert kinds(report) == []
    assert report.repeats == {"killed": 1, "copied again": 1}


def test_a_copy_that_met_no_queue_is_one_hop_further_when_it_runs() -> None:
    retries = [failed(), run(hop=2, attempt=2, started=101.0)]
    assert kinds(checked(send(), *retries)) == []
    sent_twice = [send(fate="unknown"), send(invoked=101.0), run(), run(hop=1, started=102.0)]
    assert checked(*sent_twice).repeats == {"sent again": 1}
    # Of two copies of a copy one met no queue, so that the same attempt has two hops.
    twice = [failed(), again(succeeded=False), Notice(worker="w1", event="died", at=105.0)]
    report = checked(
        send(end="dead"), *twice, failed(hop=1, attempt=2, started=111.0), failed(hop=2, attempt=2, started=112.0),
        failed(hop=2, attempt=3, started=113.0), failed(hop=3, attempt=3, started=114.0), dead(hop=3), dead(hop=4),
    )  # fmt: skip
    assert kinds(report) == []
    assert report.repeats == {"killed": 1, "copied again": 3}


@pytest.mark.parametrize("end", ["session ended", "died"])
def test_original_and_the_copy_that_counts_it_may_both_run_where_the_original_could_not_be_acknowledged(
    end: str,
) -> None:
    runs = send(), run(redelivered=True), again()
    counted = Notice(worker="w3", event="redelivery counted", at=99.0, id="a", pid=3)
    ended = Notice(worker="w3", event=end, at=99.1, pid=3)
    assert checked(*runs, counted, ended).repeats == {"counted twice": 1}
    for wrong in (
        [counted], [ended], [counted, replace(ended, worker="w4")], [counted, replace(ended, pid=4)],
        [counted, replace(ended, at=170.0)], [replace(counted, id="b"), ended], [replace(counted, at=111.0), ended],
    ):  # fmt: skip
        assert kinds(checked(*runs, *wrong)) == ["unexplained"]
    # One process has to recognise the second.
    assert kinds(checked(send(), run(), again(worker="w1", pid=1), counted, ended)) == ["unexplained"]


def test_the_end_of_a_parent_explains_nothing_that_its_children_do() -> None:
    parent = [Notice(worker="w1", event="died", at=105.0, pid=99), fault(kind="parent-kill", target="w1")]
    assert kinds(checked(send(), UNFINISHED, again(), *parent)) == ["unexplained"]
    assert kinds(checked(send(), run(), again(worker="w1", pid=2), *parent)) == ["unexplained"]
    given_back = Notice(worker="w1", event="job released", at=106.0, id="a", pid=1)
    assert checked(send(), failed(again_in=0.0), again(), *parent, given_back).repeats == {"released": 1}


def test_what_nobody_foresaw_is_reported() -> None:
    assert kinds(checked(send(), run(), Notice(worker="w1", event="defect", at=105.0))) == ["defect"]


def test_a_dead_letter_twice_needs_a_cause() -> None:
    letters = [send(end="dead"), failed(finished=105.0), dead(), dead()]
    assert kinds(checked(*letters)) == ["unexplained"]
    assert checked(*letters, fault("resend")).repeats == {"copy unsure": 1}


def steady(began: float, ended: float, per_second: int) -> list[Any]:
    times = [began + n / per_second for n in range(int((ended - began) * per_second))]
    return [
        part
        for at in times
        for part in (
            send(f"{at}", invoked=at - 0.2, ended=at - 0.1),
            run(f"{at}", started=at - 0.05, finished=at),
        )
    ]


@pytest.mark.parametrize(
    ("after", "seconds", "violations"),
    [
        pytest.param([(200, 220, 10)], 0.0, [], id="at once"),
        pytest.param([(200, 212, 5), (212, 220, 9)], 11.5, [], id="after a while"),
        pytest.param([(200, 280, 5)], None, ["slow"], id="never"),
        pytest.param([(200, 230, 5)], None, ["slow"], id="cannot be told"),
    ],
)
def test_throughput_must_come_back(
    after: list[tuple[int, int, int]], seconds: float | None, violations: list[str]
) -> None:
    parts = [*steady(100, 110, 10), *(part for phase in after for part in steady(*phase)), fault()]
    report = checked(*parts, calm=(100.0, 110.0), healed=200.0, loaded_until=float(after[-1][1]))
    assert kinds(report) == violations
    assert report.recovery_seconds == (seconds if seconds is None else pytest.approx(seconds, abs=1.0))


@pytest.mark.parametrize("what", ["threads", "descriptors", "memory", "tasks"])
def test_a_process_that_gathers_things_is_reported(what: str) -> None:
    held = Sample(process="w1", at=105.0, threads=10, descriptors=10, memory=50_000_000, tasks=10)
    later = replace(held, at=310.0)
    more: Callable[[Sample], Sample] = lambda sample: replace(sample, **{what: getattr(sample, what) * 10})  # noqa: E731
    times: dict[str, Any] = {"calm": (100.0, 110.0), "healed": 200.0, "loaded_until": 300.0}
    load = [*steady(100, 110, 10), *steady(200, 220, 10), fault()]
    assert kinds(checked(*load, held, later, **times)) == []
    assert kinds(checked(*load, held, more(later), **times)) == ["growth"]
    assert kinds(checked(*load, held, more(replace(later, at=250.0)), later, **times)) == []


def test_the_json_tells_all_that_counts() -> None:
    told = checked(send(), run(), again(), send("b"), run("x"), fault("resend", kind="reset")).as_json()
    assert told["sends"] == {"ok": 2, "unknown": 0, "refused": 0}
    assert (told["lost"], told["phantom"]) == (1, 1)
    assert told["repeats"] == {"explained": 0, "unexplained": 1, "causes": {}}
    assert told["faults"] == {"reset": 1}
    assert told["violations"] == {"lost": 1, "phantom": 1, "unexplained": 1}

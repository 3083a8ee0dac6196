"""One queue in a worker: who may start, what is settled when, and what happens to it when its session ends."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, ClassVar

import pytest
import tenacity
from structlog.testing import capture_logs

from brokerjobs import Breaker, Consumer, Retry, current_job, lane, runs, settling, topology
from brokerjobs.amqp.connection import CLOSE_TIMEOUT
from brokerjobs.amqp.session import LAST_MOMENT, LAST_QUESTION_TIMEOUT
from brokerjobs.amqp.settlement import Settlement
from brokerjobs.breaker import Circuit
from brokerjobs.context import Cancellation
from brokerjobs.errors import BrokerUnreachable, PublishUnknown
from brokerjobs.executor import Executor, Threads
from brokerjobs.lane import Lane, Slots
from brokerjobs.message import Message
from brokerjobs.metrics import Metrics
from brokerjobs.outcome import Outcome
from brokerjobs.supervisor.child import GRACE
from brokerjobs.topology import Names
from brokerjobs.transport import Publication
from brokerjobs.worker_state import ERROR_LIMIT, FAILURES, QueueWork
from tests.unit.doubles import FakeDelivery, FakePublisher
from tests.waiting import eventually_async

AMPLE = 30.0  # seconds within which everything here ends


class Bench:
    """A lane with its surroundings; its jobs stay until let go."""

    def __init__(
        self,
        threads: Threads,
        *,
        queue: str = "emails",
        slots: Slots | None = None,
        publisher: type[FakePublisher] = FakePublisher,
        executor: type[Executor] = Executor,
    ) -> None:
        self.consumer = Consumer(queue, retry=Retry(2, delays=[10]))
        self.journal: list[str] = []
        self.publisher = publisher(self.journal)
        self.metrics = Metrics()
        self.slots = slots or Slots(2)
        self.used_when_freed: list[int] = []
        self.started: list[str] = []
        self.go_on = asyncio.Event()
        self.lane = Lane(
            self.consumer,
            executor(self.consumer, threads),
            Settlement(Names(), self.publisher, timeout=AMPLE),
            self.slots,
            self.metrics,
            lambda _: self.used_when_freed.append(self.slots.used),
        )

        @self.consumer.job()
        async def stay(n: int = 0) -> None:
            self.started.append(f"{queue} {n}")
            await self.go_on.wait()

        @self.consumer.job()
        async def quick() -> None: ...

        @self.consumer.job()
        async def fail() -> None:
            raise ConnectionError("gateway is away")

    @property
    def freed(self) -> int:
        return len(self.used_when_freed)

    def deliver(
        self,
        job: str,
        arguments: Any = None,
        *,
        redelivered: bool = False,
        counted: bool = False,
        **properties: Any,
    ) -> FakeDelivery:
        delivery = FakeDelivery(
            self.lane.queue,
            self.journal,
            body=json.dumps(arguments or {}).encode(),
            routing_key=f"{self.lane.queue}.{job}",
            properties={"message_id": "7", **properties},
            redelivered=redelivered,
            counted=counted,
        )
        self.lane.take(delivery)
        return delivery

    def start_all(self) -> int:
        before = self.lane.running
        self.lane.start()
        return self.lane.running - before

    async def finish(self) -> None:
        self.go_on.set()
        await eventually_async(lambda: self.lane.is_idle)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def names(self) -> list[str]:
        return [sample.name for family in self.metrics.registry.collect() for sample in family.samples]


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads(4)
    yield threads
    threads.close()


@pytest.fixture
def bench(threads: Threads) -> Bench:
    return Bench(threads)


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "wait_random_exponential", lambda **_: tenacity.wait_none())


# ---- slots


async def test_no_more_run_than_there_are_slots(bench: Bench) -> None:
    for n in range(5):
        bench.deliver("stay", {"n": n})

    assert bench.start_all() == 2
    await eventually_async(lambda: len(bench.started) == 2)
    assert (bench.lane.running, bench.slots.used, bench.slots.free) == (2, 2, False)

    bench.go_on.set()
    await eventually_async(lambda: bench.freed == 2)
    assert bench.start_all() == 2
    await eventually_async(lambda: bench.freed == 4)
    assert bench.start_all() == 1
    await bench.finish()

    assert bench.started == [f"emails {n}" for n in range(5)]
    assert (bench.slots.used, bench.freed) == (0, 5)


async def test_nothing_starts_where_nothing_waits(bench: Bench) -> None:
    assert bench.start_all() == 0
    assert bench.lane.is_idle


async def test_lanes_in_strict_order_share_their_slots(threads: Threads) -> None:
    slots = Slots(2)
    first, second = Bench(threads, queue="critical", slots=slots), Bench(threads, queue="low", slots=slots)
    first.deliver("stay")
    for _ in range(3):
        second.deliver("stay")

    assert first.start_all() == 1
    assert second.start_all() == 1
    first.deliver("stay")
    assert first.start_all() == 0  # the other holds the slot

    second.go_on.set()
    await eventually_async(lambda: second.freed == 1)
    assert first.start_all() == 1
    assert second.start_all() == 0

    await first.finish()
    second.start_all()
    await second.finish()
    assert slots.used == 0


async def test_slot_is_free_before_the_lane_says_so(bench: Bench) -> None:
    """Whoever hears it starts the next at once."""
    bench.deliver("quick")

    bench.start_all()
    await bench.finish()

    assert bench.used_when_freed == [0]


# ---- settled once, in order


@pytest.mark.parametrize(
    ("job", "properties", "frames", "outcome"),
    [
        ("quick", {}, ["ack"], "succeeded"),
        ("fail", {}, ["confirmed", "ack"], "retried"),
        ("fail", {"headers": {"brokerjobs-attempt": 2}}, ["confirmed", "ack"], "dead"),
    ],
)
async def test_run_is_settled_by_its_outcome_and_counted(
    bench: Bench, job: str, properties: Mapping[str, Any], frames: list[str], outcome: str
) -> None:
    bench.deliver(job, **properties)

    bench.start_all()
    await bench.finish()

    assert bench.journal == frames
    labels = {"queue": "emails", "job_name": f"emails.{job}"}
    assert bench.value("brokerjobs_jobs_received_total", **labels) == 1
    assert bench.value("brokerjobs_jobs_finished_total", **labels, outcome=outcome) == 1
    assert bench.value("brokerjobs_job_duration_seconds_count", **labels) == 1
    assert bench.value("brokerjobs_jobs_in_progress", queue="emails") == 0


async def test_wait_is_counted_from_when_the_job_was_due(bench: Bench) -> None:
    now = time.time()
    bench.deliver("quick", timestamp=int(now - 1000), headers={"brokerjobs-due": int((now - 60) * 1000)})
    bench.deliver("quick", timestamp=int(now + 1000))  # another clock

    bench.start_all()
    await bench.finish()

    waited = bench.value("brokerjobs_job_wait_seconds_sum", queue="emails")
    assert waited is not None
    assert 59 < waited < 90


async def test_what_rabbitmq_had_delivered_before_is_counted_once(bench: Bench) -> None:
    bench.deliver("quick")
    assert bench.value("brokerjobs_jobs_redelivered_total", queue="emails") == 0

    delivery = bench.deliver("stay", message_id="8", redelivered=True, counted=True)
    bench.start_all()
    await eventually_async(lambda: bench.started == ["emails 0"])
    assert bench.value("brokerjobs_jobs_redelivered_total", queue="emails") == 1

    bench.deliver(
        "stay", message_id="8", redelivered=True, counted=True
    )  # it runs here and is held: a copy, which waits
    assert bench.value("brokerjobs_jobs_redelivered_total", queue="emails") == 2
    await bench.finish()
    assert delivery.is_settled
    assert bench.value("brokerjobs_jobs_redelivered_total", queue="emails") == 2


async def test_failures_are_counted_by_their_exception(bench: Bench) -> None:
    def failures(**labels: str) -> float | None:
        return bench.value("brokerjobs_job_failures_total", queue="emails", **labels)

    bench.deliver("quick")
    bench.deliver("fail", message_id="8")
    bench.start_all()
    await bench.finish()
    bench.deliver("fail", message_id="9", headers={"brokerjobs-attempt": 2})
    bench.deliver("quick", {"no": "such"}, message_id="10")
    bench.start_all()
    await bench.finish()

    assert failures(job_name="emails.fail", exception="ConnectionError") == 2
    assert failures(job_name="emails.quick", exception="arguments") == 1
    names = [name for name in bench.names() if name.startswith("brokerjobs_job_failures_total")]
    assert len(names) == 2


async def test_attempts_are_counted_when_a_job_has_ended_for_good(bench: Bench) -> None:
    def attempts(le: str) -> float | None:
        return bench.value("brokerjobs_job_attempts_bucket", queue="emails", le=le)

    bench.deliver("fail", message_id="8")  # it is tried again
    bench.start_all()
    await bench.finish()
    assert attempts("+Inf") == 0

    bench.deliver("fail", message_id="8", headers={"brokerjobs-attempt": 2})
    bench.deliver("quick", message_id="9")
    bench.start_all()
    await bench.finish()
    assert [attempts("1.0"), attempts("2.0"), attempts("+Inf")] == [1, 2, 2]
    assert bench.value("brokerjobs_job_attempts_sum", queue="emails") == 3


async def test_replayed_jobs_are_counted_at_their_first_attempt(bench: Bench) -> None:
    headers = {"brokerjobs-generation": 1}
    bench.deliver("quick", message_id="8")
    bench.deliver("quick", message_id="9", headers=headers)
    bench.start_all()
    await bench.finish()
    bench.deliver(
        "quick", message_id="9", headers={**headers, "brokerjobs-attempt": 2, "brokerjobs-first-at": 5}
    )
    bench.start_all()
    await bench.finish()

    assert bench.value("brokerjobs_jobs_replayed_total", queue="emails") == 1


async def test_start_of_the_job_that_has_run_longest(bench: Bench) -> None:
    def oldest() -> float:
        return bench.value("brokerjobs_jobs_oldest_start_timestamp_seconds", queue="emails") or 0.0

    assert oldest() == 0
    before = time.time()
    bench.deliver("stay", {"n": 1})
    bench.start_all()
    await eventually_async(lambda: bench.lane.jobs != [])
    first = oldest()
    assert before <= first <= time.time()

    bench.deliver("stay", {"n": 2}, message_id="8")
    bench.start_all()
    await eventually_async(lambda: len(bench.started) == 2)
    assert oldest() == first

    await bench.finish()
    assert oldest() == 0


async def test_lane_knows_when_what_it_started_last_was_due(bench: Bench) -> None:
    assert bench.lane.due == 0

    bench.deliver("quick", timestamp=int(time.time()) - 60)
    bench.start_all()
    await bench.finish()

    assert bench.lane.due == pytest.approx(time.time() - 60, abs=30)


async def test_unknown_jobs_count_as_other(bench: Bench) -> None:
    for n in range(5):
        bench.deliver(f"made-up-{n}")

    for _ in range(3):
        bench.start_all()
        await eventually_async(lambda: bench.lane.running == 0)

    assert bench.value("brokerjobs_jobs_received_total", queue="emails", job_name="other") == 5
    assert bench.value("brokerjobs_jobs_received_total", queue="emails", job_name="emails.made-up-1") is None


async def test_decision_by_hand_settles_while_the_job_goes_on(bench: Bench) -> None:
    @bench.consumer.job()
    async def early() -> None:
        current_job().ack()
        await bench.go_on.wait()

    bench.deliver("early")
    bench.start_all()
    await eventually_async(lambda: bench.journal == ["ack"])

    assert bench.lane.running == 1
    assert bench.slots.used == 1

    await bench.finish()
    assert bench.journal == ["ack"]


@pytest.mark.parametrize(
    ("decide", "frames", "outcome"),
    [("nack", ["requeue"], "released"), ("reject", ["confirmed", "ack"], "dead")],
)
async def test_decision_by_hand_is_what_is_counted(
    bench: Bench, decide: str, frames: list[str], outcome: str
) -> None:
    @bench.consumer.job()
    def hand() -> None:
        getattr(current_job(), decide)()

    bench.deliver("hand")
    bench.start_all()
    await bench.finish()

    assert bench.journal == frames
    finished = bench.value(
        "brokerjobs_jobs_finished_total", queue="emails", job_name="emails.hand", outcome=outcome
    )
    assert finished == 1


class UndecodableDelivery(FakeDelivery):
    @property
    def properties(self) -> Mapping[str, Any]:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


async def test_delivery_that_cannot_be_read_is_a_dead_letter(bench: Bench) -> None:
    bench.lane.take(UndecodableDelivery("emails", bench.journal, body=b"\xff", routing_key="emails.x"))

    bench.start_all()
    await bench.finish()

    assert bench.journal == ["confirmed", "ack"]
    [publication] = bench.publisher.published
    assert publication.exchange == "jobs.dead"
    assert publication.message.marks["reason"] == "undecodable"
    assert publication.message.body == b"\xff"
    assert bench.slots.used == 0


# ---- held while its copy is not confirmed


async def test_job_is_held_until_its_copy_is_confirmed(bench: Bench) -> None:
    bench.publisher.errors += [
        PublishUnknown("no confirm"),
        BrokerUnreachable("away"),
        PublishUnknown("no confirm"),
    ]
    delivery = bench.deliver("fail")

    with capture_logs() as lines:
        bench.start_all()
        await bench.finish()

    assert bench.journal == ["not confirmed"] * 3 + ["confirmed", "ack"]
    assert delivery.is_settled
    held = [line for line in lines if line["event"] == "copy not confirmed, job held"]
    assert [line["error"] for line in held] == ["no confirm", "away", "no confirm"]


class SlowPublisher(FakePublisher):
    """Confirms nothing until told to."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__(journal)
        self.asked = asyncio.Event()
        self.confirm = asyncio.Event()

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        self.asked.set()
        await self.confirm.wait()
        await super().publish(publication, timeout=timeout)


async def test_held_job_keeps_its_slot(threads: Threads) -> None:
    """The queue pauses by itself: it must not take on more of what it cannot settle."""
    bench = Bench(threads, publisher=SlowPublisher)
    publisher = bench.publisher
    assert isinstance(publisher, SlowPublisher)
    for _ in range(3):
        bench.deliver("fail")
    assert bench.start_all() == 2

    await asyncio.wait_for(publisher.asked.wait(), AMPLE)
    assert bench.start_all() == 0
    await eventually_async(lambda: bench.value("brokerjobs_jobs_in_progress", queue="emails") == 0)
    assert bench.value("brokerjobs_jobs_oldest_start_timestamp_seconds", queue="emails") == 0

    publisher.confirm.set()
    await eventually_async(lambda: bench.freed == 2)
    assert bench.start_all() == 1
    await bench.finish()


# ---- the session ends


async def test_outcome_of_an_ended_session_is_dropped_and_counted(bench: Bench) -> None:
    """The broker delivers it again: to publish a copy now would make two of it."""
    delivery = bench.deliver("fail")
    delivery.end_session()

    with capture_logs() as lines:
        bench.start_all()
        await bench.finish()

    assert bench.journal == []
    assert bench.publisher.published == []
    assert bench.value("brokerjobs_settle_failures_total", queue="emails") == 1
    [lost] = [line for line in lines if line["event"] == "settlement lost"]
    assert (lost["queue"], lost["id"], lost["outcome"]) == ("emails", "7", "retried")
    assert bench.slots.used == 0


async def test_held_job_is_let_go_when_its_session_ends(bench: Bench) -> None:
    bench.publisher.errors += [PublishUnknown("no confirm")] * 10_000
    delivery = bench.deliver("fail")
    bench.start_all()
    await eventually_async(lambda: bench.journal.count("not confirmed") > 3)

    delivery.end_session()
    await bench.finish()

    assert set(bench.journal) == {"not confirmed"}
    assert bench.value("brokerjobs_settle_failures_total", queue="emails") == 1


async def test_run_outlives_the_session_that_brought_it(bench: Bench) -> None:
    delivery = bench.deliver("stay")
    bench.deliver("stay")
    bench.deliver("quick")
    bench.start_all()
    await eventually_async(lambda: len(bench.started) == 2)

    delivery.end_session()
    bench.lane.forget_inbox()

    assert bench.lane.running == 2
    assert bench.start_all() == 0
    await bench.finish()
    assert bench.journal == ["ack"]  # that of the other


# ---- delivered again


async def test_message_that_still_runs_is_adopted(bench: Bench) -> None:
    old = bench.deliver("stay")
    bench.start_all()
    await eventually_async(lambda: bench.started == ["emails 0"])
    old.end_session()

    new = bench.deliver("stay", redelivered=True)
    assert bench.start_all() == 0
    await bench.finish()

    assert bench.started == ["emails 0"]
    assert bench.journal == ["ack"]
    assert (old.is_settled, new.is_settled) == (False, True)
    assert bench.value("brokerjobs_jobs_recognised_total", queue="emails", how="adopted") == 1


@pytest.mark.parametrize(("job", "frames"), [("quick", ["ack"]), ("fail", ["confirmed", "ack"])])
async def test_message_whose_run_ended_without_a_session_is_absorbed(
    bench: Bench, job: str, frames: list[str]
) -> None:
    """What its outcome asks for is done then, and not before: no copy without its original."""
    bench.deliver(job).end_session()
    bench.start_all()
    await eventually_async(lambda: bench.lane.is_idle)
    assert bench.journal == []

    bench.deliver(job, redelivered=True)
    assert bench.start_all() == 0
    await eventually_async(lambda: bench.lane.is_idle)

    assert bench.journal == frames
    assert bench.value("brokerjobs_jobs_recognised_total", queue="emails", how="absorbed") == 1
    assert bench.value("brokerjobs_jobs_received_total", queue="emails", job_name=f"emails.{job}") == 2
    assert bench.value("brokerjobs_job_duration_seconds_count", queue="emails", job_name=f"emails.{job}") == 1


async def test_acknowledged_message_that_comes_again_is_absorbed(bench: Bench) -> None:
    """After a crash of the broker classic queues bring back what was acknowledged last."""
    bench.deliver("quick")
    bench.start_all()
    await bench.finish()

    bench.deliver("quick", redelivered=True)
    await eventually_async(lambda: bench.lane.is_idle)

    assert bench.journal == ["ack", "ack"]


async def test_copy_that_was_confirmed_is_not_published_again(threads: Threads) -> None:
    bench = Bench(threads, publisher=SlowPublisher)
    publisher = bench.publisher
    assert isinstance(publisher, SlowPublisher)
    delivery = bench.deliver("fail")
    bench.start_all()
    await asyncio.wait_for(publisher.asked.wait(), AMPLE)
    delivery.end_session()
    publisher.confirm.set()
    await eventually_async(lambda: bench.lane.is_idle)
    assert bench.journal == ["confirmed"]

    bench.deliver("fail", redelivered=True)
    await eventually_async(lambda: bench.lane.is_idle)

    assert bench.journal == ["confirmed", "ack"]


async def test_message_that_comes_again_while_its_copy_is_confirmed_is_adopted(threads: Threads) -> None:
    bench = Bench(threads, publisher=SlowPublisher)
    publisher = bench.publisher
    assert isinstance(publisher, SlowPublisher)
    old = bench.deliver("fail")
    bench.start_all()
    await asyncio.wait_for(publisher.asked.wait(), AMPLE)
    old.end_session()

    bench.deliver("fail", redelivered=True)
    publisher.confirm.set()
    await eventually_async(lambda: bench.lane.is_idle)

    assert bench.journal == ["confirmed", "ack"]


@pytest.mark.parametrize(
    "properties",
    [
        {"message_id": None},
        {"message_id": "8"},
        {"headers": {"brokerjobs-hop": 1}},
        {"headers": {"brokerjobs-generation": 1}},
    ],
)
async def test_other_message_runs(bench: Bench, properties: Mapping[str, Any]) -> None:
    first: dict[str, Any] = {"message_id": None} if properties == {"message_id": None} else {}
    bench.deliver("quick", **first).end_session()
    bench.start_all()
    await eventually_async(lambda: bench.lane.is_idle)

    bench.deliver("quick", redelivered=True, counted=True, **properties)
    assert bench.start_all() == 1
    await bench.finish()

    assert bench.value("brokerjobs_jobs_received_total", queue="emails", job_name="emails.quick") == 2


async def test_same_id_sent_on_another_day_runs(bench: Bench) -> None:
    bench.deliver("quick", timestamp=1_700_000_000)
    bench.start_all()
    await bench.finish()

    bench.deliver("quick", timestamp=1_700_086_400, redelivered=True, counted=True)

    assert bench.start_all() == 1
    await bench.finish()


async def test_decision_by_hand_that_nobody_could_be_told_runs_again(bench: Bench) -> None:
    @bench.consumer.job()
    async def hesitant() -> None:
        bench.started.append("hesitant")
        if len(bench.started) == 1:
            old.end_session()
            current_job().nack()
        await bench.go_on.wait()

    old = bench.deliver("hesitant")
    bench.start_all()
    await eventually_async(lambda: len(bench.started) == 1)
    await eventually_async(lambda: bench.value("brokerjobs_settle_failures_total", queue="emails") == 1)

    new = bench.deliver("hesitant", redelivered=True, counted=True)
    assert bench.start_all() == 1
    await bench.finish()

    assert new.is_settled
    assert bench.started == ["hesitant"] * 2


async def test_second_message_of_an_id_runs(bench: Bench) -> None:
    """Two sends with one id are two messages; only what is delivered again is recognised."""
    bench.deliver("quick")
    bench.deliver("quick")

    assert bench.start_all() == 2
    await bench.finish()

    assert bench.journal == ["ack", "ack"]


async def test_message_given_back_by_hand_runs_again(bench: Bench) -> None:
    @bench.consumer.job()
    async def hesitant() -> None:
        bench.started.append("hesitant")
        if len(bench.started) == 1:
            current_job().nack()
        await bench.go_on.wait()

    bench.deliver("hesitant")
    bench.start_all()
    await eventually_async(lambda: bench.journal == ["requeue"])

    bench.deliver("hesitant", redelivered=True)
    assert bench.start_all() == 1
    await bench.finish()

    assert bench.started == ["hesitant"] * 2
    assert bench.journal == ["requeue", "ack"]


async def test_ended_runs_are_remembered_for_a_while_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "REMEMBERED", 2)
    for id in "abcdef":
        bench.deliver("quick", message_id=id)
        bench.start_all()
        await eventually_async(lambda: bench.lane.is_idle)

    for id in "abcdef":
        bench.deliver("quick", message_id=id, redelivered=True)

    await eventually_async(lambda: bench.slots.used == 0)
    assert bench.start_all() == 2  # a and b run again
    await bench.finish()
    assert bench.value("brokerjobs_jobs_recognised_total", queue="emails", how="absorbed") == 4


# ---- paused


@pytest.mark.parametrize("who", ["broker", "publisher"])
async def test_queue_that_nobody_rests_on_purpose_does_not_count_as_paused(bench: Bench, who: str) -> None:
    """Alerts are silent where it does."""
    bench.lane.gate.pause(who, "it was taken away, or retries cannot be published")

    assert bench.value("brokerjobs_queue_paused", queue="emails") == 0


async def test_paused_queue_starts_nothing_until_all_have_resumed(bench: Bench) -> None:
    bench.lane.gate.pause("operator", "maintenance")
    bench.lane.gate.pause("breaker", "too many failures")
    bench.deliver("quick")

    assert bench.start_all() == 0
    assert bench.value("brokerjobs_queue_paused", queue="emails") == 1
    bench.lane.gate.resume("operator")
    assert bench.start_all() == 0

    bench.lane.gate.resume("breaker")
    assert bench.value("brokerjobs_queue_paused", queue="emails") == 0
    assert bench.freed == 1  # whoever starts jobs is told
    assert bench.start_all() == 1
    await bench.finish()


async def test_queue_pauses_while_copies_are_not_confirmed(bench: Bench) -> None:
    bench.publisher.errors += [PublishUnknown("no confirm")] * 3
    paused: list[bool] = []
    publish = bench.publisher.publish

    async def noted(publication: Publication, *, timeout: float) -> None:
        paused.append(bench.lane.gate.is_paused)
        await publish(publication, timeout=timeout)

    bench.publisher.publish = noted  # type: ignore[method-assign]
    bench.deliver("fail")
    bench.start_all()
    await bench.finish()

    assert paused == [False, False, False, True]
    assert not bench.lane.gate.is_paused


# ---- the circuit breaker


async def test_queue_whose_jobs_fail_rests_and_tries_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, pause = bench.lane.gate, bench.lane.gate.pause
    paused: list[tuple[str, str]] = []
    monkeypatch.setattr(gate, "_circuit", Circuit(Breaker(2, rest=0.05)))

    def noted(who: str, why: str) -> None:
        paused.append((who, why))
        pause(who, why)

    monkeypatch.setattr(gate, "pause", noted)
    for _ in range(2):
        bench.deliver("fail")
    bench.start_all()
    await eventually_async(lambda: bench.lane.is_idle)
    assert paused == [("breaker", "2 failures within 1m; one job is tried in 0.05 s")]
    assert bench.value("brokerjobs_breaker_open", queue="emails") == 1

    await eventually_async(lambda: not gate.is_paused)
    for _ in range(2):
        bench.deliver("quick")
    assert bench.start_all() == 1  # the probe
    await eventually_async(lambda: bench.slots.used == 0)

    assert bench.value("brokerjobs_breaker_open", queue="emails") == 0
    assert bench.start_all() == 1
    await bench.finish()


async def test_probe_that_fails_lets_the_queue_rest_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = Circuit(Breaker(1, rest=3600))
    monkeypatch.setattr(bench.lane.gate, "_circuit", circuit)
    bench.deliver("stay")
    bench.deliver("fail")
    bench.start_all()
    await eventually_async(lambda: bench.lane.gate.is_paused)
    bench.lane.gate._try_one()

    bench.deliver("fail")
    bench.deliver("quick")
    assert bench.start_all() == 1
    bench.go_on.set()  # what ends beside the probe says nothing of now
    await eventually_async(lambda: bench.lane.gate.is_paused)

    assert circuit.state == "open"


# ---- cancelled


@pytest.fixture
def dead_reason(bench: Bench) -> Callable[[], str]:
    return lambda: bench.publisher.published[-1].message.marks["reason"]


async def test_running_job_is_stopped_and_dead(bench: Bench, dead_reason: Callable[[], str]) -> None:
    bench.deliver("stay")
    bench.start_all()
    await eventually_async(lambda: bool(bench.started))

    assert bench.lane.cancel("7") == []  # it was sent after the cancellation
    bench.lane.is_cancelled = lambda message, sent_at: True
    assert bench.lane.cancel("another") == []
    assert bench.lane.cancel("7") == [{"queue": "emails", "job": "emails.stay", "stopped": True}]
    await eventually_async(lambda: bench.lane.is_idle)

    assert bench.journal == ["confirmed", "ack"]
    assert dead_reason() == "cancelled"


@pytest.mark.parametrize(("fails", "frames"), [(False, ["ack"]), (True, ["confirmed", "ack"])])
async def test_job_in_a_thread_is_told_and_not_tried_again(
    bench: Bench, fails: bool, frames: list[str], dead_reason: Callable[[], str]
) -> None:
    started, go_on = threading.Event(), threading.Event()
    seen: list[bool] = []

    @bench.consumer.job()
    def slow() -> None:
        started.set()
        go_on.wait(AMPLE)
        seen.append(current_job().is_cancelled)
        if fails:
            raise OSError

    bench.deliver("slow")
    bench.start_all()
    await eventually_async(started.is_set)
    bench.lane.is_cancelled = lambda message, sent_at: True
    assert bench.lane.cancel("7") == [{"queue": "emails", "job": "emails.slow", "stopped": False}]
    go_on.set()
    await eventually_async(lambda: bench.lane.is_idle)

    assert seen == [True]
    assert bench.journal == frames
    if fails:
        assert dead_reason() == "cancelled"


async def test_cancelled_message_is_not_run(bench: Bench, dead_reason: Callable[[], str]) -> None:
    asked: list[float] = []

    def is_cancelled(message: Message, sent_at: Callable[[], float]) -> bool:
        asked.append(sent_at())
        return message.id == "7"

    bench.lane.is_cancelled = is_cancelled
    bench.deliver("stay")
    bench.deliver("quick", message_id="8", timestamp=1000)
    bench.start_all()
    await eventually_async(lambda: bench.lane.is_idle)

    assert bench.started == []
    assert sorted(bench.journal) == ["ack", "ack", "confirmed"]
    assert dead_reason() == "cancelled"
    assert asked == [0, 1000]  # the publisher of the first does not say when


# ---- given back


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def test_what_has_waited_too_long_goes_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(lane, "time", clock)
    old = bench.deliver("quick")
    clock.now += 50
    young = bench.deliver("quick")
    clock.now += 11

    await bench.lane.return_inbox(older_than=60)

    assert (old.is_settled, young.is_settled) == (True, False)
    await bench.lane.return_inbox()
    assert bench.journal == ["requeue"] * 2
    assert bench.lane.is_idle


async def test_returning_to_an_ended_session_harms_nothing(bench: Bench) -> None:
    deliveries = [bench.deliver("quick") for _ in range(3)]
    for delivery in deliveries:
        delivery.end_session()

    await bench.lane.return_inbox()

    assert bench.journal == []


# ---- drained


async def test_drain_lets_running_jobs_finish(bench: Bench) -> None:
    bench.deliver("stay")
    bench.start_all()
    await eventually_async(lambda: bool(bench.started))

    draining = asyncio.create_task(bench.lane.drain(AMPLE))
    bench.go_on.set()

    assert await draining == 0
    assert bench.journal == ["ack"]


async def test_drain_gives_back_what_does_not_finish_in_time(bench: Bench) -> None:
    bench.deliver("stay")
    bench.deliver("stay")
    bench.start_all()
    await eventually_async(lambda: len(bench.started) == 2)

    with capture_logs() as lines:
        assert await bench.lane.drain(0.01) == 2

    assert bench.journal == ["requeue"] * 2
    assert [line["event"] for line in lines] == ["job released"] * 2
    assert bench.slots.used == 0


async def test_drain_gives_back_what_has_only_just_started(bench: Bench) -> None:
    bench.deliver("stay")
    bench.start_all()

    assert await bench.lane.drain(0) == 1

    assert bench.journal == ["requeue"]


async def test_drain_waits_for_a_copy_that_is_being_confirmed(threads: Threads) -> None:
    bench = Bench(threads, publisher=SlowPublisher)
    publisher = bench.publisher
    assert isinstance(publisher, SlowPublisher)
    bench.deliver("fail")
    bench.start_all()
    await asyncio.wait_for(publisher.asked.wait(), AMPLE)

    draining = asyncio.create_task(bench.lane.drain(0))
    await asyncio.wait({draining}, timeout=0.05)
    assert not draining.done()
    publisher.confirm.set()

    assert await draining == 0
    assert bench.journal == ["confirmed", "ack"]


@pytest.mark.parametrize(
    ("decide", "settled", "word"),
    [("ack", ["ack"], "succeeded"), ("reject", ["confirmed", "ack"], "dead")],
)
async def test_drain_ends_a_job_that_has_decided_by_hand_and_its_decision_counts(
    bench: Bench, decide: str, settled: list[str], word: str
) -> None:
    @bench.consumer.job()
    async def decided() -> None:
        getattr(current_job(), decide)()
        await bench.go_on.wait()

    bench.deliver("decided")
    bench.start_all()
    await eventually_async(lambda: bench.journal == settled)

    assert await asyncio.wait_for(bench.lane.drain(0.01), AMPLE / 10) == 0

    assert bench.journal == settled
    finished = {"queue": "emails", "job_name": "emails.decided"}
    assert bench.value("brokerjobs_jobs_finished_total", **finished, outcome=word) == 1
    assert bench.value("brokerjobs_jobs_finished_total", **finished, outcome="released") is None


async def test_drain_does_not_wait_for_a_confirm_as_long_as_a_publish_may_take(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its process would end itself as stuck, and a parent kill it."""
    monkeypatch.setattr(lane, "SETTLE_GRACE", 0.05)
    bench = Bench(threads, publisher=SlowPublisher)
    publisher = bench.publisher
    assert isinstance(publisher, SlowPublisher)
    bench.deliver("fail")
    bench.start_all()
    await asyncio.wait_for(publisher.asked.wait(), AMPLE)

    assert await asyncio.wait_for(bench.lane.drain(0), AMPLE / 2) == 1

    assert bench.journal == []
    assert bench.slots.used == 0


def test_the_graces_of_a_drain_fit_into_what_is_allowed_beyond_it() -> None:
    ending = LAST_QUESTION_TIMEOUT + LAST_MOMENT + CLOSE_TIMEOUT
    assert lane.SETTLE_GRACE + lane.LAST_GRACE + ending < GRACE


async def test_run_that_the_end_of_its_worker_cancels_has_not_failed(bench: Bench) -> None:
    """Without a drain: the worker met what it cannot work with, and its loop ends all tasks."""
    before = asyncio.all_tasks()
    bench.deliver("stay")
    bench.start_all()
    await eventually_async(lambda: len(bench.started) == 1)

    bench.lane.leave()
    for task in asyncio.all_tasks() - before:
        task.cancel()
    await eventually_async(lambda: bench.lane.is_idle)

    assert bench.journal == ["requeue"]
    assert bench.value(
        "brokerjobs_jobs_finished_total", queue="emails", job_name="emails.stay", outcome="released"
    )


async def test_drain_of_an_idle_lane_is_nothing(bench: Bench) -> None:
    assert await bench.lane.drain(AMPLE) == 0


# ---- suspects


class Noting(Executor):
    suspects: ClassVar[list[bool]]

    async def execute(self, message: Message, *, suspect: bool = False, **options: Any) -> Outcome:
        self.suspects.append(suspect)
        return await super().execute(message, suspect=suspect, **options)


@pytest.fixture
def noting(threads: Threads) -> Bench:
    Noting.suspects = []
    return Bench(threads, executor=Noting)


async def test_redelivered_message_of_a_classic_queue_is_counted_by_a_copy_and_not_run(noting: Bench) -> None:
    noting.deliver("quick", redelivered=True)
    noting.start_all()
    await noting.finish()

    assert Noting.suspects == []
    assert noting.journal == ["confirmed", "ack"]
    (copy,) = noting.publisher.published
    assert (copy.exchange, copy.routing_key) == (
        "jobs.v1.due",
        topology.route_to_queue(Names(), "emails", 0)[1],
    )
    assert (copy.message.redeliveries, copy.message.attempt, copy.message.hop) == (1, 1, 0)


async def test_every_delivery_counts_as_received(noting: Bench) -> None:
    """Also what is counted, adopted or absorbed."""
    orphan, ended = noting.deliver("stay"), noting.deliver("quick", message_id="8")
    noting.start_all()
    await eventually_async(lambda: bool(noting.started) and ended.is_settled)
    orphan.end_session()

    noting.deliver("stay", redelivered=True)  # adopted
    absorbed = noting.deliver("quick", message_id="8", redelivered=True)
    await eventually_async(lambda: absorbed.is_settled and noting.slots.free)
    noting.deliver("quick", message_id="9", redelivered=True)  # counted
    noting.start_all()
    await noting.finish()

    received = "brokerjobs_jobs_received_total"
    assert noting.value(received, queue="emails", job_name="emails.stay") == 2
    assert noting.value(received, queue="emails", job_name="emails.quick") == 3


@pytest.mark.parametrize(
    ("headers", "suspect"),
    [
        ({}, False),
        ({"brokerjobs-redeliveries": 1}, False),
        ({"brokerjobs-redeliveries": 2}, True),
        ({"brokerjobs-crashes": 1}, True),
        ({"x-delivery-count": 1}, False),
        ({"x-delivery-count": 2}, True),
    ],
)
async def test_suspects_are_isolated(noting: Bench, headers: dict[str, int], suspect: bool) -> None:
    counted = "x-delivery-count" in headers
    noting.deliver("quick", headers=headers, redelivered=counted, counted=counted)
    noting.start_all()
    await noting.finish()

    assert Noting.suspects == [suspect]


async def test_counted_message_waits_for_those_that_came_back_with_it(threads: Threads) -> None:
    """It may be the one that kills; they would come back beside their copies."""
    Noting.suspects = []
    noting = Bench(threads, publisher=SlowPublisher, executor=Noting)
    publisher = noting.publisher
    assert isinstance(publisher, SlowPublisher)
    noting.deliver("quick", redelivered=True)
    noting.start_all()
    await asyncio.wait_for(publisher.asked.wait(), AMPLE)
    noting.deliver("quick", message_id="8", headers={"brokerjobs-redeliveries": 1})
    noting.start_all()
    await asyncio.wait({asyncio.create_task(noting.go_on.wait())}, timeout=0.05)
    assert Noting.suspects == []

    publisher.confirm.set()
    await noting.finish()

    assert Noting.suspects == [False]
    assert noting.journal == ["confirmed", "ack", "ack"]


async def test_counted_message_waits_until_their_answers_are_written(threads: Threads) -> None:
    """They leave at the end of a turn of the event loop, and it may come in the same turn."""
    noting = Bench(threads, publisher=SlowPublisher)
    publisher = noting.publisher
    assert isinstance(publisher, SlowPublisher)

    @noting.consumer.job()
    async def deadly() -> None:
        noting.journal.append("ran")

    original = noting.deliver("quick", redelivered=True)
    acknowledge = original.ack

    async def ack() -> None:
        await acknowledge()
        asyncio.get_running_loop().call_soon(noting.journal.append, "written")

    original.ack = ack  # type: ignore[method-assign]
    noting.start_all()
    await asyncio.wait_for(publisher.asked.wait(), AMPLE)
    publisher.confirm.set()
    noting.deliver("deadly", message_id="8", headers={"brokerjobs-redeliveries": 1})
    noting.start_all()
    await noting.finish()

    assert noting.journal == ["confirmed", "ack", "written", "ran", "ack"]


async def test_message_that_was_given_back_here_is_not_counted_for_that(noting: Bench) -> None:
    @noting.consumer.job()
    async def hesitant() -> None:
        current_job().nack()

    noting.go_on.set()
    noting.deliver("hesitant")
    noting.start_all()
    await noting.finish()
    noting.deliver("hesitant", redelivered=True)
    noting.start_all()
    await noting.finish()

    assert Noting.suspects == [False, False]
    assert noting.publisher.published == []


@pytest.mark.parametrize("ended", [True, False])
async def test_copy_that_counts_is_recognised_by_the_worker_that_ran_the_original(
    noting: Bench, ended: bool
) -> None:
    """Its session ended, another worker got the message and counted it, and the copy comes here."""
    delivery = noting.deliver("quick" if ended else "stay")
    delivery.end_session()
    noting.start_all()
    await eventually_async(lambda: noting.lane.is_idle if ended else bool(noting.started))

    noting.deliver("quick" if ended else "stay", headers={"brokerjobs-redeliveries": 1})
    noting.start_all()
    noting.go_on.set()
    await eventually_async(lambda: noting.lane.is_idle)

    assert Noting.suspects == [False]
    assert noting.journal == ["ack"]


@pytest.mark.parametrize(
    "second", [{"redelivered": True}, {"headers": {"brokerjobs-redeliveries": 1}}], ids=["original", "copy"]
)
async def test_original_and_the_copy_that_counts_it_run_once(noting: Bench, second: dict[str, Any]) -> None:
    """Who made the copy died, or lost its session, before it acknowledged the original: both are there."""
    first = noting.deliver("stay", headers={"brokerjobs-redeliveries": 1})
    noting.start_all()
    await eventually_async(lambda: noting.started == ["emails 0"])

    twin = noting.deliver("stay", **second)
    noting.start_all()
    assert not twin.is_settled
    noting.go_on.set()
    await eventually_async(lambda: noting.lane.has_waiting or noting.lane.is_idle)
    noting.start_all()
    await eventually_async(lambda: noting.lane.is_idle)

    assert noting.started == ["emails 0"]
    assert (first.is_settled, twin.is_settled) == (True, True)
    assert noting.journal == ["ack", "ack"]


@pytest.mark.parametrize(
    "time", [{}, {"timestamp": 1_700_000_000}, {"timestamp": 1_700_000_000_123}], ids=["none", "s", "ms"]
)
async def test_original_and_its_copy_are_the_same_to_another_worker(
    threads: Threads, monkeypatch: pytest.MonkeyPatch, time: dict[str, Any]
) -> None:
    """Whatever else the publisher has left out."""
    died, other = Bench(threads), Bench(threads)
    died.deliver("stay", redelivered=True, **time)
    died.start_all()
    await died.finish()
    (copy,) = died.publisher.published

    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    other.deliver("stay", **copy.message.properties())
    other.start_all()
    await eventually_async(lambda: other.started == ["emails 0"])
    original = other.deliver("stay", redelivered=True, **time)
    other.start_all()
    other.go_on.set()
    await eventually_async(lambda: other.lane.has_waiting or other.lane.is_idle)
    other.start_all()
    await eventually_async(lambda: other.lane.is_idle)

    assert other.started == ["emails 0"]
    assert original.is_settled
    assert other.journal == ["ack", "ack"]


async def test_second_copy_of_a_run_that_ended_undone_runs(noting: Bench) -> None:
    counted: dict[str, Any] = {"headers": {"brokerjobs-redeliveries": 1}}
    noting.deliver("stay", **counted)
    noting.start_all()
    await eventually_async(lambda: noting.started == ["emails 0"])
    noting.deliver("stay", **counted)
    noting.start_all()

    (first, run), *_ = noting.lane._tasks.items()
    assert run is not None
    run.cancellation.is_meant = True
    first.cancel()
    await eventually_async(lambda: noting.lane.has_waiting)
    noting.start_all()
    await noting.finish()

    assert noting.started == ["emails 0"] * 2
    assert noting.journal == ["requeue", "ack"]


async def test_second_copy_whose_session_ends_meanwhile_is_left_to_the_broker(noting: Bench) -> None:
    noting.deliver("stay")
    noting.start_all()
    await eventually_async(lambda: noting.started == ["emails 0"])
    twin = noting.deliver("stay", headers={"brokerjobs-redeliveries": 1})
    noting.start_all()
    twin.end_session()
    await noting.finish()

    assert noting.started == ["emails 0"]
    assert noting.journal == ["ack"]


async def test_message_that_cannot_be_counted_runs_isolated_and_holds_up_nothing(noting: Bench) -> None:
    noting.publisher.errors += [PublishUnknown("an alarm")]
    noting.deliver("quick", redelivered=True)
    noting.start_all()
    await noting.finish()

    assert Noting.suspects == [True]
    assert noting.journal == ["not confirmed", "ack"]


async def test_returned_message_is_not_counted_for_that(noting: Bench) -> None:
    noting.deliver("quick")
    await noting.lane.return_inbox()

    noting.deliver("quick", redelivered=True)
    noting.start_all()
    await noting.finish()

    assert Noting.suspects == [False]
    assert noting.publisher.published == []


async def test_job_cancelled_while_it_waits_for_the_count_is_settled(threads: Threads) -> None:
    Noting.suspects = []
    noting = Bench(threads, publisher=SlowPublisher, executor=Noting)
    publisher = noting.publisher
    assert isinstance(publisher, SlowPublisher)
    noting.deliver("quick", redelivered=True)
    noting.start_all()
    await asyncio.wait_for(publisher.asked.wait(), AMPLE)
    waiting = noting.deliver("stay", message_id="8", headers={"brokerjobs-redeliveries": 1})
    noting.start_all()
    await eventually_async(lambda: len(noting.lane.jobs) == 2)
    noting.lane.is_cancelled = lambda message, sent_at: message.id == "8"
    assert len(noting.lane.cancel("8")) == 1
    publisher.confirm.set()
    await noting.finish()

    assert waiting.is_settled
    assert noting.started == []


# ---- a defect of ours


class Defective(Executor):
    async def execute(
        self,
        message: Message,
        *,
        redelivered: bool = False,
        suspect: bool = False,
        decide: Callable[[Outcome], None] = lambda _: None,
        cancellation: Cancellation | None = None,
    ) -> Outcome:
        raise ZeroDivisionError("a defect")


async def test_delivery_that_met_a_defect_goes_back_after_a_rest(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "DEFECT_REST", 0.1)
    bench = Bench(threads, executor=Defective)
    bench.deliver("quick")
    began = time.monotonic()

    with capture_logs() as lines:
        bench.start_all()
        await bench.finish()

    assert time.monotonic() - began >= 0.1, "no hot loop"
    assert bench.journal == ["requeue"]
    assert (bench.slots.used, bench.freed) == (0, 1)
    assert bench.value("brokerjobs_jobs_in_progress", queue="emails") == 0
    assert [line["event"] for line in lines] == ["run failed"]


async def test_drain_does_not_wait_for_that_rest(threads: Threads) -> None:
    bench = Bench(threads, executor=Defective)
    bench.deliver("quick")
    bench.start_all()
    await eventually_async(lambda: bench.value("brokerjobs_jobs_in_progress", queue="emails") == 0)

    assert await asyncio.wait_for(bench.lane.drain(0.01), AMPLE / 10) == 1
    assert bench.journal == ["requeue"]


async def test_delivery_that_met_a_defect_in_an_ended_session_is_left_to_the_broker(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "DEFECT_REST", 0.0)
    bench = Bench(threads, executor=Defective)
    bench.deliver("quick").end_session()
    bench.start_all()
    await bench.finish()

    assert bench.journal == []


async def test_run_that_was_cancelled_by_nobody_outside_goes_back(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by what a job has left behind, while its run is being settled."""
    monkeypatch.setattr(lane, "DEFECT_REST", 0.0)
    bench = Bench(threads, publisher=SlowPublisher)
    assert isinstance(bench.publisher, SlowPublisher)
    bench.deliver("fail")
    with capture_logs() as lines:
        bench.start_all()
        await bench.publisher.asked.wait()
        [task] = bench.lane._tasks
        task.cancel()
        await bench.finish()

    assert bench.journal == ["requeue"]
    assert [line["event"] for line in lines] == ["job retried", "run failed"]


async def test_run_that_a_hook_has_cancelled_goes_back_after_a_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would do so again at once."""
    monkeypatch.setattr(lane, "DEFECT_REST", 0.0)

    @bench.consumer.on_success
    async def cancel(*_: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    bench.deliver("quick")
    with capture_logs() as lines:
        bench.start_all()
        await bench.finish()

    assert bench.journal == ["requeue"]
    assert [line["event"] for line in lines] == ["run failed"]


# -- what operators are told


async def test_lane_tells_what_it_did_since_the_start(bench: Bench) -> None:
    assert bench.lane.work == QueueWork(slots=2, unstarted=0, received=0, finished={}, due=0.0, began=0.0)
    assert list(bench.lane.failures) == []

    before = time.time()
    for number, job in enumerate(["quick", "fail", "quick", "stay", "stay"]):
        bench.deliver(job, message_id=str(number), timestamp=1_700_000_000)
        bench.start_all()
        if job != "stay":
            await bench.finish()
            bench.go_on.clear()
    bench.deliver("stay", message_id="6", timestamp=1_700_000_000)
    bench.start_all()
    await eventually_async(lambda: len(bench.started) == 2)

    work = bench.lane.work
    assert (work.slots, work.unstarted, work.received) == (2, 1, 5)
    assert work.finished == {"succeeded": 2, "retried": 1}
    assert work.due == 1_700_000_000.0
    assert before <= work.began <= time.time()
    [failure] = bench.lane.failures
    assert (failure.queue, failure.job, failure.id, failure.attempt) == ("emails", "emails.fail", "1", 1)
    assert (failure.outcome, failure.error) == ("retried", "ConnectionError: gateway is away")
    bench.go_on.set()
    await eventually_async(lambda: bench.lane.running == 0)


async def test_lane_remembers_only_the_last_failures_and_the_beginning_of_each(bench: Bench) -> None:
    for number in range(FAILURES + 5):
        bench.deliver("fail", {"word": "x" * 1000}, message_id=str(number))  # the error quotes it
        bench.start_all()
        await eventually_async(lambda: bench.lane.is_idle)

    failures = list(bench.lane.failures)
    assert [failure.id for failure in failures] == [str(number) for number in range(5, FAILURES + 5)]
    assert {failure.outcome for failure in failures} == {"dead"}
    assert all(len(failure.error.encode()) <= ERROR_LIMIT for failure in failures)

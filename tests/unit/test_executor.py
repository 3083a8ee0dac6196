"""execute(message) gives an Outcome, whatever the job does; and only what was asked for from outside passes through."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
import structlog
import tenacity
from structlog.testing import capture_logs

from brokerjobs import Consumer, Context, Message, Next, Reject, Retry, RetryLater, current_job
from brokerjobs.context import Cancellation
from brokerjobs.delay import LONGEST
from brokerjobs.executor import Executor, Threads, coroutines, running
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, Succeeded
from tests.waiting import eventually_async

SHORT = 0.05  # seconds of a timeout that shall be reached
AMPLE = 30.0  # seconds within which everything here ends

Run = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def consumer() -> Consumer:
    return Consumer("emails", retry=Retry(3, delays=[10, 30]), timeout=AMPLE)


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads(4)
    yield threads
    threads.close()


@pytest.fixture
def executor(consumer: Consumer, threads: Threads) -> Executor:
    return Executor(consumer, threads, max_message_size=1000)


@pytest.fixture
def run(executor: Executor) -> Run:
    """Run a job of this name with these arguments."""

    async def run(name: str, arguments: Any = None, **properties: Any) -> Outcome:
        body = b"" if arguments is None else json.dumps(arguments).encode()
        fields = {"job": f"emails.{name}", "routing_key": f"emails.{name}", "body": body, **properties}
        async with asyncio.timeout(AMPLE):
            return await executor.execute(Message(**fields))

    return run


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Lets jobs go that a test holds in their threads."""
    event = threading.Event()
    yield event
    event.set()


def dead(outcome: Outcome) -> DeadLettered:
    assert isinstance(outcome, DeadLettered), outcome
    return outcome


def retried(outcome: Outcome) -> Retried:
    assert isinstance(outcome, Retried), outcome
    return outcome


# ---- success


async def test_plain_and_async_jobs_succeed_with_what_they_return(consumer: Consumer, run: Run) -> None:
    @consumer.job()
    def plain(a: int, b: int = 2) -> int:
        return a + b

    @consumer.job()
    async def awaited(a: int, b: int = 2) -> int:
        return a * b

    assert await run("plain", {"a": 1}) == Succeeded(3)
    assert await run("awaited", [3, "4"]) == Succeeded(12)


async def test_plain_job_runs_in_a_thread_and_async_job_on_the_loop(consumer: Consumer, run: Run) -> None:
    places: dict[str, threading.Thread] = {}

    @consumer.job()
    def plain() -> None:
        places["plain"] = threading.current_thread()

    @consumer.job()
    async def awaited() -> None:
        places["awaited"] = threading.current_thread()

    await run("plain")
    await run("awaited")

    assert places["plain"] is not threading.current_thread()
    assert places["plain"].daemon  # a stuck job must not hold up the exit
    assert places["awaited"] is threading.current_thread()


async def test_job_knows_itself(consumer: Consumer, executor: Executor) -> None:
    @consumer.job(timeout=60)
    def plain() -> Context:
        return current_job()

    @consumer.job(timeout=60)
    async def awaited() -> Context:
        return current_job()

    for name in "plain", "awaited":
        message = Message(
            job=f"emails.{name}", routing_key="x", id="7", attempt=2, headers={"tenant": "shop"}
        )
        outcome = await executor.execute(message, redelivered=True)

        assert isinstance(outcome, Succeeded)
        context = outcome.result
        assert (context.id, context.attempt, context.queue, context.redelivered) == ("7", 2, "emails", True)
        assert context.headers == {"tenant": "shop"}
        assert context.max_attempts == 3
        assert 0 < context.remaining <= 60

    with pytest.raises(LookupError):
        current_job()


async def test_raw_job_gets_the_bytes_untouched(consumer: Consumer, run: Run) -> None:
    @consumer.job()
    def raw(body: bytes) -> bytes:
        return body

    body = b"\xff\x00 not JSON"

    assert await run("raw", body=body, content_type="image/png", content_encoding="gzip") == Succeeded(body)


async def test_many_jobs_run_at_once_each_with_its_own_context(consumer: Consumer, run: Run) -> None:
    gate = asyncio.Barrier(5)

    @consumer.job()
    async def meet() -> str:
        await gate.wait()
        return current_job().id

    outcomes = await asyncio.gather(*(run("meet", id=str(n)) for n in range(5)))

    assert outcomes == [Succeeded(str(n)) for n in range(5)]


# ---- failure


@pytest.fixture
def failing(consumer: Consumer) -> Consumer:
    @consumer.job()
    def plain() -> None:
        raise ConnectionError("gateway is away")

    @consumer.job()
    async def awaited() -> None:
        raise ConnectionError("gateway is away")

    return consumer


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("name", ["plain", "awaited"])
async def test_failed_job_is_retried_then_dead(run: Run, name: str) -> None:
    before = int(time.time() * 1000)

    first, second, last = [await run(name, attempt=attempt) for attempt in (1, 2, 3)]

    assert (retried(first).delay, retried(second).delay) == (10, 30)
    assert (retried(first).reason, retried(first).spends) == ("failed", True)
    assert before <= retried(first).began <= time.time() * 1000
    for outcome in (retried(first), retried(second), dead(last)):
        assert outcome.failure is not None
        assert str(outcome.failure) == "ConnectionError: gateway is away"
        assert "in " + name in outcome.failure.traceback
    assert dead(last).reason == "exhausted"


async def test_error_that_no_attempt_mends_is_dead_at_once(consumer: Consumer, run: Run) -> None:
    @consumer.job(retry=Retry(never_on=ValueError))
    def picky() -> None:
        raise ValueError("never")

    assert dead(await run("picky")).reason == "failed"


async def test_time_since_the_first_attempt_counts(consumer: Consumer, run: Run) -> None:
    @consumer.job(retry=Retry(stop=tenacity.stop_after_delay(3600)))
    def slow() -> None:
        raise OSError

    now = int(time.time() * 1000)

    assert retried(await run("slow", first_at=now - 3_000_000, attempt=9))
    assert dead(await run("slow", first_at=now - 4_000_000, attempt=2)).reason == "exhausted"
    assert retried(await run("slow", first_at=now + 9_000_000))  # a clock that was set back


@pytest.mark.parametrize("error", [TimeoutError("its own"), StopIteration(7), KeyError()])
async def test_errors_that_the_loop_uses_itself_are_failures_like_any(
    consumer: Consumer, run: Run, error: Exception
) -> None:
    @consumer.job()
    def plain() -> None:
        raise error

    @consumer.job()
    async def awaited() -> None:
        raise error

    for name in "plain", "awaited":
        failure = retried(await run(name)).failure
        assert failure is not None
        assert "longer than its timeout" not in failure.text


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), SystemExit()])
async def test_exit_ends_the_attempt_and_not_the_worker(
    consumer: Consumer, run: Run, error: BaseException
) -> None:
    @consumer.job()
    def plain() -> None:
        raise error

    @consumer.job()
    async def awaited() -> None:
        raise error

    for name in "plain", "awaited":
        outcome = retried(await run(name))
        assert outcome.failure is not None
        assert outcome.failure.kind == "RuntimeError"
        assert type(error).__name__ in outcome.failure.text


async def test_exit_in_middleware_ends_the_attempt_and_not_the_worker(threads: Threads) -> None:
    async def leave(context: Context, call_next: Next) -> Any:
        sys.exit(3)

    consumer = Consumer("emails", middleware=[leave])
    consumer.job(name="any")(lambda: None)

    outcome = await Executor(consumer, threads).execute(Message(job="emails.any", routing_key="x"))

    assert retried(outcome).failure is not None


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


async def test_error_that_cannot_say_what_it_is_is_a_failure_too(consumer: Consumer, run: Run) -> None:
    @consumer.job()
    def mute() -> None:
        raise Mute

    failure = retried(await run("mute")).failure

    assert failure is not None
    assert failure.kind.endswith("Mute")
    assert "could not be made" in failure.text


async def test_coroutine_from_a_plain_function_is_a_failure_not_a_success(
    consumer: Consumer, run: Run
) -> None:
    """A decorator that does not know async makes one: nothing of the job would run."""

    async def inner() -> None:
        raise AssertionError("must not run")

    @consumer.job()
    def wrapped() -> Any:
        return inner()

    failure = retried(await run("wrapped")).failure

    assert failure is not None
    assert "returned a coroutine" in failure.text


# ---- instructions


async def test_rejected_job_is_dead_with_its_reason(consumer: Consumer, run: Run) -> None:
    @consumer.job()
    async def picky() -> None:
        raise Reject("no such order")

    outcome = dead(await run("picky"))

    assert (outcome.reason, outcome.failure.text) == ("rejected", "no such order")


@pytest.mark.parametrize(("after", "delay"), [(5, 5), ("10m", 600), (0, 0)])
async def test_job_may_ask_to_run_again_later_without_spending_an_attempt(
    consumer: Consumer, run: Run, after: Any, delay: float
) -> None:
    @consumer.job()
    def patient() -> None:
        raise RetryLater(after)

    outcome = retried(await run("patient", attempt=3))

    assert (outcome.delay, outcome.reason, outcome.spends) == (delay, "retry_later", False)


@pytest.mark.parametrize(
    ("after", "complaint"),
    [
        ("soon", "RetryLater must be seconds"),
        (-1, "RetryLater must be"),
        (LONGEST * 2, "beyond the longest delay"),
    ],
)
async def test_asking_for_an_impossible_delay_is_dead_not_endless(
    consumer: Consumer, run: Run, after: Any, complaint: str
) -> None:
    @consumer.job()
    def confused() -> None:
        raise RetryLater(after)

    assert complaint in dead(await run("confused")).failure.text


# ---- timeouts


async def test_async_job_is_cancelled_at_its_timeout(consumer: Consumer, run: Run) -> None:
    ended = asyncio.Event()

    @consumer.job(timeout=SHORT)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    failure = retried(await run("slow")).failure

    assert ended.is_set()
    assert failure is not None
    assert failure.kind == "JobTimeout"
    assert failure.text == "emails.slow took longer than its timeout of 50ms"


async def test_async_job_that_swallows_its_cancellation_fails_nevertheless(
    consumer: Consumer, run: Run
) -> None:
    @consumer.job(timeout=SHORT)
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "as if nothing had happened"
        return ""

    assert retried(await run("stubborn")).reason == "failed"


async def test_async_job_that_ignores_its_cancellation_is_left_behind(
    consumer: Consumer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coroutines, "CANCEL_GRACE", SHORT)
    let_go = asyncio.Event()

    @consumer.job(timeout=SHORT)
    async def deaf() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    with capture_logs() as lines:
        outcome = await run("deaf")

    assert retried(outcome).reason == "failed"
    assert [(line["event"], line["job"]) for line in lines] == [("job ignores its timeout", "emails.deaf")]
    let_go.set()


async def test_error_of_a_job_being_cancelled_is_not_reported_as_unhandled(
    consumer: Consumer, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    @consumer.job(timeout=SHORT)
    async def sore() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("while cleaning up") from None

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        await run("sore")
        import gc

        gc.collect()

    assert caplog.records == []


async def test_plain_job_that_outruns_its_timeout_fails_and_its_thread_is_abandoned(
    consumer: Consumer, threads: Threads, released: threading.Event
) -> None:
    abandoned: list[int] = []
    executor = Executor(consumer, threads, on_abandoned=lambda: abandoned.append(1))

    @consumer.job(timeout=SHORT)
    def slow() -> None:
        released.wait(AMPLE)

    with capture_logs() as lines:
        outcome = await executor.execute(Message(job="emails.slow", routing_key="x"))

    failure = retried(outcome).failure
    assert failure is not None
    assert failure.kind == "JobTimeout"
    assert "its thread cannot be ended and goes on" in failure.text
    assert abandoned == [1]
    assert [line["event"] for line in lines] == ["thread abandoned"]


async def test_nothing_holds_what_a_plain_job_returned_until_its_timeout(
    consumer: Consumer, run: Run
) -> None:
    given: list[weakref.ref[set[int]]] = []

    @consumer.job(timeout=600)
    def give() -> set[int]:
        result = {7}
        given.append(weakref.ref(result))
        return result

    assert await run("give") == Succeeded({7})

    await eventually_async(lambda: given[0]() is None, timeout=10.0)


async def test_abandoned_threads_take_no_place_from_others(
    consumer: Consumer, run: Run, released: threading.Event
) -> None:
    @consumer.job(timeout=SHORT)
    def slow() -> None:
        released.wait(AMPLE)

    @consumer.job()
    def quick() -> int:
        return 7

    await asyncio.gather(*(run("slow") for _ in range(8)))  # twice as many as there may be threads

    assert await asyncio.gather(*(run("quick") for _ in range(4))) == [Succeeded(7)] * 4


# ---- cancelled


@pytest.mark.parametrize("kind", ["plain", "awaited"])
async def test_only_a_cancellation_from_outside_passes_through(
    consumer: Consumer, executor: Executor, released: threading.Event, kind: str
) -> None:
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    @consumer.job()
    def plain() -> None:
        loop.call_soon_threadsafe(started.set)
        released.wait(AMPLE)

    @consumer.job()
    async def awaited() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(executor.execute(Message(job=f"emails.{kind}", routing_key="x")))
    async with asyncio.timeout(AMPLE):
        await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancellation_from_outside_reaches_an_async_job_before_the_worker_goes_on(
    consumer: Consumer, executor: Executor
) -> None:
    """So it can clean up while the loop still runs."""
    started, ended = asyncio.Event(), asyncio.Event()

    @consumer.job()
    async def careful() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(executor.execute(Message(job="emails.careful", routing_key="x")))
    async with asyncio.timeout(AMPLE):
        await started.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=AMPLE)

    assert task.cancelled()
    assert ended.is_set()


async def test_job_that_cancels_itself_has_failed(consumer: Consumer, run: Run) -> None:
    """Else the worker would give it back, and it would run for ever."""

    @consumer.job()
    async def awaited() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    @consumer.job()
    async def raising() -> None:
        raise asyncio.CancelledError

    @consumer.job()
    def plain() -> None:
        asyncio.run(raising())  # as a library may do inside

    for name in "awaited", "raising", "plain":
        failure = retried(await run(name)).failure
        assert failure is not None
        assert failure.text == "it was cancelled from inside"


async def test_middleware_that_cancels_has_failed(threads: Threads) -> None:
    async def cancel(context: Context, call_next: Next) -> Any:
        raise asyncio.CancelledError

    consumer = Consumer("emails", middleware=[cancel])
    consumer.job(name="any")(lambda: None)

    assert retried(await Executor(consumer, threads).execute(Message(job="emails.any", routing_key="x")))


@pytest.mark.parametrize("waits", [True, False])
async def test_middleware_may_time_the_job_out(threads: Threads, waits: bool) -> None:
    async def soon(context: Context, call_next: Next) -> Any:
        async with asyncio.timeout(0.02):
            return await call_next()

    over = threading.Event()
    consumer = Consumer("emails", middleware=[soon])
    if waits:
        consumer.job(name="any")(asyncio.Event().wait)
    else:
        consumer.job(name="any")(lambda: over.wait(30) and None)
    message = Message(job="emails.any", routing_key="x")

    outcome = retried(
        await Executor(consumer, threads).execute(message, cancellation=Cancellation(is_meant=False))
    )

    over.set()
    assert outcome.failure is not None
    assert outcome.failure.kind == "TimeoutError"


# ---- by hand


@pytest.mark.parametrize(
    ("decide", "expected"),
    [
        (Context.ack, Succeeded()),
        (Context.nack, Released("nack by the job")),
        (functools.partial(Context.reject, reason="no such order"), "rejected"),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "awaited"])
@pytest.mark.parametrize("fails_then", [False, True])
async def test_decision_by_hand_is_told_at_once_and_holds(
    consumer: Consumer,
    executor: Executor,
    decide: Callable[[Context], None],
    expected: Any,
    kind: str,
    fails_then: bool,
) -> None:
    told: list[Outcome] = []
    was_told = asyncio.Event()
    go_on = threading.Event()

    def note(outcome: Outcome) -> None:
        told.append(outcome)
        was_told.set()

    def decide_and_maybe_fail() -> None:
        decide(current_job())

    @consumer.job()
    def plain() -> None:
        decide_and_maybe_fail()
        go_on.wait(AMPLE)
        if fails_then:
            raise ValueError("afterwards")

    @consumer.job()
    async def awaited() -> None:
        decide_and_maybe_fail()
        await asyncio.to_thread(go_on.wait, AMPLE)
        if fails_then:
            raise ValueError("afterwards")

    running = asyncio.create_task(
        executor.execute(Message(job=f"emails.{kind}", routing_key="x"), decide=note)
    )
    async with asyncio.timeout(AMPLE):
        await was_told.wait()
    still_running = not running.done()
    go_on.set()
    outcome = await running

    assert still_running
    assert len(told) == 1
    if expected == "rejected":
        assert dead(outcome).failure.text == dead(told[0]).failure.text == "no such order"
    else:
        assert outcome == told[0] == expected


async def test_error_after_a_decision_is_still_logged(consumer: Consumer, run: Run) -> None:
    @consumer.job()
    async def early() -> None:
        current_job().ack()
        raise ValueError("afterwards")

    with capture_logs() as lines:
        await run("early", id="7")

    [line] = lines
    assert (line["event"], line["id"], line["error"]) == (
        "job failed after its decision",
        "7",
        "ValueError: afterwards",
    )


# ---- hooks


class Hooks:
    """Hooks on a consumer and on its job, that write down when they are called."""

    def __init__(self, consumer: Consumer, job: Any) -> None:
        self.calls: list[str] = []
        for who, target in (("consumer", consumer), ("job", job)):
            for event in ("success", "failure", "exhausted"):
                getattr(target, f"on_{event}")(self._noting(who, event))

    def _noting(self, who: str, event: str) -> Callable[[Context, Any], Any]:
        def plain(context: Context, detail: Any) -> None:
            self.calls.append(f"{who} {event}: {context.job} {detail!r}")

        async def awaited(context: Context, detail: Any) -> None:
            plain(context, detail)

        return plain if who == "job" else awaited


async def test_hooks_hear_of_success(consumer: Consumer, run: Run) -> None:
    hooks = Hooks(consumer, consumer.job(name="add")(lambda: 7))

    await run("add")

    assert hooks.calls == ["job success: emails.add 7", "consumer success: emails.add 7"]


async def test_hooks_hear_of_each_failure_and_of_the_end(consumer: Consumer, run: Run) -> None:
    def no() -> None:
        raise ValueError("no")

    hooks = Hooks(consumer, consumer.job(name="no")(no))

    await run("no", attempt=1)
    after_first = list(hooks.calls)
    hooks.calls.clear()
    await run("no", attempt=3)

    assert after_first == [
        "job failure: emails.no ValueError('no')",
        "consumer failure: emails.no ValueError('no')",
    ]
    assert hooks.calls == [
        *after_first,
        "job exhausted: emails.no ValueError('no')",
        "consumer exhausted: emails.no ValueError('no')",
    ]


async def test_hooks_hear_of_a_rejection_but_not_of_a_wait(consumer: Consumer, run: Run) -> None:
    def reject() -> None:
        raise Reject("no")

    def later() -> None:
        raise RetryLater(5)

    rejecting = Hooks(consumer, consumer.job(name="reject")(reject))
    await run("reject")
    assert [call.partition(":")[0] for call in rejecting.calls] == [
        "job failure",
        "consumer failure",
        "job exhausted",
        "consumer exhausted",
    ]

    rejecting.calls.clear()
    waiting = Hooks(Consumer("other"), consumer.job(name="later")(later))
    await run("later")
    assert waiting.calls == rejecting.calls == []


def failing_hook(*_: Any) -> None:
    raise RuntimeError("hook is broken")


async def failing_async_hook(*_: Any) -> None:
    raise RuntimeError("hook is broken")


def exiting_hook(*_: Any) -> None:
    sys.exit(1)


async def exiting_async_hook(*_: Any) -> None:
    sys.exit(1)


async def cancelling_hook(*_: Any) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "hook", [failing_hook, failing_async_hook, exiting_hook, exiting_async_hook, cancelling_hook]
)
async def test_broken_hook_is_logged_and_changes_nothing(
    consumer: Consumer, run: Run, hook: Callable[..., Any]
) -> None:
    def no() -> None:
        raise ValueError("no")

    heard: list[str] = []
    for target in (consumer.job(name="yes")(lambda: 7), consumer.job(name="no")(no)):
        target.on_success(hook)
        target.on_failure(hook)
    consumer.on_success(lambda *_: heard.append("success"))
    consumer.on_failure(lambda *_: heard.append("failure"))

    with capture_logs() as lines:
        good, bad = await run("yes"), await run("no")

    assert good == Succeeded(7)
    assert retried(bad).reason == "failed"
    assert heard == ["success", "failure"]
    assert [line["event"] for line in lines] == ["hook failed"] * 2
    assert all(hook.__name__ in line["hook"] for line in lines)


async def test_hook_that_hangs_ends_with_its_deadline(
    consumer: Consumer, run: Run, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "HOOK_TIMEOUT", SHORT)
    job = consumer.job(name="yes")(lambda: 7)

    @job.on_success
    async def hangs(*_: Any) -> None:
        await asyncio.Event().wait()

    @job.on_success
    def hangs_in_its_thread(*_: Any) -> None:
        released.wait(AMPLE)

    with capture_logs() as lines:
        assert await run("yes") == Succeeded(7)

    assert [line["event"] for line in lines].count("hook failed") == 2


async def test_plain_hook_that_returns_a_coroutine_has_failed(consumer: Consumer, run: Run) -> None:
    """Nothing of it ran, and nobody would know."""

    async def inner() -> None:
        raise AssertionError("must not run")

    job = consumer.job(name="yes")(lambda: 7)
    job.on_success(lambda *_: inner())

    with capture_logs() as lines:
        assert await run("yes") == Succeeded(7)

    [line] = [line for line in lines if line["event"] == "hook failed"]
    assert "returned a coroutine" in line["error"]


# ---- middleware


async def test_middleware_stands_around_the_run_outermost_first(threads: Threads) -> None:
    journal: list[str] = []

    def noting(name: str) -> Any:
        async def middleware(context: Context, call_next: Next) -> Any:
            journal.append(f"{name} before {context.job}")
            assert current_job() is context
            result = await call_next()
            journal.append(f"{name} after")
            return result

        return middleware

    consumer = Consumer("emails", middleware=[noting("a"), noting("b")])
    consumer.job(name="run")(lambda: journal.append("run"))

    await Executor(consumer, threads).execute(Message(job="emails.run", routing_key="x"))

    assert journal == ["a before emails.run", "b before emails.run", "run", "b after", "a after"]


async def test_error_of_middleware_counts_as_the_jobs_own(threads: Threads) -> None:
    async def broken(context: Context, call_next: Next) -> Any:
        await call_next()
        raise ConnectionError("no trace collector")

    consumer = Consumer("emails", middleware=[broken])
    consumer.job(name="run")(lambda: 7)

    outcome = await Executor(consumer, threads).execute(Message(job="emails.run", routing_key="x"))

    failure = retried(outcome).failure
    assert failure is not None
    assert failure.text == "no trace collector"


# ---- what never starts


@pytest.fixture
def never(consumer: Consumer) -> Consumer:
    @consumer.job()
    def never(a: int = 0) -> None:
        raise AssertionError("must not run")

    return consumer


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize(
    ("fields", "reason", "complaint"),
    [
        ({"body": b"{"}, "json", "the body is not JSON"),
        ({"body": b"7"}, "json", "is a JSON number"),
        ({"body": b'{"a": "x"}'}, "arguments", "a: Input should be a valid integer"),
        ({"body": b'{"b": 1}'}, "arguments", "b: Unexpected keyword argument"),
        ({"body": b"[1, 2]"}, "arguments", "1: Unexpected positional argument"),
        ({"body": b"{}", "content_type": "image/png"}, "content_type", "image/png"),
        ({"body": b"{}", "content_encoding": "gzip"}, "encoding", "gzip"),
        ({"body": b" " * 1001}, "too_large", "1,001 bytes, above the limit of 1,000"),
        ({"body": b"[" * 900}, "json", "recursion limit"),
    ],
)
async def test_message_that_no_job_can_take_is_dead_with_what_is_wrong(
    run: Run, fields: Mapping[str, Any], reason: str, complaint: str
) -> None:
    outcome = dead(await run("never", **fields))

    assert outcome.reason == reason
    assert complaint in outcome.failure.text


async def test_message_of_just_the_limit_is_taken(consumer: Consumer, run: Run) -> None:
    consumer.job(name="now")(lambda: 7)

    assert await run("now", body=b" " * 1000) == Succeeded(7)


async def test_arguments_that_do_not_fit_are_not_repeated_in_the_failure(
    consumer: Consumer, run: Run
) -> None:
    @consumer.job()
    def login(pin: int) -> None: ...

    outcome = dead(await run("login", {"pin": "hunter2"}))

    assert "hunter2" not in str(outcome)


async def test_unknown_job_waits_three_times_then_is_dead(run: Run, consumer: Consumer) -> None:
    """A rolling deploy brings the worker that knows it."""
    consumer.job(name="known")(lambda: None)

    outcomes = [await run("unheard-of", unknown=count) for count in range(4)]

    for waiting in map(retried, outcomes[:3]):
        assert (waiting.delay, waiting.reason, waiting.spends) == (30, "unknown_job", False)
    last = dead(outcomes[3])
    assert last.reason == "unknown_job"
    assert last.failure.text == (
        "no worker of queue 'emails' knows a job 'emails.unheard-of' (routing key 'emails.unheard-of'); "
        "it knows: emails.known"
    )


async def test_patience_with_unknown_jobs_is_a_setting(consumer: Consumer, threads: Threads) -> None:
    executor = Executor(consumer, threads, unknown_job_delay=0.25, unknown_job_tries=1)
    message = Message(job="emails.unheard-of", routing_key="x")

    assert retried(await executor.execute(message)).delay == 0.25
    assert dead(await executor.execute(message.copy(unknown=1)))


@pytest.mark.usefixtures("never")
async def test_message_past_its_time_is_dead_unrun(run: Run) -> None:
    outcome = dead(await run("never", not_after=int(time.time() * 1000) - 90_000))

    assert outcome.reason == "expired"
    assert "should have started 1m30s earlier" in outcome.failure.text


async def test_message_within_its_time_runs(consumer: Consumer, run: Run) -> None:
    consumer.job(name="now")(lambda: 7)
    now = int(time.time() * 1000)

    assert await run("now", not_after=now + 60_000) == Succeeded(7)
    assert await run("now", not_before=now - 60_000) == Succeeded(7)


@pytest.mark.usefixtures("never")
async def test_wish_to_run_later_is_passed_on_to_the_delay_levels(run: Run) -> None:
    outcome = retried(await run("never", not_before=int(time.time() * 1000) + 60_000))

    assert (outcome.reason, outcome.spends, outcome.failure) == ("not_before", False, None)
    assert 55 < outcome.delay <= 60


async def test_message_that_has_waited_is_never_delayed_again(consumer: Consumer, run: Run) -> None:
    """Clocks differ: what came through the delay levels runs, even if this clock says it is early."""
    consumer.job(name="now")(lambda: 7)
    soon = int(time.time() * 1000) + 60_000

    assert await run("now", not_before=soon, due=soon) == Succeeded(7)


@pytest.mark.usefixtures("never")
async def test_wish_beyond_the_delay_levels_is_dead_not_endless(run: Run) -> None:
    outcome = dead(await run("never", not_before=int((time.time() + 2 * LONGEST) * 1000)))

    assert "beyond the longest delay of 388d" in outcome.failure.text


# ---- a retry policy that breaks


def broken(*_: Any) -> Any:
    raise ZeroDivisionError("in the strategy")


@pytest.mark.parametrize("options", [{"wait": broken}, {"stop": broken}, {"retry": broken}])
async def test_broken_retry_strategy_falls_back_to_the_default(
    consumer: Consumer, run: Run, options: dict[str, Any]
) -> None:
    @consumer.job(retry=Retry(**options))
    def no() -> None:
        raise ValueError("no")

    with capture_logs() as lines:
        first, last = await run("no"), await run("no", attempt=12)

    assert 0 <= retried(first).delay <= 1
    assert dead(last).reason == "exhausted"
    assert [line["event"] for line in lines] == ["retry policy failed"] * 2


async def test_broken_retry_strategy_keeps_the_number_of_attempts(consumer: Consumer, run: Run) -> None:
    @consumer.job(retry=Retry(2, wait=broken))
    def no() -> None:
        raise ValueError("no")

    with capture_logs():
        assert retried(await run("no", attempt=1))
        assert dead(await run("no", attempt=2)).reason == "exhausted"


# ---- what is said


async def test_no_line_of_the_log_holds_an_argument(consumer: Consumer, run: Run) -> None:
    @consumer.job(timeout=SHORT)
    async def login(pin: str) -> None:
        await asyncio.Event().wait()

    login.on_failure(failing_hook)

    with capture_logs() as lines:
        await run("login", {"pin": "hunter2"})
        await run("login", {"pin": ["hunter2"]})

    assert lines
    assert "hunter2" not in str(lines)
    structlog.reset_defaults()

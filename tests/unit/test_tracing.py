"""Spans of sends and attempts, what links them, and that there is nothing of it where nobody traces."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from brokerjobs import Client, Message, SendManyError, current_job, lane, logs, send_many, tracing
from brokerjobs.errors import BrokerJobsError, PublishRefused
from brokerjobs.executor import Threads
from brokerjobs.failure import Failure
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, Succeeded
from brokerjobs.settings import Settings
from brokerjobs.spans import Attempt
from brokerjobs.tracing import Tracing
from brokerjobs.transport import Publication, use_sender
from tests.unit.test_lane import Bench

CREATION = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ELSEWHERE = 0x0AF7651916CD43DD8448EB211C80319C
Made = Callable[[], tuple[ReadableSpan, ...]]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """That of an application, for this test alone: a process has one for all its life."""
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return provider


@pytest.fixture
def made(provider: TracerProvider) -> Made:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter.get_finished_spans


class Wire:
    """Takes what a client sends."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.error: BrokerJobsError | None = None

    def publish(self, publication: Publication, *, timeout: float) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(publication.message)

    def publish_many(
        self, publications: Iterable[Publication | BrokerJobsError], *, timeout: float
    ) -> Iterator[Publication | BrokerJobsError]:
        for publication in publications:
            if isinstance(publication, Publication):
                self.publish(publication, timeout=timeout)
            yield publication

    def close(self) -> None: ...


@pytest.fixture
def wire() -> Wire:
    return Wire()


def client_of(wire: Wire, **settings: Any) -> Client:
    client = Client(settings=Settings(url="amqp://guest:guest@mq.example/", **settings))  # type: ignore[arg-type]
    client._blocking = wire  # type: ignore[assignment]
    return client


@pytest.fixture
def client(wire: Wire) -> Client:
    return client_of(wire)


def context_of(span: ReadableSpan) -> trace.SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def traceparent(span: ReadableSpan) -> str:
    context = context_of(span)
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def linked(span: ReadableSpan) -> list[trace.SpanContext]:
    return [link.context for link in span.links]


# -- sends


def test_message_carries_the_span_of_its_send(client: Client, wire: Wire, made: Made) -> None:
    client.send(
        "emails.welcome", {"user_id": 7}, check_queue=False, id="7", delay=60, correlation_id="order 9"
    )

    (span,), (message,) = made(), wire.sent
    assert (span.name, span.kind, span.parent) == ("publish emails.welcome", SpanKind.PRODUCER, None)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "jobs:emails.welcome",
        "messaging.rabbitmq.destination.routing_key": "emails.welcome",
        "messaging.message.id": "7",
        "messaging.message.conversation_id": "order 9",
        "messaging.message.body.size": 13,
        "server.address": "mq.example",
        "server.port": 5672,
        "brokerjobs.job": "emails.welcome",
        "brokerjobs.delay": 60.0,
    }
    assert message.headers == {"traceparent": traceparent(span)}


def test_send_belongs_to_what_goes_on_around_it(
    client: Client, wire: Wire, made: Made, provider: TracerProvider
) -> None:
    with provider.get_tracer("app").start_as_current_span("request") as request:
        client.send("emails.welcome", check_queue=False, headers={"tenant": "a"})

    span = made()[0]
    assert span.parent == request.get_span_context()
    assert wire.sent[0].headers == {"tenant": "a", "traceparent": traceparent(span)}


def test_send_that_fails_is_an_error_of_its_span(client: Client, wire: Wire, made: Made) -> None:
    wire.error = PublishRefused("the queue is full")

    with pytest.raises(PublishRefused, match="the queue is full"):
        client.send("emails.welcome", check_queue=False)

    (span,) = made()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "the queue is full")
    assert (span.attributes or {})["error.type"] == "PublishRefused"
    assert [event.name for event in span.events] == ["exception"]


def test_each_of_many_carries_a_span_of_its_own(client: Client, wire: Wire, made: Made) -> None:
    before = use_sender(client)
    try:
        send_many(Message(job="emails.welcome", routing_key="emails.welcome", id=id) for id in "789")
    finally:
        use_sender(before)

    *created, batch = made()
    assert (batch.name, batch.kind) == ("publish jobs", SpanKind.CLIENT)
    assert (batch.attributes or {})["messaging.batch.message_count"] == 3
    assert [span.name for span in created] == ["create emails.welcome"] * 3
    assert [span.parent for span in created] == [batch.context] * 3
    assert {(span.kind, (span.attributes or {})["messaging.operation.type"]) for span in created} == {
        (SpanKind.PRODUCER, "create")
    }
    assert [message.headers["traceparent"] for message in wire.sent] == [
        traceparent(span) for span in created
    ]


def test_one_of_many_that_is_refused_is_an_error_of_the_batch(client: Client, made: Made) -> None:
    large = Message(job="a.b", routing_key="a.b", body=b"x" * 2_000_000)

    with pytest.raises(SendManyError):
        client.send_many([large])

    (batch,) = made()
    assert (batch.attributes or {})["error.type"] == "SendManyError"


def test_message_from_elsewhere_keeps_the_context_of_its_creation(
    client: Client, wire: Wire, made: Made
) -> None:
    client.send_message(Message(job="a.b", routing_key="a.b", headers={"traceparent": CREATION}))

    assert wire.sent[0].headers == {"traceparent": CREATION}
    assert [context.trace_id for context in linked(made()[0])] == [ELSEWHERE]


# -- attempts


class Traced(Bench):
    """A lane that traces."""

    def __init__(self, threads: Threads, **settings: Any) -> None:
        super().__init__(threads)
        self.lane._tracing = Tracing(Settings(**settings))

    async def run(self, job: str, **properties: Any) -> None:
        self.deliver(job, **properties)
        self.lane.start()
        await self.finish()


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads(2)
    yield threads
    threads.close()


async def test_attempt_has_a_trace_of_its_own_that_links_to_the_send(threads: Threads, made: Made) -> None:
    await Traced(threads, namespace="shop").run(
        "quick", headers={"traceparent": CREATION, "brokerjobs-attempt": 2, "brokerjobs-generation": 1}
    )

    (span,) = made()
    assert (span.name, span.kind, span.parent) == ("process emails.quick", SpanKind.CONSUMER, None)
    assert context_of(span).trace_id != ELSEWHERE
    assert [context.trace_id for context in linked(span)] == [ELSEWHERE]
    assert dict(span.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "shop.jobs:emails.quick:shop.emails",
        "messaging.rabbitmq.destination.routing_key": "emails.quick",
        "messaging.message.id": "7",
        "messaging.message.body.size": 2,
        "server.address": "localhost",
        "server.port": 5672,
        "brokerjobs.job": "emails.quick",
        "brokerjobs.queue": "emails",
        "brokerjobs.attempt": 2,
        "brokerjobs.generation": 1,
        "brokerjobs.outcome": "succeeded",
    }


async def test_attempt_is_a_child_of_the_send_where_that_is_wanted(threads: Threads, made: Made) -> None:
    await Traced(threads, trace_context="parent").run("quick", headers={"traceparent": CREATION})

    (span,) = made()
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.is_remote, span.links) == (ELSEWHERE, True, ())


@pytest.mark.parametrize("how", ["link", "parent"])
@pytest.mark.parametrize(
    "garbage", ["", "no trace", 7, None, b"\xff", ["00"], "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]
)
async def test_garbage_is_no_context(threads: Threads, made: Made, garbage: Any, how: str) -> None:
    await Traced(threads, trace_context=how).run("quick", headers={"traceparent": garbage})

    (span,) = made()
    assert (span.parent, span.links, span.status.status_code) == (None, (), StatusCode.UNSET)


async def test_context_may_come_as_bytes(threads: Threads, made: Made) -> None:
    await Traced(threads).run("quick", headers={"traceparent": CREATION.encode()})

    assert [context.trace_id for context in linked(made()[0])] == [ELSEWHERE]


async def test_failed_attempt_is_an_error_and_its_retry_tells_where_it_came_from(
    threads: Threads, made: Made
) -> None:
    bench = Traced(threads)
    headers = {"traceparent": CREATION, "tracestate": "a=1"}

    await bench.run("fail", headers=headers)
    await bench.run("fail", headers={**headers, "brokerjobs-attempt": 2})

    first, last = made()
    assert (first.status.status_code, first.status.description) == (
        StatusCode.ERROR,
        "ConnectionError: gateway is away",
    )
    (event,) = first.events
    assert event.name == "exception"
    assert (event.attributes or {})["exception.type"] == "ConnectionError"
    assert (event.attributes or {})["exception.message"] == "gateway is away"
    assert "raise ConnectionError" in str((event.attributes or {})["exception.stacktrace"])
    assert [
        [(span.attributes or {})[name] for name in ("brokerjobs.outcome", "brokerjobs.reason", "error.type")]
        for span in (first, last)
    ] == [["retried", "failed", "ConnectionError"], ["dead", "exhausted", "ConnectionError"]]
    for copy in bench.publisher.published:
        assert {name: copy.message.properties()["headers"][name] for name in headers} == headers


async def test_message_that_no_job_can_take_has_a_span_too(threads: Threads, made: Made) -> None:
    bench = Traced(threads)
    await bench.run("nobody")
    await bench.run("quick", message_id="8", problems="the header `n` is not UTF-8")

    assert [(span.name, (span.attributes or {})["brokerjobs.reason"]) for span in made()] == [
        ("process emails", "unknown_job"),
        ("process emails", "undecodable"),
    ]


async def test_span_is_current_while_its_job_runs(
    threads: Threads, made: Made, client: Client, wire: Wire
) -> None:
    bench = Traced(threads)
    seen: dict[str, Any] = {}

    @bench.consumer.job()
    async def on_loop() -> None:
        seen["emails.on_loop"] = trace.get_current_span().get_span_context().span_id

    @bench.consumer.job()
    def in_thread() -> None:
        seen["emails.in_thread"] = trace.get_current_span().get_span_context().span_id
        seen["baggage"] = baggage.get_baggage("tenant")
        client.send("emails.receipt", check_queue=False)

    @bench.consumer.on_success
    async def hook(context: object, result: object) -> None:
        seen[f"hook of {current_job().job}"] = trace.get_current_span().get_span_context().span_id

    await bench.run("on_loop")
    await bench.run("in_thread", message_id="8", headers={"baggage": "tenant=a"})

    spans = {span.name.removeprefix("process "): span for span in made()}
    for name in "emails.on_loop", "emails.in_thread":
        assert seen[name] == seen[f"hook of {name}"] == context_of(spans[name]).span_id
    assert seen["baggage"] == "a"
    receipt = spans["publish emails.receipt"]
    assert receipt.parent == spans["emails.in_thread"].context
    assert wire.sent[0].headers["traceparent"] == traceparent(receipt)
    assert not trace.get_current_span().get_span_context().is_valid


async def test_attempt_that_is_given_back_is_no_error(threads: Threads, made: Made) -> None:
    bench = Traced(threads)
    bench.deliver("stay")
    bench.lane.start()
    await asyncio.sleep(0)  # noqa: TID251  (one turn, in which it begins)

    await bench.lane.drain(0)

    (span,) = made()
    assert (span.attributes or {})["brokerjobs.outcome"] == "released"
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())


async def test_defect_ends_the_span(threads: Threads, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Traced(threads)
    monkeypatch.setattr(lane, "DEFECT_REST", 0.0)

    async def broken(*_: object) -> Outcome:
        raise AssertionError("a defect")

    monkeypatch.setattr(bench.lane, "_outcome", broken)
    await bench.run("quick")

    (span,) = made()
    assert span.status.description == "AssertionError: a defect"


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Succeeded(), StatusCode.UNSET),
        (Released("nack by the job"), StatusCode.UNSET),
        (Retried(delay=1, reason="retry_later"), StatusCode.UNSET),
        (Retried(delay=1, reason="unknown_job", failure=Failure(text="who?")), StatusCode.ERROR),
        (DeadLettered(reason="rejected", failure=Failure(text="no")), StatusCode.ERROR),
    ],
)
def test_only_what_went_wrong_is_an_error(made: Made, outcome: Outcome, status: StatusCode) -> None:
    with capture_logs() as lines:
        attempt_of(Message(job="a.b", routing_key="a.b")).ended(outcome)

    assert lines == []
    assert made()[0].status.status_code is status


def attempt_of(message: Message) -> Attempt:
    spans = Tracing(Settings()).spans
    assert spans is not None
    return spans.attempt(message, "a", message.job)


# -- off


def test_without_a_provider_nothing_of_it_is_loaded() -> None:
    program = """
import asyncio, sys
from brokerjobs import Client, Consumer
from brokerjobs.testing import run
from brokerjobs.executor import Executor, child
from brokerjobs.worker import Worker
from brokerjobs.tracing import Tracing, carried
from brokerjobs.settings import Settings
assert Tracing(Settings()).spans is None
assert Client()._tracing.spans is None
assert carried() == {}
print([name for name in sys.modules if name.startswith("opentelemetry") or name == "brokerjobs.spans"])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert ran.stdout == "[]\n"


def test_api_without_a_provider_traces_nothing(wire: Wire) -> None:
    client = client_of(wire)

    client.send("emails.welcome", check_queue=False)

    assert client._tracing.spans is None
    assert wire.sent[0].headers == {}


def test_provider_may_be_set_late(client: Client, request: pytest.FixtureRequest) -> None:
    assert client._tracing.spans is None

    request.getfixturevalue("provider")

    assert client._tracing.spans is not None


@pytest.mark.usefixtures("provider")
def test_tracing_can_be_off(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client_of(wire, tracing="off")._tracing.spans is None
    assert client_of(wire)._tracing.spans is not None

    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    assert client_of(wire)._tracing.spans is None


class Broken(SpanProcessor):
    def on_start(self, span: object, parent_context: Context | None = None) -> None:
        raise OSError("the collector's socket is gone")

    def on_end(self, span: ReadableSpan) -> None:
        raise OSError("likewise")


async def test_what_fails_in_tracing_is_said_once_and_harms_no_job(
    provider: TracerProvider, client: Client, wire: Wire, threads: Threads
) -> None:
    provider.add_span_processor(Broken())
    bench = Traced(threads)

    with capture_logs() as lines:
        await asyncio.to_thread(client.send, "emails.welcome", check_queue=False)
        await asyncio.to_thread(client.send, "emails.welcome", check_queue=False)
        await bench.run("quick")
        await bench.run("fail", message_id="8")

    assert [line["event"] for line in lines if "tracing" in line["event"]] == ["tracing failed"] * 2
    assert len(wire.sent) == 2
    assert bench.journal == ["ack", "confirmed", "ack"]


class Unusable(TracerProvider):
    """Of an application whose set-up went wrong."""

    def get_tracer(self, *_: object, **__: object) -> Any:
        raise RuntimeError("no exporter of that name")


async def test_provider_that_cannot_be_used_is_said_once_and_jobs_run_untraced(
    wire: Wire, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", Unusable(shutdown_on_exit=False))

    with capture_logs() as lines:
        client, bench = client_of(wire), Traced(threads)
        for _ in range(2):
            await asyncio.to_thread(client.send, "emails.welcome", check_queue=False)
        await bench.run("quick")
        await bench.run("fail", message_id="8")

    assert [line["event"] for line in lines if "tracing" in line["event"]] == ["tracing failed"] * 2
    assert [message.headers for message in wire.sent] == [{}, {}]
    assert bench.journal == ["ack", "confirmed", "ack"]


async def test_provider_that_the_environment_names_and_nobody_has_is_no_reason_to_end(
    wire: Wire, threads: Threads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "misspelt")

    client, bench = client_of(wire), Traced(threads)
    await asyncio.to_thread(client.send, "emails.welcome", check_queue=False)
    await bench.run("quick")

    assert "Failed to load configured provider" in caplog.text
    assert len(wire.sent) == 1
    assert bench.journal == ["ack"]


# -- log lines


@pytest.fixture
def _logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import logging

    import structlog

    root = logging.getLogger()
    levels = {
        name: logging.getLogger(name).level
        for name in ("", "brokerjobs", "consumers", "aiormq", "aio_pika", "pika")
    }
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logging")
async def test_lines_of_a_job_tell_its_trace(
    threads: Threads, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    import logging

    logs.configure("info", "json")
    bench = Traced(threads)

    @bench.consumer.job()
    def talk() -> None:
        logging.getLogger("consumers.emails").info("from a thread")

    await bench.run("talk")

    context = context_of(made()[0])
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["from a thread", "job succeeded"]
    for line in lines:
        assert (line["trace_id"], line["span_id"]) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
        assert (line["job"], line["id"], line["queue"], line["attempt"]) == ("emails.talk", "7", "emails", 1)


# -- other processes


def test_context_goes_to_another_process_and_no_further(made: Made, provider: TracerProvider) -> None:
    with provider.get_tracer("app").start_as_current_span("here") as here:
        carrier = tracing.carried()

    with tracing.continued(carrier):
        there = trace.get_current_span().get_span_context()
    assert (there.trace_id, there.span_id) == (
        here.get_span_context().trace_id,
        here.get_span_context().span_id,
    )
    assert there.is_remote
    assert not trace.get_current_span().get_span_context().is_valid
    assert tracing.carried() == {}


def test_instrumented_process_says_so_to_those_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    automatic = type(sys)(tracing.AUTOMATIC)
    automatic.__path__ = ["/site/auto"]
    called: list[str] = []
    automatic.initialize = lambda: called.append("initialised")  # type: ignore[attr-defined]
    monkeypatch.setenv(tracing.INSTRUMENT, "before")  # so that it is as before in the end
    monkeypatch.delenv(tracing.INSTRUMENT)
    tracing.instrument()
    assert tracing.INSTRUMENT not in os.environ

    monkeypatch.setitem(sys.modules, tracing.AUTOMATIC, automatic)
    tracing.instrument()
    assert os.environ[tracing.INSTRUMENT]
    environ = {"PYTHONPATH": os.pathsep.join(["/site/auto", "/app"]), "HOME": "/"}
    assert tracing.uninstrumented(environ) == {"PYTHONPATH": "/app", "HOME": "/"}

    monkeypatch.delitem(sys.modules, tracing.AUTOMATIC)
    assert tracing.uninstrumented(environ) == environ
    monkeypatch.setattr("importlib.import_module", lambda name: automatic)
    tracing.instrument()
    assert called == ["initialised"]

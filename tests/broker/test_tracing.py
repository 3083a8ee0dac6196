"""One story over all spans: a request sends a job, which fails, dies, is replayed, and sends others."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from brokerjobs import Client, Consumer, Retry, asend_many, current_job
from brokerjobs.dead_letters import DeadLetters
from brokerjobs.settings import Settings
from tests import amqp
from tests.conftest import StartWorker
from tests.waiting import eventually_async


def span_id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def attribute(span: ReadableSpan, name: str) -> object:
    return (span.attributes or {}).get(name)


async def test_a_job_tells_where_it_came_from_through_retry_death_and_replay(
    settings: Settings,
    client: Client,
    start_worker: StartWorker,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    orders = Consumer("orders", retry=Retry(delays=[0.125]))
    emails = Consumer("emails")

    @orders.job()
    async def confirm(order: int) -> None:
        with provider.get_tracer("orders").start_as_current_span("charge"):
            if not current_job().message.generation:
                raise ConnectionError("the bank is away")
        await asend_many(receipt.message(copy) for copy in range(2))

    @emails.job()
    def receipt(copy: int) -> None: ...

    def spans(name: str) -> list[ReadableSpan]:
        return [span for span in exporter.get_finished_spans() if span.name == name]

    await start_worker(orders, emails)
    with provider.get_tracer("shop").start_as_current_span("POST /orders") as request:
        await confirm.options(delay=0.125).asend(7)
    await eventually_async(lambda: amqp.ready(url, "orders.dead") == 1)
    assert (await DeadLetters(settings, "orders").replay()).done == 1
    await eventually_async(lambda: len(spans("process emails.receipt")) == 2)
    await eventually_async(lambda: len(spans("process orders.confirm")) == 3)

    (sent,) = spans("publish orders.confirm")
    assert sent.parent == request.get_span_context()
    attempts = spans("process orders.confirm")
    assert [
        tuple(
            attribute(span, f"brokerjobs.{name}") for name in ("generation", "attempt", "outcome", "reason")
        )
        for span in attempts
    ] == [(None, 1, "retried", "failed"), (None, 2, "dead", "exhausted"), (1, 1, "succeeded", None)]
    assert [span.status.status_code for span in attempts] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    for span in attempts:
        (link,) = span.links
        assert (link.context.span_id, span.parent) == (span_id(sent), None)
    assert [span.parent for span in spans("charge")] == [span.context for span in attempts]
    (batch,) = spans("publish jobs")
    assert batch.parent == attempts[-1].context
    created = spans("create emails.receipt")
    assert [span.parent for span in created] == [batch.context] * 2
    receipts = spans("process emails.receipt")
    assert {span.links[0].context.span_id for span in receipts} == {span_id(span) for span in created}
    traces = {span.context.trace_id for span in exporter.get_finished_spans() if span.context is not None}
    assert len(traces) == 1 + len(attempts) + len(receipts)

"""Spans of OpenTelemetry by its messaging conventions: `publish` for a send, `process` for an attempt.

Loaded only where an application has set up tracing (`tracing.py`). The context of the first send travels in the headers
of the message, and stays there over all its copies: retries, dead letters and replays tell where it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import Token
from dataclasses import replace
from types import TracebackType
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import Attributes

from brokerjobs.errors import BrokerJobsError
from brokerjobs.failure import Failure
from brokerjobs.logs import log
from brokerjobs.message import Message
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, word
from brokerjobs.settings import Settings
from brokerjobs.topology import Names
from brokerjobs.transport import Publication

Routed = Publication | BrokerJobsError


class Spans:
    """Makes the spans of one client or worker. Whatever fails in it is logged once, and keeps no job from its work.

    Args:
        tracer: of the application's provider.
        settings: where RabbitMQ is, and how attempts relate to sends.
    """

    def __init__(self, tracer: Tracer, settings: Settings) -> None:
        self._tracer = tracer
        self._continues = settings.trace_context == "parent"
        self._names = Names(settings.namespace)
        self._server: dict[str, Any] = {
            "messaging.system": "rabbitmq",
            "server.address": settings.host,
            "server.port": settings.port,
        }
        self._harmless = Harmless()

    # -- sends

    @contextmanager
    def publish(self, publication: Publication) -> Iterator[Publication]:
        """The send of one message within the block; gives what to publish, which carries the span's context."""
        message = publication.message
        with self._span(f"publish {message.job}", SpanKind.PRODUCER, self._sent("publish", message)) as span:
            yield self._carrying(publication, span)

    @contextmanager
    def publish_many(self) -> Iterator[Callable[[Routed], Routed]]:
        """The send of many within the block; gives what makes of each message one that carries its own span."""
        about = {"messaging.operation.name": "publish", "messaging.operation.type": "send"}
        count = 0
        with self._span(f"publish {self._names.jobs}", SpanKind.CLIENT, self._server | about) as batch:
            context = trace.set_span_in_context(batch)

            def created(publication: Routed) -> Routed:
                nonlocal count
                if isinstance(publication, BrokerJobsError):
                    return publication
                count, message = count + 1, publication.message
                about = self._sent("create", message)
                with self._span(f"create {message.job}", SpanKind.PRODUCER, about, context) as span:
                    return self._carrying(publication, span)

            try:
                yield created
            finally:
                with self._harmless:
                    batch.set_attribute("messaging.batch.message_count", count)

    # -- attempts

    def attempt(self, message: Message, queue: str, job: str) -> Attempt:
        """An attempt that begins here and now; its span is current until it has ended.

        Args:
            message: what runs.
            queue: as users say it.
            job: as metrics name it: one name for all that are unknown.
        """
        origin, links = Context(), []
        with self._harmless:
            origin = _origin(message)
            links = _links_to(origin)
        is_continued = self._continues and bool(links)
        with self._harmless:
            span = self._tracer.start_span(
                f"process {job if job == message.job else queue}",
                context=origin if is_continued else Context(),
                kind=SpanKind.CONSUMER,
                attributes=self._processed(message, queue),
                links=None if is_continued else links,
                record_exception=False,
            )
            return Attempt(span, attach(trace.set_span_in_context(span, origin)), self._harmless)
        return Attempt(trace.INVALID_SPAN, None, self._harmless)

    # -- inside

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, attributes: Attributes, context: Context | None = None
    ) -> Iterator[Span]:
        span: Span = trace.INVALID_SPAN
        with self._harmless:
            span = self._tracer.start_span(name, context=context, kind=kind, attributes=attributes)
        try:
            yield span
        except BaseException as error:
            with self._harmless:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                span.record_exception(error)
            raise
        finally:
            with self._harmless:
                span.end()

    def _carrying(self, publication: Publication, span: Span) -> Publication:
        """A message that carries the context of its creation already, keeps it: it was made elsewhere."""
        message, carrier = publication.message, dict[str, str]()
        with self._harmless:
            if message.headers and (made := _links_to(_origin(message))):
                span.add_link(made[0].context)
                return publication
            propagate.inject(carrier, context=trace.set_span_in_context(span))
        if not carrier:
            return publication
        return replace(publication, message=replace(message, headers={**message.headers, **carrier}))

    def _sent(self, operation: str, message: Message) -> dict[str, Any]:
        about = self._about(message, operation, "send" if operation == "publish" else operation)
        about["messaging.destination.name"] = f"{self._names.jobs}:{message.routing_key}"
        if message.delay:
            about["brokerjobs.delay"] = message.delay
        return about

    def _processed(self, message: Message, queue: str) -> dict[str, Any]:
        about = self._about(message, "process", "process")
        about["messaging.destination.name"] = (
            f"{self._names.jobs}:{message.routing_key}:{self._names.queue(queue)}"
        )
        about["brokerjobs.queue"] = queue
        about["brokerjobs.attempt"] = message.attempt
        if message.generation:
            about["brokerjobs.generation"] = message.generation
        return about

    def _about(self, message: Message, operation: str, type: str) -> dict[str, Any]:
        about: dict[str, Any] = {
            **self._server,
            "messaging.operation.name": operation,
            "messaging.operation.type": type,
            "messaging.rabbitmq.destination.routing_key": message.routing_key,
            "messaging.message.id": message.id,
            "messaging.message.body.size": len(message.body),
            "brokerjobs.job": message.job,
        }
        if message.correlation_id:
            about["messaging.message.conversation_id"] = message.correlation_id
        return about


class Harmless:
    """Bounds what may fail: samplers, processors and propagators are the application's. The first failure is logged."""

    def __init__(self) -> None:
        self._has_failed = False

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception) and not self._has_failed:
            self._has_failed = True
            log.error("tracing failed", exc_info=error)
        return isinstance(error, Exception)


class Attempt:
    """The span of an attempt that goes on.

    Args:
        span: that was started.
        token: gives back the context that was current before.
        harmless: bounds what may fail.
    """

    __slots__ = ("_harmless", "_span", "_token")

    def __init__(self, span: Span, token: Token[Context] | None, harmless: Harmless) -> None:
        self._span = span
        self._token = token
        self._harmless = harmless

    def ended(self, outcome: Outcome) -> None:
        """It ended like this."""
        with self._harmless:
            self._span.set_attribute("brokerjobs.outcome", word(outcome))
            if isinstance(outcome, Retried | DeadLettered | Released):
                self._span.set_attribute("brokerjobs.reason", outcome.reason)
            if isinstance(outcome, Retried | DeadLettered) and outcome.failure is not None:
                self._tell(outcome.failure, outcome.reason)
        self._leave()

    def broke(self, error: BaseException) -> None:
        """It has no outcome: a defect of ours, or the end of the program."""
        with self._harmless:
            self._tell(Failure.of(error) if isinstance(error, Exception) else Failure(text=repr(error)), "")
        self._leave()

    def _tell(self, failure: Failure, reason: str) -> None:
        self._span.set_attribute("error.type", failure.kind or reason or "_OTHER")
        self._span.set_status(Status(StatusCode.ERROR, str(failure)))
        about = {"type": failure.kind or reason, "message": failure.text, "stacktrace": failure.traceback}
        self._span.add_event("exception", {f"exception.{name}": text for name, text in about.items() if text})

    def _leave(self) -> None:
        with self._harmless:
            self._span.end()
        if self._token is not None:
            detach(self._token)


class _Headers(Getter[Mapping[str, Any]]):
    """Reads what anybody may have written: texts, or bytes that are some."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        if isinstance(value, bytes):
            with suppress(UnicodeDecodeError):
                value = value.decode()
        return [value] if isinstance(value, str) else None

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        return list(carrier)


_HEADERS = _Headers()


def _origin(message: Message) -> Context:
    """The context in which it was made, as its headers say."""
    return propagate.extract(message.headers, context=Context(), getter=_HEADERS)


def _links_to(origin: Context) -> list[Link]:
    creation = trace.get_current_span(origin).get_span_context()
    return [Link(creation)] if creation.is_valid else []


# -- for log lines, and other processes


def ids() -> dict[str, str]:
    """Of the span that is current here; empty where there is none."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def carried() -> dict[str, str]:
    """The current context, as text."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@contextmanager
def continued(carrier: Mapping[str, str]) -> Iterator[None]:
    """Within the block the context is that of another process."""
    token = attach(propagate.extract(carrier, context=Context()))
    try:
        yield
    finally:
        detach(token)

"""The client: publishes jobs, from threads and from event loops, by name or for `job.send`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self, Unpack

from brokerjobs import payload, settings, topology
from brokerjobs.amqp.blocking import BlockingPublisher
from brokerjobs.amqp.publisher import Publisher
from brokerjobs.amqp.stream import Stream
from brokerjobs.errors import (
    BrokerJobsError,
    ConfigurationError,
    InvalidArguments,
    PublishUnknown,
    UnknownQueue,
)
from brokerjobs.job import SendArguments, SendOptions, check_size, refuse_on_loop
from brokerjobs.message import Message
from brokerjobs.metrics import Metrics
from brokerjobs.settings import Settings
from brokerjobs.topology import Names
from brokerjobs.tracing import Tracing
from brokerjobs.transport import JobHandle, Publication


class SendManyError(BrokerJobsError):
    """Some messages of a `send_many` were not confirmed; the others are queued.

    Args:
        results: for each message in order its handle, or its error.
    """

    def __init__(self, results: list[JobHandle | BrokerJobsError]) -> None:
        failures = [result for result in results if isinstance(result, BrokerJobsError)]
        unknown = sum(isinstance(failure, PublishUnknown) for failure in failures)
        super().__init__(
            f"{len(results) - len(failures)} of {len(results)} were confirmed, {len(failures) - unknown} refused, "
            f"{unknown} unknown; the first: {failures[0]}"
        )
        self.results = results


class Client:
    """Publishes jobs. Every send waits for the broker's confirm, and raises when it does not come.

        client = Client("amqp://guest:guest@localhost/")
        client.send("emails.welcome", {"user_id": 7}, delay="10m")

    Connections open at the first send, and one client may serve all threads and loops of a process.

    Args:
        url: of RabbitMQ; by default from the settings.
        settings: all settings, instead of those from the environment.
        metrics: where to count what was published.
        options: any other setting by its name, such as namespace="shop".
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings or _load(url=url, **options)
        self._names = Names(self.settings.namespace)
        self._metrics = metrics
        self._blocking = BlockingPublisher(self.settings, metrics.count_published if metrics else None)
        self._by_loop: dict[asyncio.AbstractEventLoop, Publisher] = {}
        self._known_queues: set[str] = set()
        self._tracing = Tracing(self.settings)

    # -- by name

    def send(
        self,
        name: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        *,
        check_queue: bool = True,
        **options: Unpack[SendArguments],
    ) -> JobHandle:
        """Publish a job by its name, without importing its code.

        Args:
            name: `emails.welcome`: the queue, a dot, the job; it is the routing key too.
            arguments: by name; bytes are sent as they are, for raw jobs.
            check_queue: once per queue, make sure that it exists; False for events that only topics route.
            options: priority, delay, at, expires, id, headers, correlation_id: see `SendArguments`.

        Raises:
            UnknownQueue: there is no queue of that name.
            PublishRefused: surely not queued.
            PublishUnknown: may be queued.
            WrongLoop: on a running event loop.
        """
        refuse_on_loop("client.send()", "await client.asend(…)")
        queue = self._unchecked_queue(name) if check_queue else ""
        publication = self._route(_named(name, arguments, SendOptions.of(options)))
        if queue:
            self._remember(queue, self._blocking.queue_exists(queue, timeout=self.settings.publish_timeout))
        return self._publish(publication)

    async def asend(
        self,
        name: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        *,
        check_queue: bool = True,
        **options: Unpack[SendArguments],
    ) -> JobHandle:
        """Publish a job by its name from async code; see `send`."""
        queue = self._unchecked_queue(name) if check_queue else ""
        publication = self._route(_named(name, arguments, SendOptions.of(options)))
        if queue:
            exists = await self._publisher().queue_exists(queue, timeout=self.settings.publish_timeout)
            self._remember(queue, exists)
        return await self._apublish(publication)

    # -- messages

    def send_message(self, message: Message) -> JobHandle:
        """Publish a message made by `job.message(…)`; raises as `send` does."""
        refuse_on_loop("client.send_message()", "await client.asend_message(…)")
        return self._publish(self._route(message))

    async def asend_message(self, message: Message) -> JobHandle:
        """Publish a message from async code; raises as `send` does."""
        return await self._apublish(self._route(message))

    def send_many(self, messages: Iterable[Message]) -> list[JobHandle]:
        """Publish many messages without waiting for one confirm before sending the next.

        Args:
            messages: made by `job.message(…)`; a generator is taken as it goes, and what it raises comes out
                when all before it have ended.

        Raises:
            SendManyError: some were not confirmed; it tells which.
            WrongLoop: on a running event loop.
        """
        refuse_on_loop("client.send_many()", "await client.asend_many(…)")
        routed = map(self._routed, messages)
        if (spans := self._tracing.spans) is None:
            return self._publish_many(routed)
        with spans.publish_many() as created:
            return self._publish_many(map(created, routed))

    async def asend_many(self, messages: Iterable[Message]) -> list[JobHandle]:
        """Publish many messages from async code; see `send_many`."""
        routed = map(self._routed, messages)
        if (spans := self._tracing.spans) is None:
            return await self._apublish_many(routed)
        with spans.publish_many() as created:
            return await self._apublish_many(map(created, routed))

    # -- endings

    def close(self) -> None:
        """Close the connection that threads use; the next send opens another."""
        self._blocking.close()

    async def aclose(self) -> None:
        """Close the connection of this event loop, and the one that threads use."""
        publisher = self._by_loop.pop(asyncio.get_running_loop(), None)
        if publisher is not None:
            await publisher.close()
        await asyncio.to_thread(self._blocking.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- inside

    def _publish(self, publication: Publication) -> JobHandle:
        timeout = self.settings.publish_timeout
        if (spans := self._tracing.spans) is None:
            self._blocking.publish(publication, timeout=timeout)
        else:
            with spans.publish(publication) as traced:
                self._blocking.publish(traced, timeout=timeout)
        return _handle(publication)

    async def _apublish(self, publication: Publication) -> JobHandle:
        timeout = self.settings.publish_timeout
        if (spans := self._tracing.spans) is None:
            await self._publisher().publish(publication, timeout=timeout)
        else:
            with spans.publish(publication) as traced:
                await self._publisher().publish(traced, timeout=timeout)
        return _handle(publication)

    def _publish_many(self, routed: Iterable[Publication | BrokerJobsError]) -> list[JobHandle]:
        sent = self._blocking.publish_many(routed, timeout=self.settings.publish_timeout)
        return _all_confirmed(list(sent))

    async def _apublish_many(self, routed: Iterable[Publication | BrokerJobsError]) -> list[JobHandle]:
        stream = Stream(self._publisher(), self.settings.publish_timeout)
        return _all_confirmed(await stream.send(routed))

    def _publisher(self) -> Publisher:
        loop = asyncio.get_running_loop()
        publisher = self._by_loop.get(loop)
        if publisher is None:
            for ended in [known for known in list(self._by_loop) if known.is_closed()]:
                self._by_loop.pop(ended, None)
            on_published = None
            if (metrics := self._metrics) is not None:
                on_published = lambda outcome, _, seconds: metrics.count_published(outcome, seconds)  # noqa: E731
            publisher = self._by_loop[loop] = Publisher(self.settings, on_published=on_published)
        return publisher

    def _route(self, message: Message) -> Publication:
        check_size(message, self.settings.max_message_size)
        exchange, key = topology.route(self._names, message.routing_key, message.delay)
        return Publication(exchange, key, message)

    def _routed(self, message: Message) -> Publication | BrokerJobsError:
        try:
            return self._route(message)
        except BrokerJobsError as error:
            return error

    def _unchecked_queue(self, name: str) -> str:
        """The queue that a name begins with; empty when it is known to be there."""
        word, _, job = name.partition(".")
        try:
            topology.check_word(word, "queue")
        except ConfigurationError as error:
            raise InvalidArguments(f"{error}; a job is named like emails.welcome, not {name!r}") from None
        if not job:
            raise InvalidArguments(f"a job is named like emails.welcome, not {name!r}")
        queue = self._names.queue(word)
        return "" if queue in self._known_queues else queue

    def _remember(self, queue: str, exists: bool) -> None:
        if not exists:
            raise UnknownQueue(
                f"RabbitMQ at {self.settings.address} has no queue {queue!r}, so nobody would run the job; "
                f"start a worker (`brokerjobs consume {queue.rpartition('.')[2]}`), or run `brokerjobs topology apply`"
            )
        self._known_queues.add(queue)


def _load(**given: Any) -> Settings:
    return settings.load(**given)


def _named(name: str, arguments: Mapping[str, Any] | bytes | None, options: SendOptions) -> Message:
    if isinstance(arguments, bytes):
        return options.message(name, arguments, "application/octet-stream")
    return options.message(name, payload.encode(dict(arguments or {})))


def _handle(publication: Publication) -> JobHandle:
    return JobHandle(publication.message.id, publication.message.job)


def _all_confirmed(sent: list[Publication | BrokerJobsError]) -> list[JobHandle]:
    handles = [_handle(one) for one in sent if not isinstance(one, BrokerJobsError)]
    if len(handles) < len(sent):
        raise SendManyError([one if isinstance(one, BrokerJobsError) else _handle(one) for one in sent])
    return handles

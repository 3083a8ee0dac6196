"""pika without a framework: the callbacks of SelectConnection, and the simpler BlockingConnection."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any, ClassVar

import pika

from bench import job
from bench.adapter import Adapter, Arguments, How, Style, declare_ours

WINDOW = 500
PERSISTENT = pika.BasicProperties(delivery_mode=2, content_type="application/json")
OURS = pika.BasicProperties(delivery_mode=2, content_type="application/json", priority=4)
LACKS = "no retries, timeouts, delays or dead letters; a lost connection ends it"


class PikaBlocking(Adapter):
    """What most programs with pika do."""

    title = "raw pika, Blocking"
    package = "pika"
    settings = "ack each"
    lacks = LACKS
    sends: ClassVar[tuple[How, ...]] = ("each", "unconfirmed")
    styles: ClassVar[tuple[Style, ...]] = ("native",)
    forked = True
    exchange, key = "", "{}"
    properties = PERSISTENT

    def open(self) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(self.plan.url))
        self.channel = self.connection.channel()
        self.declare()

    def declare(self) -> None:
        for queue in self.plan.queues:
            self.channel.queue_declare(queue, durable=True)

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        if how == "each":
            self.channel.confirm_delivery()
        for turn, arguments in enumerate(jobs):
            key = self.key.format(self.queue_at(turn))
            self.channel.basic_publish(
                self.exchange, key, json.dumps(arguments).encode(), self.properties, mandatory=how == "each"
            )
        self.connection.process_data_events(0)

    def close(self) -> None:
        self.connection.close()

    def work(self) -> None:
        self.open()
        self.channel.basic_qos(prefetch_count=self.plan.prefetch)
        for queue in self.plan.queues:
            self.channel.basic_consume(queue, self._take)
        signal.signal(
            signal.SIGTERM,
            lambda *_: self.connection.add_callback_threadsafe(self.channel.stop_consuming),
        )
        self.channel.start_consuming()
        self.connection.close()

    @staticmethod
    def _take(channel: Any, method: Any, _: object, body: bytes) -> None:
        job.run(**json.loads(body))
        channel.basic_ack(method.delivery_tag)


class PikaBlockingOurs(PikaBlocking):
    """Through the exchange of brokerjobs into its kind of queue: tells how much of a difference is RabbitMQ's."""

    title = "raw pika, Blocking, our queue"
    settings = "as raw pika, to the exchange and the queue of the first row"
    sends: ClassVar[tuple[How, ...]] = ("each",)
    styles: ClassVar[tuple[Style, ...]] = ()
    exchange, key, properties = "jobs", "{}.run", OURS

    def declare(self) -> None:
        declare_ours(self.plan.url)


class Pika(Adapter):
    """As fast as pika goes."""

    title = "raw pika, Select"
    package = "pika"
    settings = "ack each; pipelined: 500 unconfirmed"
    lacks = LACKS
    sends: ClassVar[tuple[How, ...]] = ("pipelined",)
    styles: ClassVar[tuple[Style, ...]] = ("native",)
    forked = True
    exchange, key = "", "{}"
    properties = PERSISTENT
    declares = True

    def open(self) -> None:
        self.channel: Any = None
        self.connection = pika.SelectConnection(
            pika.URLParameters(self.plan.url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
        )
        self.connection.ioloop.start()

    def _opened(self, channel: Any) -> None:
        self.channel, self.undeclared = channel, len(self.plan.queues)
        for queue in self.plan.queues:
            channel.queue_declare(queue, durable=True, passive=not self.declares, callback=self._declared)

    def _declared(self, _: object) -> None:
        self.undeclared -= 1
        if not self.undeclared:
            self.connection.ioloop.stop()

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        self.jobs, self.published, self.is_over = jobs, 0, False
        self.unconfirmed: dict[int, None] = {}  # tags, lowest first; queues confirm in any order
        self.channel.confirm_delivery(self._confirm, callback=lambda _: self._publish())
        self.connection.ioloop.start()

    def _confirm(self, frame: Any) -> None:
        method = frame.method
        if method.multiple:
            while self.unconfirmed and (lowest := next(iter(self.unconfirmed))) <= method.delivery_tag:
                del self.unconfirmed[lowest]
        else:
            self.unconfirmed.pop(method.delivery_tag, None)
        self._publish()

    def _publish(self) -> None:
        while not self.is_over and len(self.unconfirmed) < WINDOW:
            arguments = next(self.jobs, None)
            if arguments is None:
                self.is_over = True
                break
            key = self.key.format(self.queue_at(self.published))
            self.channel.basic_publish(self.exchange, key, json.dumps(arguments).encode(), self.properties)
            self.published += 1
            self.unconfirmed[self.published] = None
        if self.is_over and not self.unconfirmed:
            self.connection.ioloop.stop()

    def close(self) -> None:
        self.connection.add_on_close_callback(lambda *_: self.connection.ioloop.stop())
        self.connection.close()
        self.connection.ioloop.start()

    def work(self) -> None:
        self.open()
        self.channel.basic_qos(prefetch_count=self.plan.prefetch)
        for queue in self.plan.queues:
            self.channel.basic_consume(queue, PikaBlocking._take)
        signal.signal(
            signal.SIGTERM,
            lambda *_: self.connection.ioloop.add_callback_threadsafe(self.connection.ioloop.stop),
        )
        self.connection.ioloop.start()
        self.close()


class PikaOurs(Pika):
    """What RabbitMQ can do with the exchange and the kind of queue of brokerjobs, while little is done here."""

    title = "raw pika, Select, our queue"
    settings = "as raw pika, with the exchange and the queue of the first row"
    exchange, key, properties = "jobs", "{}.run", OURS
    declares = False

    def open(self) -> None:
        declare_ours(self.plan.url)
        super().open()

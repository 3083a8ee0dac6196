"""Dramatiq."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench import job
from bench.adapter import Adapter, Arguments, How, Plan, Style

THREADS = 8  # its default, and the best for small jobs


def set_up(*, confirm: bool = True):
    """Its broker, and an actor for each queue."""
    plan = Plan.given()
    broker = RabbitmqBroker(url=plan.url, confirm_delivery=confirm)
    dramatiq.set_broker(broker)
    return broker, [
        dramatiq.actor(job.run, actor_name=f"run-{queue}", queue_name=queue, broker=broker)
        for queue in plan.queues
    ]


class Dramatiq(Adapter):
    """With the middleware that it comes with."""

    title = "Dramatiq"
    package = "dramatiq"
    settings = "confirm_delivery; small jobs: 8 threads, prefetch 200"
    lacks = "no confirms by default, and never pipelined; delays are held by workers"
    sends: ClassVar[tuple[How, ...]] = ("each", "unconfirmed")
    styles: ClassVar[tuple[Style, ...]] = ("native", "threads", "processes")

    def open(self) -> None:
        self.broker, self.actors = set_up()
        for queue in self.plan.queues:
            self.broker.declare_queue(queue, ensure=True)

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        actors = self.actors
        if how == "unconfirmed":
            self.broker, actors = set_up(confirm=False)
        for turn, arguments in enumerate(jobs):
            actors[turn % len(actors)].send(**arguments)

    def close(self) -> None:
        self.broker.close()

    def work(self) -> None:
        plan = self.plan
        threads = {"native": THREADS, "threads": plan.at_once, "processes": 1}[plan.style]
        os.environ["dramatiq_queue_prefetch"] = str(plan.prefetch)  # noqa: SIM112  (its own name)
        command = [
            "dramatiq",
            "bench.contestants.dramatiq:set_up",
            "-p",
            str(plan.processes),
            "-t",
            str(threads),
        ]
        os.execvp("dramatiq", [*command, "--skip-logging"])

"""Celery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from celery import Celery
from kombu import Exchange, Queue

from bench import job
from bench.adapter import Adapter, Arguments, How, Plan, Style

SOLO_PREFETCH = 100  # more is slower, and with few its solo pool may stand still


class CeleryWorker(Adapter):
    """Without results, events, gossip and rate limits, which all cost."""

    title = "Celery"
    package = "celery"
    settings = "acks_late; small jobs: solo pool, prefetch 100; no results, events, gossip, rate limits"
    lacks = "no confirms unless asked for, and never pipelined; delays are held by workers"
    sends: ClassVar[tuple[How, ...]] = ("each", "unconfirmed")
    styles: ClassVar[tuple[Style, ...]] = ("native", "threads", "processes")

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.app, self.task = self._app(confirm=True)

    def _app(self, *, confirm: bool):
        app = Celery("bench", broker=self.plan.url)
        plan = self.plan
        at_once = {"native": 1, "threads": plan.at_once, "processes": plan.processes}[plan.style]
        prefetch = min(plan.prefetch, SOLO_PREFETCH) if plan.style == "native" else plan.prefetch
        app.conf.update(
            task_acks_late=True,
            task_ignore_result=True,
            task_default_queue=plan.queues[0],
            task_queues=[Queue(name, Exchange("bench-celery"), routing_key=name) for name in plan.queues],
            task_default_exchange="bench-celery",
            task_default_routing_key=plan.queues[0],
            worker_prefetch_multiplier=max(1, prefetch // max(at_once, 1)),
            worker_disable_rate_limits=True,
            worker_enable_remote_control=False,
            worker_send_task_events=False,
            broker_transport_options={"confirm_publish": confirm},
            broker_connection_retry_on_startup=True,
        )
        return app, app.task(name="bench.run")(job.run)

    def open(self) -> None:
        with self.app.connection_for_write() as connection:
            for queue in self.app.conf.task_queues:
                queue.bind(connection.default_channel).declare()
        with self.app.producer_or_acquire() as producer:
            producer.connection.ensure_connection()

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        task = self.task if how == "each" else self._app(confirm=False)[1]
        for turn, arguments in enumerate(jobs):
            task.apply_async(kwargs=arguments, routing_key=self.queue_at(turn))

    def work(self) -> None:
        plan = self.plan
        pool = {"native": "solo", "threads": "threads", "processes": "prefork"}[plan.style]
        at_once = {"native": 1, "threads": plan.at_once, "processes": plan.processes}[plan.style]
        if plan.style == "native" and plan.processes > 1:
            pool, at_once = "prefork", plan.processes
        self.app.worker_main(
            ["worker", "-P", pool, "-c", str(at_once), "-l", "WARNING",
             "--without-gossip", "--without-mingle", "--without-heartbeat"]
        )  # fmt: skip

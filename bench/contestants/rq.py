"""RQ, on Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from redis import Redis
from rq import Queue, SimpleWorker, Worker

from bench import job
from bench.adapter import Adapter, Arguments, How, Style

BATCH = 500


class RQ(Adapter):
    """Without results."""

    title = "RQ (Redis)"
    package = "rq"
    settings = "SimpleWorker, which does not fork; no results; pipelined: 500 a call"
    lacks = (
        "a job is taken off its queue when it starts; Redis as it comes may lose its last minutes in a crash"
    )
    sends: ClassVar[tuple[How, ...]] = ("each", "pipelined")
    styles: ClassVar[tuple[Style, ...]] = ("native",)
    forked = True
    fewer = 10
    on = "redis"

    def open(self) -> None:
        self.redis = Redis.from_url(self.plan.redis)
        self.queues = [Queue(name, connection=self.redis) for name in self.plan.queues]
        self.redis.ping()

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        if how == "each":
            for turn, arguments in enumerate(jobs):
                self.queues[turn % len(self.queues)].enqueue(job.run, kwargs=arguments, result_ttl=0)
            return
        batch = []
        for arguments in jobs:
            batch.append(Queue.prepare_data(job.run, kwargs=arguments, result_ttl=0))
            if len(batch) == BATCH:
                self.queues[0].enqueue_many(batch)
                batch = []
        self.queues[0].enqueue_many(batch)

    def work(self) -> None:
        self.open()
        kind = Worker if self.plan.style == "processes" else SimpleWorker
        kind(self.queues, connection=self.redis, log_job_description=False).work(logging_level="WARNING")

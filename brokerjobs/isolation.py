"""Where the isolated jobs of a consumer run: in child processes that import it again."""

from __future__ import annotations

from brokerjobs import discovery
from brokerjobs.consumer import Consumer
from brokerjobs.executor import Processes, Program
from brokerjobs.logs import log
from brokerjobs.metrics import Metrics
from brokerjobs.settings import Settings

SUSPECTS_AT_ONCE = 4  # where no job asks for a process, so that many slots do not become as many processes


def processes_for(consumer: Consumer, settings: Settings, limit: int, metrics: Metrics) -> Processes | None:
    """The processes of this consumer; None where no other process could import it, so that its jobs run here.

    Args:
        consumer: whose jobs.
        settings: the worker's; children send jobs with them too.
        limit: how many processes at most; fewer where none of its jobs asks for one.
        metrics: where to count their deaths.
    """
    isolated = [job.name for job in consumer.jobs.values() if job.isolate]
    home = discovery.home_of(consumer, settings.consumers)
    if home is None:
        if isolated:
            log.warning("jobs not isolated", queue=consumer.queue, jobs=isolated,
                        hint="declare the consumer in a module that another process can import")  # fmt: skip
        return None
    return Processes(
        Program(home, consumer.queue, settings),
        limit if isolated else min(limit, SUSPECTS_AT_ONCE),
        on_death=lambda cause: metrics.child_deaths.labels(consumer.queue, cause).inc(),
    )

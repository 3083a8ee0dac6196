"""Jobs that take longer than RabbitMQ waits for an acknowledgement.

It takes back what a consumer has held for 30 minutes (its `consumer_timeout`), and the job runs again beside itself.
From 4.3 a consumer of a quorum queue says for itself how long it may hold a message, and classic queues wait for ever;
before, only RabbitMQ's configuration or, from 3.12, a policy changes that, and AMQP has no question for either.
"""

from __future__ import annotations

import math

from brokerjobs.capabilities import Capabilities
from brokerjobs.consumer import Consumer
from brokerjobs.durations import text
from brokerjobs.errors import ConfigurationError
from brokerjobs.logs import log
from brokerjobs.settings import Settings
from brokerjobs.topology import Names

ASSUMED = 30 * 60.0  # seconds: RabbitMQ's default
HOLD = 60.0  # seconds beside the job itself: hooks, and the confirm of a retry
MOST = 2**31 // 1000  # seconds; RabbitMQ counts milliseconds


def acknowledge_within(consumer: Consumer, settings: Settings, prefetch: int) -> float | None:
    """Seconds that this worker may hold a message of the consumer; None where RabbitMQ sets no limit.

    Args:
        consumer: whose jobs.
        settings: what RabbitMQ's own limit is.
        prefetch: messages held at once; those beyond the concurrency wait for others to end.
    """
    if settings.consumer_timeout == 0:
        return None
    needed = _longest(consumer, settings, prefetch)[1] + HOLD
    return min(MOST, max(settings.consumer_timeout or ASSUMED, needed))


def check(consumer: Consumer, settings: Settings, capabilities: Capabilities, prefetch: int) -> None:
    """Warn of jobs that RabbitMQ may take back while they run, where a consumer cannot ask for more time.

    Raises:
        ConfigurationError: it surely will, by what the setting `consumer_timeout` says.
    """
    limit = ASSUMED if settings.consumer_timeout is None else settings.consumer_timeout
    name, needed = _longest(consumer, settings, prefetch)
    if capabilities.has("consumer_timeout_argument") or not limit or needed + HOLD <= limit:
        return
    waiting = prefetch > settings.concurrency
    what = (
        f"{name} may take {text(needed)}{' with those that it waits for' if waiting else ''}, and RabbitMQ "
        f"{capabilities} takes back what is not acknowledged within {text(limit)}: it would run again beside itself"
    )
    advice = _advice(consumer.queue, settings, capabilities, needed + HOLD)
    if settings.consumer_timeout is not None and needed >= limit:
        raise ConfigurationError(f"{what}. {advice}")
    log.warning("job longer than RabbitMQ waits", queue=consumer.queue, error=what, hint=advice)


def _longest(consumer: Consumer, settings: Settings, prefetch: int) -> tuple[str, float]:
    """The job with the longest timeout, and how long it may take together with those before it in the inbox."""
    timeouts = {job.name: job.timeout for job in consumer.jobs.values()}
    name, timeout = max(timeouts.items(), key=lambda job: job[1], default=("", 0.0))
    return name, timeout * math.ceil(prefetch / settings.concurrency)


def _advice(queue: str, settings: Settings, capabilities: Capabilities, needed: float) -> str:
    milliseconds = math.ceil(needed) * 1000
    raised = f"set `consumer_timeout = {milliseconds}` in rabbitmq.conf"
    if capabilities.has("consumer_timeout_policy"):
        pattern = Names(settings.namespace).queue(queue).replace(".", "\\.")
        policy = f'{{"consumer-timeout": {milliseconds}}}'
        raised += (
            f", or run: rabbitmqctl set_policy {queue}-timeout '^{pattern}$' '{policy}' --apply-to queues"
            " (with -p for a virtual host)"
        )
    return (
        "Lower the job's timeout, or let RabbitMQ wait longer and say so here: "
        f"{raised}; then BROKERJOBS_CONSUMER_TIMEOUT={math.ceil(needed)}s"
    )

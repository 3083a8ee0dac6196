"""What must not get worse: how many times as good as its raw client brokerjobs is, at least.

All are ratios to a raw client that does the same in the same run, so they hold on any machine: 2 is twice the speed, or
half of the CPU time, interpreter steps or waiting. A floor is what is held now, less a margin for a machine that is
busy; when something gets better for good, raise it here. A goal is where it shall go.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Floor:
    """Of one ratio.

    Args:
        least: below it something is broken.
        goal: what it shall be one day; None where it is as good as it needs to be.
    """

    least: float
    goal: float | None = None


# Without a broker, as `bench.hot_path` measures it: against aio-pika, CPU time and steps of the interpreter.
IN_MEMORY = {
    "drain, CPU": Floor(2.2, goal=4.0),
    "drain, steps": Floor(2.45, goal=4.0),
    "drain-def, CPU": Floor(1.7, goal=4.0),
    "publish, CPU": Floor(4.4),
    "publish, steps": Floor(4.9),
    "publish-each, CPU": Floor(2.1),
    "publish-each, steps": Floor(2.75),
    "drain-large, CPU": Floor(1.3),  # bodies of 100 kB, which the raw client does not check
    "drain-large, steps": Floor(2.0),
    "publish-large, CPU": Floor(1.0),
    "publish-large, steps": Floor(4.0),
}

# Beside RabbitMQ, from the processes of `make bench`.
WITH_BROKER = {
    "drain, jobs/s": Floor(1.3, goal=4.0),  # against aio-pika, consume and acknowledge
    "drain, CPU": Floor(2.1, goal=4.0),
    "send_many, messages/s": Floor(1.8, goal=3.5),  # against aio-pika, 500 in flight
    "send_many, CPU": Floor(3.3),
    "asend_many, messages/s": Floor(1.8, goal=3.5),
    "asend_many, CPU": Floor(3.3),
    "send, messages/s": Floor(0.8, goal=1.0),  # against pika's BlockingConnection, each confirm awaited
    "send, CPU": Floor(0.5, goal=1.0),
    "latency, idle p50": Floor(0.75, goal=1.0),  # against aio-pika, from the send to the start of the job
}

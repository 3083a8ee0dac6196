"""What the shell may complete: `_BROKERJOBS_COMPLETE=bash_source brokerjobs` prints the script that sets it up."""

from __future__ import annotations

import click

from brokerjobs.errors import BrokerJobsError


def complete_queue(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of declared queues."""
    from brokerjobs import discovery, settings

    try:
        package = context.params.get("consumers") or settings.load().consumers
        return sorted(
            consumer.queue for consumer in discovery.find(package) if consumer.queue.startswith(incomplete)
        )
    except BrokerJobsError:
        return []


def complete_job(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of declared jobs."""
    from brokerjobs import discovery, settings

    try:
        package = context.params.get("consumers") or settings.load().consumers
        return sorted(
            name
            for consumer in discovery.find(package)
            for name in consumer.jobs
            if name.startswith(incomplete)
        )
    except BrokerJobsError:
        return []

"""`brokerjobs jobs`: what the consumers declare."""

from __future__ import annotations

from typing import Any

import click

from brokerjobs import discovery, settings
from brokerjobs.cli.completion import complete_queue
from brokerjobs.cli.options import consumers_option
from brokerjobs.cli.output import json_option, print_json, print_table
from brokerjobs.durations import text


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE…]", shell_complete=complete_queue)
@json_option
@consumers_option
def command(queues: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """The declared jobs: name, queue, parameters, timeout, retries. No broker is asked."""
    found = discovery.find(settings.load(**given).consumers, queues)
    jobs = [(consumer, job) for consumer in found for job in consumer.jobs.values()]
    if as_json:
        print_json(
            [
                {
                    "name": job.name,
                    "queue": consumer.queue,
                    "bind": list(consumer.bind),
                    "match": job.match,
                    "aliases": list(job.aliases),
                    "signature": str(job.signature),
                    "raw": job.signature.is_raw,
                    "runs": "loop" if job.is_async else "thread",
                    "timeout": job.timeout,
                    "max_attempts": job.retry.max_attempts,
                    "priority": job.priority,
                    "description": (job.function.__doc__ or "").strip().partition("\n")[0],
                }
                for consumer, job in jobs
            ]
        )
        return
    print_table(
        ["job", "queue", "parameters", "runs in", "timeout", "attempts"],
        [
            (
                job.name + (f" ({job.match})" if job.match else ""),
                consumer.queue,
                str(job.signature),
                "loop" if job.is_async else "thread",
                text(job.timeout),
                job.retry.max_attempts or "by strategy",
            )
            for consumer, job in jobs
        ],
        empty="no jobs declared",
    )

"""`brokerjobs consume QUEUE…`: run a worker until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brokerjobs import __version__, discovery, logs, settings, tracing
from brokerjobs.cli.answering import answering
from brokerjobs.cli.completion import complete_queue
from brokerjobs.cli.exits import DONE, DRAIN_TIMEOUT
from brokerjobs.cli.options import consumers_option, namespace_option, url_option
from brokerjobs.cli.signals import end_at_once, end_stuck, on_signals
from brokerjobs.durations import seconds
from brokerjobs.metrics import Metrics
from brokerjobs.settings import Settings
from brokerjobs.supervisor.child import GRACE
from brokerjobs.supervisor.parent import Parent, attach
from brokerjobs.supervisor.reporter import Reporter
from brokerjobs.vitals import Vitals

if TYPE_CHECKING:
    from brokerjobs.worker import Worker

# Objects kept since the last look for garbage, after which Python looks again; and what it would do by itself.
GARBAGE = 2_000
PYTHONS_OWN = gc.get_threshold()


@click.command()
@click.argument("queues", nargs=-1, metavar="QUEUE…", shell_complete=complete_queue)
@click.option("-p", "--processes", type=click.IntRange(1, 1000), help="Worker processes [1].")
@click.option(
    "-c", "--concurrency", type=click.IntRange(1), help="Jobs that run at once, per queue and process [10]."
)
@click.option(
    "--prefetch", type=click.IntRange(1, 65535), help="Unacknowledged deliveries per queue [as many as run]."
)
@click.option(
    "--strict", is_flag=True, help="Queues in order: one runs only while those before it are empty."
)
@click.option(
    "--burst", is_flag=True, help="End when all queues are empty; waiting retries are not waited for."
)
@click.option(
    "--reload", "reloading", is_flag=True, help="Restart when a Python file changes (for development)."
)
@click.option("--recycle-jobs", type=click.IntRange(1), help="Replace a process after so many jobs.")
@click.option("--recycle-memory", metavar="SIZE", help="Replace a process that occupies so much, say 512MiB.")
@click.option(
    "--recycle-threads", type=click.IntRange(1), help="Replace a process that left so many threads behind."
)
@click.option("--drain-timeout", metavar="DURATION", help="How long SIGTERM lets running jobs finish [25s].")
@click.option(
    "--start-timeout", metavar="DURATION", default="30s", help="How long to wait for a first broker [30s]."
)
@click.option(
    "--topology", type=click.Choice(["declare", "check", "none"]), help="What to do about queues [declare]."
)
@click.option(
    "--metrics-port", metavar="PORT", help="Serve metrics and health here [9464]; 0 is a free port, or none."
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]))
@consumers_option
@namespace_option
@url_option
def command(
    queues: tuple[str, ...], strict: bool, burst: bool, reloading: bool, start_timeout: str, **given: Any
) -> int:
    """Run the jobs of one or more queues; all that the package declares when none is named.

    Side by side, each queue has its own --concurrency, so that a slow one cannot hold up the others.
    SIGTERM and Ctrl-C drain: nothing new starts, running jobs finish, the rest goes back. A second one ends at once.

    Exit codes: 0 drained, 1 failure, 2 usage, 69 no broker, 75 drained but jobs had to be given back,
    78 configuration, 130 ended at once.
    """
    parent = attach()
    chosen, sources = settings.load_with_sources(given)
    patience = seconds(start_timeout, name="--start-timeout")
    logs.configure(chosen.log_level, chosen.log_format, arguments=chosen.log_arguments)
    if parent is not None and parent.wants_reports:
        logs.name(pid=os.getpid())
    tracing.instrument()
    if parent is None and _wants_parent(chosen):
        from brokerjobs.cli.supervise import supervise  # which the workers themselves do without

        if reloading:
            raise click.UsageError("--reload runs one process, so leave out --processes and --recycle-…, "
                                   "or give --processes 1")  # fmt: skip
        return supervise(chosen, burst=burst, start_timeout=patience)
    if parent is None and reloading:
        from brokerjobs.cli.reload import Reloader, child_command

        if sources["metrics_port"] == "default":  # developers run several side by side
            os.environ["BROKERJOBS_METRICS_PORT"] = "none"
        return Reloader(child_command(), Path.cwd(), chosen.drain_timeout + GRACE).run()
    return _run(lambda: _consume(queues, chosen, strict, burst, patience, parent))


def _wants_parent(chosen: Settings) -> bool:
    """Whether there is anything to supervise: only a parent can replace a worker."""
    limits = (chosen.recycle_jobs, chosen.recycle_memory, chosen.recycle_threads)
    return chosen.processes > 1 or any(limit is not None for limit in limits)


async def _consume(
    queues: tuple[str, ...],
    chosen: Settings,
    strict: bool,
    burst: bool,
    start_timeout: float,
    parent: Parent | None,
) -> int:
    from brokerjobs.client import Client
    from brokerjobs.transport import use_sender
    from brokerjobs.worker import Worker

    consumers = discovery.find(chosen.consumers, queues)
    _collect_rarely()
    metrics = Metrics()
    worker = Worker(
        consumers,
        chosen,
        strict=strict,
        burst=burst,
        start_timeout=start_timeout,
        metrics=metrics,
    )
    vitals = Vitals(worker.health, __version__)
    with ExitStack() as stack:
        if parent is not None and parent.wants_reports:  # which answers for all of its children
            vitals.begin()
            stack.callback(vitals.end)
        else:
            stack.enter_context(answering(chosen, vitals, metrics.registry))
        on_signals(worker.stop, end_at_once, patience=chosen.drain_timeout + GRACE, overdue=end_stuck)
        reporter = Reporter(metrics, vitals, with_metrics=chosen.metrics_port is not None)
        telling = _attend(parent, worker, reporter, chosen) if parent else None
        client = Client(settings=chosen, metrics=metrics)
        before = use_sender(client)  # jobs that send jobs use the worker's broker
        try:
            ending = await worker.run()
        finally:
            if parent is not None and telling is not None:
                telling.cancel()
                parent.tell()
            use_sender(before)
            await client.aclose()
    return DRAIN_TIMEOUT if ending.returned else DONE


def _collect_rarely() -> None:
    """What was imported stays, and jobs leave little garbage that holds itself: to look for it took a tenth of all.

    Consumers whose jobs leave much set a threshold of their own when they are imported, which holds.
    """
    gc.freeze()
    if gc.get_threshold() == PYTHONS_OWN:
        gc.set_threshold(GARBAGE)


def _attend(parent: Parent, worker: Worker, reporter: Reporter, chosen: Settings) -> asyncio.Task[None]:
    """Drain when the parent says so or is gone, and tell it how this process does."""
    loop = asyncio.get_running_loop()

    def drain() -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(worker.stop)

    async def tell() -> None:
        await worker.consuming()
        reporter.is_consuming = True
        await asyncio.to_thread(parent.tell)

    parent.attend(drain, chosen.drain_timeout + GRACE, reporter.report)
    return asyncio.create_task(tell())


def _run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run on uvloop where there is one."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())

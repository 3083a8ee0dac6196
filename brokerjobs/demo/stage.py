"""All that runs beside RabbitMQ during a demo: brought up in order, taken down in reverse."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from brokerjobs import settings as settings_module
from brokerjobs.demo.holdings import Namespace
from brokerjobs.demo.mailbox import HOST, Mailbox
from brokerjobs.demo.plan import QUEUES, Plan
from brokerjobs.demo.worker import WorkerProcess
from brokerjobs.errors import BrokerJobsError
from brokerjobs.settings import Settings

NAMESPACE = "brokerjobs-demo"
ROOT = Path(__file__).resolve().parents[2]  # where `consumers` lies beside `brokerjobs`
WAIT_FACTOR = 0.01  # a payment waits 0.1, 0.3, 0.9 and 2.7 s instead of 10, 30, 90 and 270
UNKNOWN_JOB_DELAY = 1.0  # seconds instead of 30
DRAIN_TIMEOUT = 5.0  # seconds


class DemoFailed(BrokerJobsError):
    """The demo could not be brought to its end."""


@dataclass(slots=True)
class Stage:
    """What a demo works with.

    Args:
        plan: what is to happen.
        settings: of the broker and the demo's namespace in it.
        folder: for files.
        mailbox: the mail server.
        namespace: the queues.
        worker: the worker.
        keep_folder: leave the files behind.
    """

    plan: Plan
    settings: Settings
    folder: Path
    mailbox: Mailbox
    namespace: Namespace
    worker: WorkerProcess
    keep_folder: bool = False

    def order_states(self) -> Counter[str]:
        """How many orders are in which state."""
        with closing(sqlite3.connect(_database(self.folder), timeout=10)) as database:
            return Counter(dict(database.execute("SELECT state, count(*) FROM orders GROUP BY state")))


@asynccontextmanager
async def set_up(
    url: str, plan: Plan, *, seed: int, keep: bool, say: Callable[[str], object]
) -> AsyncIterator[Stage]:
    """A mail server, an empty namespace, and a worker that has been started.

    Args:
        url: where RabbitMQ is.
        plan: its faults go to the mail server.
        seed: goes to the payment gateway.
        keep: leave queues and files behind.
        say: is told what happens.

    Raises:
        DemoFailed: another demo uses this RabbitMQ.
        ConnectionLost: this RabbitMQ has gone away.
        BrokerUnreachable, ConfigurationError: no RabbitMQ there, or none that can be used.
    """
    settings = settings_module.load(url=url, namespace=NAMESPACE)
    async with Mailbox(plan.busy, plan.unknown) as mailbox, Namespace(settings, QUEUES) as namespace:
        await _take(namespace, say)
        folder = Path(tempfile.mkdtemp(prefix="brokerjobs-demo-"))
        worker = WorkerProcess(QUEUES, folder, ROOT, _environment(url, folder, mailbox, seed))
        stage = Stage(plan, settings, folder, mailbox, namespace, worker, keep_folder=keep)
        try:
            yield stage
        except Exception:
            stage.keep_folder = True
            say(f"the worker's log tells more: {worker.log}")
            raise
        finally:
            await asyncio.to_thread(worker.stop)
            if not keep:
                with suppress(ConnectionError):  # a broker that has gone holds nothing of ours in the way
                    await namespace.clear()
            if not stage.keep_folder:
                shutil.rmtree(folder, ignore_errors=True)


async def _take(namespace: Namespace, say: Callable[[str], object]) -> None:
    if await namespace.is_consumed():
        raise DemoFailed(
            f"a worker consumes the namespace {NAMESPACE!r} of this RabbitMQ already: is another demo running? "
            "End it first, or give this one another RabbitMQ by BROKERJOBS_URL"
        )
    if await namespace.exists():
        say(f"removing what an earlier demo left in the namespace {NAMESPACE!r}")
        await namespace.clear()


def _environment(url: str, folder: Path, mailbox: Mailbox, seed: int) -> dict[str, str]:
    """The worker's: the demo decides about all settings, whatever the person's own are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(settings_module.PREFIX)}
    return kept | {
        "BROKERJOBS_URL": url,
        "BROKERJOBS_NAMESPACE": NAMESPACE,
        "BROKERJOBS_LOG_FORMAT": "json",
        "BROKERJOBS_UNKNOWN_JOB_DELAY": str(UNKNOWN_JOB_DELAY),
        "BROKERJOBS_DRAIN_TIMEOUT": str(DRAIN_TIMEOUT),
        "SMTP_HOST": HOST,
        "SMTP_PORT": str(mailbox.port),
        "ORDERS_DATABASE": str(_database(folder)),
        "ORDERS_GATEWAY_SEED": str(seed),
        "ORDERS_WAIT_FACTOR": str(WAIT_FACTOR),
    }


def _database(folder: Path) -> Path:
    return folder / "orders.db"

"""`brokerjobs`, with failpoints between confirm and acknowledgement, and with samples of what the process holds.

    python -m tests.chaos.entry consume …

A failpoint is set by a file `failpoint-<process>` in the journals' folder that holds the gap and what to do there:
`retried exit`. Who reaches that gap first takes the file, and with it the fate.

    succeeded   the job is done, its message not yet acknowledged
    retried     the copy for the next attempt is confirmed, the original not yet acknowledged
    dead        the dead letter is confirmed, the original not yet acknowledged
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from brokerjobs import cli
from brokerjobs.amqp.connection import ConnectionLost
from brokerjobs.amqp.delivery import Delivery
from brokerjobs.amqp.settlement import Settlement
from brokerjobs.outcome import Outcome, word
from brokerjobs.worker import Ending, Worker
from tests.chaos.journal import FOLDER, NAME, Journal, of_this_process

GAPS = ("succeeded", "retried", "dead")
DEEDS = ("exit", "raise", "stall")
STALL = 6.0  # seconds
SAMPLING = 2.0

_gap: ContextVar[str] = ContextVar("gap", default="")


def failpoint(folder: Path, process: str) -> Path:
    return folder / f"failpoint-{process}"


class Failpoints:
    """Stands between the settlement and the acknowledgement of each delivery."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._path = failpoint(Path(os.environ[FOLDER]), os.environ[NAME])
        self._settle = Settlement.settle
        self._ack = Delivery.ack

    def install(self) -> None:
        failpoints = self

        async def settle(settlement: Settlement, delivery: Delivery, outcome: Outcome) -> None:
            token = _gap.set(word(outcome))
            try:
                await failpoints._settle(settlement, delivery, outcome)
            finally:
                _gap.reset(token)

        async def ack(delivery: Delivery) -> None:
            await failpoints.reach(_gap.get(), delivery)
            await failpoints._ack(delivery)

        _replace(Settlement, settle)
        _replace(Delivery, ack)

    async def reach(self, gap: str, delivery: Delivery) -> None:
        """Do here what the file asks for, if it means this gap."""
        if not self._path.exists():
            return
        wanted, deed = self._path.read_text().split()
        if wanted != gap:
            return
        self._path.unlink()
        id = str(delivery.properties.get("message_id"))
        self._journal.note("failpoint", id=id, text=f"{gap} {deed}", pid=os.getpid())
        match deed:
            case "exit":
                self._journal.note("died", pid=os.getpid())
                os._exit(9)
            case "raise":
                raise ConnectionLost("a failpoint")
            case _:
                await asyncio.sleep(STALL)  # noqa: TID251


def held(pid: int) -> dict[str, int]:
    """What a process holds: threads, descriptors, bytes of memory."""
    process = Path(f"/proc/{pid}")
    status = dict(_fields((process / "status").read_text()))
    return {
        "threads": int(status["Threads"]),
        "descriptors": len(list((process / "fd").iterdir())),
        "memory": int(status["VmRSS"].split()[0]) * 1024,
    }


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        yield name, value.strip()


def count_tasks(journal: Journal) -> None:
    """Let workers tell now and then what their process holds; its tasks nobody else can count."""
    original = Worker.run

    async def sample() -> None:
        while True:
            await asyncio.sleep(SAMPLING)  # noqa: TID251
            tasks = len(asyncio.all_tasks())
            journal.note("sample", process=os.environ[NAME], tasks=tasks, **held(os.getpid()))

    async def run(worker: Worker) -> Ending:
        sampling = asyncio.create_task(sample())
        try:
            return await original(worker)
        finally:
            sampling.cancel()

    _replace(Worker, run)


def _replace(kind: type, method: Callable[..., Any]) -> None:
    setattr(kind, method.__name__, method)


def main() -> None:
    journal = of_this_process()
    Failpoints(journal).install()
    count_tasks(journal)
    cli.main()


if __name__ == "__main__":
    main()

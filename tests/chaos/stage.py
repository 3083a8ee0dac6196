"""Where a run happens: a broker, proxies in front of it, workers and publishers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from brokerjobs.node.fetch import default_cache, fetch
from brokerjobs.node.private import PrivateNode
from tests.chaos import operator
from tests.chaos.cluster import Cluster
from tests.chaos.entry import held
from tests.chaos.fleet import Fleet, Member
from tests.chaos.journal import Journal
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Plan
from tests.chaos.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
SECOND = "second"
QUEUES = ("swift", "steady", "brief")
SAMPLING = 2.0
# What a delay level moves onward is tried again after this when its target did not confirm; 180 s by default.
ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 10000}]}].\n"


class Stage:
    """Everything that runs, and the ledger of it.

    Args:
        plan: what for.
        folder: for journals; a temporary one, removed at the end, when None.
    """

    def __init__(self, plan: Plan, folder: Path | None = None) -> None:
        self.plan = plan
        self._stack = ExitStack()
        self.folder = folder or Path(self._stack.enter_context(_temporary_folder()))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(self.folder)
        self.journal = Journal(self.folder / "nemesis.jsonl")
        self._sampled = 0.0
        self.disk: operator.Disk | None = None
        self.proxies: dict[str, Proxy] = {}

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def node(self) -> PrivateNode:
        """The broker, or a node of it that runs."""
        return self.cluster.node

    @property
    def version(self) -> str:
        return ".".join(map(str, self.node.version))

    def look(self) -> None:
        """Take in what has been journalled, and what processes hold by now."""
        self.ledger.read()
        if time.monotonic() - self._sampled > SAMPLING:
            self._sampled = time.monotonic()
            for member in list(self.fleet.members.values()):
                if "tests.chaos.entry" not in member.command and member.process is not None:
                    with suppress(OSError, KeyError):
                        self.journal.note("sample", process=member.title, **held(member.pid))

    def victims(self, what: str) -> tuple[str, ...]:
        """Members that may be killed or frozen: never worker-a, whose growth is measured."""
        return tuple(name for name in _VICTIMS[what] if name in self.fleet.members)

    def _open(self) -> None:
        self.cluster = self._stack.enter_context(self._make_cluster())
        for user in "worker", "publisher":
            operator.add_user(self.node, user)
            self.proxies[f"{user}s"] = self._stack.enter_context(Proxy(*self.cluster.ports))
        self.fleet = Fleet(self.folder, _environment(self.plan))
        self._stack.callback(self.fleet.close)
        for member in _workers(self._url("worker"), second_type(self.node), self.plan):
            self.fleet.add(member)
        self.fleet.wait_consuming()
        for member in _publishers(self._url("publisher"), self.plan):
            self.fleet.add(member)

    def _make_cluster(self) -> Cluster:
        installation = fetch(self.plan.rabbitmq, default_cache())
        conf = f"disk_free_limit.absolute = {operator.DISK_LIMIT}"
        if self.plan.cluster:
            return Cluster.of(installation, conf=conf, advanced=ADVANCED)
        folder = None
        if "disk-full" in (self.plan.faults or ("disk-full",)) and operator.Disk.is_possible():
            disk = operator.Disk(Path(self._stack.enter_context(_temporary_folder())) / "disk")
            with suppress(subprocess.CalledProcessError):
                disk.mount()
                self._stack.callback(disk.unmount)
                self.disk, folder = disk, disk.folder / "node"
        return Cluster([PrivateNode(installation, conf=conf, advanced=ADVANCED, folder=folder)])

    def _url(self, user: str) -> str:
        return f"amqp://{user}:{operator.PASSWORD}@127.0.0.1:{self.proxies[f'{user}s'].port}/%2F"


_VICTIMS = {
    "worker": ("worker-c", "worker-d", "worker-e"),
    "publisher": ("publisher-a", "publisher-b"),
    "entry": ("worker-b", "worker-d"),
}


def second_type(node: PrivateNode) -> str:
    """The type of the second namespace's queues: not that which the first gets by itself."""
    return "classic" if node.version >= (4, 3) else "quorum"


def _workers(url: str, second: str, plan: Plan) -> list[Member]:
    consume = ("consume", *QUEUES)
    plain, watched = ("-m", "brokerjobs", *consume), ("-m", "tests.chaos.entry", *consume)
    first = {"BROKERJOBS_URL": url}
    other = {**first, "BROKERJOBS_NAMESPACE": SECOND, "BROKERJOBS_QUEUE_TYPE": second}
    members = [
        Member("worker-a", watched, first),  # lives through it all
        Member("worker-c", plain, first),
        Member("worker-d", watched, other),
        Member("worker-b", watched, first),
        Member("worker-e", plain, other),
    ]
    return members[:3] if plan.is_small else members


def _publishers(url: str, plan: Plan) -> list[Member]:
    def member(name: str, style: str, seed: int) -> Member:
        command = ("-m", "tests.chaos.publisher", style, str(plan.rate / 2), str(seed), "", SECOND)
        return Member(name, command, {"BROKERJOBS_URL": url})

    return [
        member("publisher-a", "blocking", 2 * plan.seed),
        member("publisher-b", "asyncio", 2 * plan.seed + 1),
    ]


def environment(**more: str) -> dict[str, str]:
    """For all processes of a run: the jobs of this package, and nothing of the developer's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BROKERJOBS_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "BROKERJOBS_CONSUMERS": "tests.chaos.consumers",
        "BROKERJOBS_LOG_FORMAT": "json",
        **more,
    }


def _environment(plan: Plan) -> dict[str, str]:
    return environment(
        BROKERJOBS_HEARTBEAT=str(plan.heartbeat),
        BROKERJOBS_CONNECT_TIMEOUT="5s",
        BROKERJOBS_SWEEP_INTERVAL="2s",
        BROKERJOBS_DRAIN_TIMEOUT="10s",
    )


class _temporary_folder:  # noqa: N801  (read as a function)
    def __enter__(self) -> str:
        self._path = tempfile.mkdtemp(prefix="brokerjobs-chaos-")
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)

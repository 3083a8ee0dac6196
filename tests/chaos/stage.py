"""Where a run happens: a broker, proxies in front of it, workers and publishers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from brokerjobs.node.fetch import default_cache, fetch
from brokerjobs.node.private import PrivateNode
from tests.chaos import operator
from tests.chaos.cluster import Cluster, running, three
from tests.chaos.entry import held
from tests.chaos.fleet import Fleet, Member
from tests.chaos.journal import Journal
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Plan
from tests.chaos.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
SECOND = "second"
USERS = ("worker", "publisher")
QUEUES = ("swift", "steady", "brief")
SAMPLING = 2.0
# What a delay level moves onward is tried again after this when its target did not confirm; 180 s by default.
ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 10000}]}].\n"


@dataclass
class Stage:
    """Everything that runs, and the ledger of it.

    Args:
        plan: what for.
        folder: for journals.
        cluster: the broker.
        proxies: before the broker, by who goes through them: `workers`, `publishers`.
        fleet: the workers and publishers.
        disk: that of the broker, where it has one of its own.
    """

    plan: Plan
    folder: Path
    cluster: Cluster
    proxies: Mapping[str, Proxy]
    fleet: Fleet
    disk: operator.Disk | None = None

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.folder)
        self.journal = Journal(self.folder / "nemesis.jsonl")
        self._sampled = 0.0

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
            members = self.fleet.members.values()
            samplers = {member.title for member in members if "tests.chaos.entry" in member.command}
            for name, pid in self.fleet.measured():
                if name in samplers:  # these tell of themselves
                    continue
                with suppress(OSError, KeyError):
                    self.journal.note("sample", process=name, **held(pid))

    def victims(self, what: str) -> tuple[str, ...]:
        """Members that may be killed or frozen: never worker-a, whose growth is measured."""
        return tuple(name for name in _VICTIMS[what] if name in self.fleet.members)

    def open(self) -> None:
        """Let workers consume, then publishers send."""
        for member in _workers(self._url("worker"), second_type(self.node), self.plan):
            self.fleet.add(member)
        self.fleet.wait_consuming()
        for member in _publishers(self._url("publisher"), self.plan):
            self.fleet.add(member)

    def _url(self, user: str) -> str:
        return f"amqp://{user}:{operator.PASSWORD}@127.0.0.1:{self.proxies[f'{user}s'].port}/%2F"


@contextmanager
def set_stage(plan: Plan, folder: Path | None = None) -> Iterator[Stage]:
    """Start everything, and end it.

    Args:
        plan: what for.
        folder: for journals; a temporary one, removed at the end, when None.
    """
    with ExitStack() as stack:
        folder = folder or _temporary_folder(stack)
        folder.mkdir(parents=True, exist_ok=True)
        disk = _disk(stack) if "disk-full" in (plan.faults or ("disk-full",)) and not plan.cluster else None
        cluster = stack.enter_context(running(_nodes(plan, disk)))
        proxies = {}
        for user in USERS:
            operator.add_user(cluster.node, user)
            proxies[f"{user}s"] = stack.enter_context(Proxy(*cluster.ports))
        fleet = stack.enter_context(closing(Fleet(folder, _environment(plan))))
        made = Stage(plan, folder, cluster, proxies, fleet, disk)
        made.open()
        yield made


def _nodes(plan: Plan, disk: operator.Disk | None) -> list[PrivateNode]:
    installation = fetch(plan.rabbitmq, default_cache())
    conf = f"disk_free_limit.absolute = {operator.DISK_LIMIT}"
    if plan.cluster:
        return three(installation, conf=conf, advanced=ADVANCED)
    folder = disk.folder / "node" if disk is not None else None
    return [PrivateNode(installation, conf=conf, advanced=ADVANCED, folder=folder)]


def _disk(stack: ExitStack) -> operator.Disk | None:
    """One for the broker alone, where this machine lets us have it."""
    if not operator.Disk.is_possible():
        return None
    disk = operator.Disk(_temporary_folder(stack) / "disk")
    try:
        disk.mount()
    except subprocess.CalledProcessError:
        return None
    stack.callback(disk.unmount)
    return disk


def _temporary_folder(stack: ExitStack) -> Path:
    return Path(
        stack.enter_context(TemporaryDirectory(prefix="brokerjobs-chaos-", ignore_cleanup_errors=True))
    )


_VICTIMS = {
    "worker": ("worker-c", "worker-d", "worker-e"),
    "publisher": ("publisher-a", "publisher-b"),
    "entry": ("worker-b", "worker-d"),
    "parent": ("worker-f",),
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
        Member(
            "worker-f", (*plain, "--processes", "2"), {**other, "BROKERJOBS_METRICS_PORT": "0"}, children=2
        ),
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
        "BROKERJOBS_METRICS_PORT": "none",
        **more,
    }


def _environment(plan: Plan) -> dict[str, str]:
    return environment(
        BROKERJOBS_HEARTBEAT=str(plan.heartbeat),
        BROKERJOBS_CONNECT_TIMEOUT="5s",
        BROKERJOBS_SWEEP_INTERVAL="2s",
        BROKERJOBS_DRAIN_TIMEOUT="10s",
    )

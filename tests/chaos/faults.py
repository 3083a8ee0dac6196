"""The faults. Each is a generator: it yields what it hits, breaks it, yields for how long, and mends it.

One that cannot fire now ends before the first yield.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from brokerjobs.node.private import PrivateNode
from tests.chaos import leftovers, operator
from tests.chaos.entry import DEEDS, GAPS, STALL, failpoint
from tests.chaos.fleet import Fleet, Member
from tests.chaos.proxy import Mode
from tests.chaos.stage import SECOND, Stage, second_type
from tests.waiting import eventually

Course = Iterator[str | float]

SETTLED = (
    2.5  # seconds after the declare of a quorum queue during which its node is not killed (a broker defect)
)
REACHED = 20.0  # seconds for a failpoint to be reached
SHORT, LONG = (1.0, 4.0), (3.0, 8.0)  # seconds that a fault lasts
# Some of these outlast the heartbeats, some do not.
FREEZE = (3.0, 8.0, 20.0)


@dataclass(slots=True)
class Scene:
    """What faults act on.

    Args:
        stage: the processes, the broker, the proxies.
        rng: seeded.
        fired: how often each kind has fired, so that the next time can be another way.
    """

    stage: Stage
    rng: random.Random
    fired: dict[str, int]

    @property
    def node(self) -> PrivateNode:
        return self.stage.node

    def turn(self, kind: str) -> int:
        return self.fired.get(kind, 0)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Args:
        name: `broker-kill`.
        effects: see `history.Fault`.
        course: makes it happen.
        cluster: whether it is for a cluster, or for a single node; None for both.
        where: whether this machine can have it at all.
    """

    name: str
    effects: frozenset[str]
    course: Callable[[Scene], Course]
    cluster: bool | None = None
    where: Callable[[Stage], bool] = lambda _: True


def broker_kill(scene: Scene) -> Course:
    yield "broker"
    scene.node.kill()
    yield scene.rng.uniform(*SHORT)
    scene.node.start()


def holder_kill(kind: str, scene: Scene) -> Course:
    """Kill the node that holds a queue of this type, and start it again; the other two go on."""
    namespaces = {second_type(scene.node): f"{SECOND}."}
    queue = namespaces.get(kind, "") + scene.rng.choice(("swift", "steady"))
    node = scene.stage.cluster.holder(queue)
    yield f"{node.name}, which holds {queue}"
    node.kill()
    yield scene.rng.uniform(*LONG)
    node.start()


def broker_stop(scene: Scene) -> Course:
    yield "broker"
    scene.node.pause()
    yield scene.rng.choice(FREEZE)
    scene.node.resume()


def connections_closed(scene: Scene) -> Course:
    yield "workers and publishers"
    for user in "worker", "publisher":
        operator.close_connections(scene.node, user)
    yield 0.0


def memory_alarm(scene: Scene) -> Course:
    yield "broker"
    operator.memory_alarm(scene.node, True)
    yield scene.rng.uniform(*LONG)
    operator.memory_alarm(scene.node, False)


def disk_alarm(scene: Scene) -> Course:
    yield "broker"
    operator.disk_alarm(scene.node, True)
    yield scene.rng.uniform(*LONG)
    operator.disk_alarm(scene.node, False)


def disk_full(scene: Scene) -> Course:
    disk = scene.stage.disk
    assert disk is not None
    yield "broker"
    disk.fill()
    yield scene.rng.uniform(*LONG)
    disk.empty()
    scene.node.restart(kill=True)


def kill(prefix: str, scene: Scene) -> Course:
    name = scene.rng.choice(scene.stage.victims(prefix))
    yield scene.stage.fleet.members[name].title
    scene.stage.fleet.kill(name)
    yield 1.0


def child_kill(scene: Scene) -> Course:
    """Kill one process of several under a parent, which has to start another."""
    fleet = scene.stage.fleet
    member = fleet.members[scene.rng.choice(scene.stage.victims("parent"))]
    with suppress(AssertionError):
        child = scene.rng.choice(fleet.wait_at_work(member))
        yield f"{member.title}, its child {child}"
        fleet.kill(member.name, child)
        yield 1.0
        _see_at_work(fleet, member)


def parent_stop(scene: Scene) -> Course:
    """Freeze a parent: its children go on; and one that dies meanwhile it replaces later."""
    fleet = scene.stage.fleet
    member = fleet.members[scene.rng.choice(scene.stage.victims("parent"))]
    with suppress(AssertionError):
        children = fleet.wait_at_work(member)
        yield member.title
        fleet.send(member.name, signal.SIGSTOP)
        noted = {child: fleet.noted(member, child) for child in children}
        yield scene.rng.choice(FREEZE)
        for child in children:
            if fleet.noted(member, child) == noted[child]:
                fleet.defect(member, f"while it stood still, its child {child} ran nothing")
        fleet.kill(member.name, scene.rng.choice(children))
        fleet.send(member.name, signal.SIGCONT)
        _see_at_work(fleet, member)


def _see_at_work(fleet: Fleet, member: Member) -> None:
    try:
        fleet.wait_at_work(member)
    except AssertionError as error:
        fleet.defect(member, str(error))


def stop(prefix: str, scene: Scene) -> Course:
    name = scene.rng.choice(scene.stage.victims(prefix))
    yield scene.stage.fleet.members[name].title
    scene.stage.fleet.send(name, signal.SIGSTOP)
    yield scene.rng.choice(FREEZE)
    scene.stage.fleet.send(name, signal.SIGCONT)


def network(mode: Mode, scene: Scene) -> Course:
    """One role after the other, then both."""
    roles = (["workers"], ["publishers"], ["workers", "publishers"])[scene.turn(mode) % 3]
    yield " and ".join(roles)
    for role in roles:
        scene.stage.proxies[role].set(mode)
    yield 0.0 if mode == "reset" else scene.rng.choice(FREEZE) if "hole" in mode else scene.rng.uniform(*LONG)
    for role in roles:
        scene.stage.proxies[role].set("pass")


def queue_deleted(scene: Scene) -> Course:
    queue = scene.rng.choice(("brief", f"{SECOND}.brief"))
    yield queue
    operator.delete_queue(scene.node, queue)
    eventually(lambda: queue in leftovers.queues(scene.node), what=f"{queue} is declared again")
    yield SETTLED


def permission_revoked(scene: Scene) -> Course:
    user = ("worker", "publisher")[scene.turn("permission-revoked") % 2]
    yield user
    operator.forbid(scene.node, user)
    yield scene.rng.uniform(*LONG)
    operator.permit(scene.node, user)


def failpoint_reached(deed: str, scene: Scene) -> Course:
    gap = GAPS[scene.turn(f"failpoint-{deed}") % len(GAPS)]
    member = scene.stage.fleet.members[scene.rng.choice(scene.stage.victims("entry"))]
    path = failpoint(scene.stage.folder, member.title)
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(f"{gap} {deed}")
    draft.rename(path)  # nobody reads half of it
    with suppress(AssertionError):
        eventually(lambda: not path.exists(), timeout=REACHED)
    with suppress(FileNotFoundError):
        path.unlink()
        return
    yield member.title
    if deed == "stall" and scene.rng.random() < 0.5:
        operator.close_connections(scene.node, "worker")
    yield STALL if deed == "stall" else 0.5


def _kind(name: str, effects: str, course: Callable[[Scene], Course], **more: object) -> Kind:
    return Kind(name, frozenset(effects.split()), course, **more)  # type: ignore[arg-type]


KINDS = {
    kind.name: kind
    for kind in (
        _kind("broker-kill", "resend undo echo", broker_kill, cluster=False),
        _kind("leader-kill", "resend undo echo", partial(holder_kill, "quorum"), cluster=True),
        _kind("home-kill", "resend undo echo", partial(holder_kill, "classic"), cluster=True),
        _kind("broker-stop", "resend echo", broker_stop, cluster=False),
        _kind("connections-closed", "resend", connections_closed),
        _kind("memory-alarm", "resend", memory_alarm, cluster=False),
        _kind("disk-alarm", "resend", disk_alarm, cluster=False),
        _kind(
            "disk-full",
            "resend undo echo",
            disk_full,
            cluster=False,
            where=lambda stage: stage.disk is not None,
        ),
        _kind("worker-kill", "", partial(kill, "worker")),
        *(
            _kind(name, "", course, where=lambda stage: bool(stage.victims("parent")))
            for name, course in (
                ("parent-kill", partial(kill, "parent")),
                ("parent-stop", parent_stop),
                ("child-kill", child_kill),
            )
        ),
        _kind("worker-stop", "freeze resend", partial(stop, "worker")),
        _kind("publisher-kill", "", partial(kill, "publisher")),
        _kind("publisher-stop", "resend", partial(stop, "publisher")),
        *(
            _kind(mode, "resend", partial(network, mode))
            for mode in ("latency", "hole-in", "hole-out", "half-open", "cut", "flip", "trickle", "reset")
        ),
        _kind("queue-deleted", "delete", queue_deleted),
        _kind("permission-revoked", "resend", permission_revoked),
        *(
            # A stall may close all connections of workers, on which copies are on their way.
            _kind(f"failpoint-{deed}", "resend" if deed == "stall" else "", partial(failpoint_reached, deed))
            for deed in DEEDS
        ),
    )
}

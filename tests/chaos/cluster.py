"""Private nodes that are one broker: three that find each other by their configuration when they start, or just one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from urllib.parse import quote

from brokerjobs.node.installation import Installation
from brokerjobs.node.private import PrivateNode
from tests.conftest import management

SIZE = 3
START = 180.0  # seconds


class Cluster:
    """Nodes that are one broker.

    Args:
        nodes: that have joined each other.
    """

    def __init__(self, nodes: Sequence[PrivateNode]) -> None:
        self.nodes = nodes

    @property
    def ports(self) -> list[int]:
        return [node.ports.amqp for node in self.nodes]

    @property
    def node(self) -> PrivateNode:
        """One that runs, if any does."""
        return next((node for node in self.nodes if node.is_running), self.nodes[0])

    def holder(self, queue: str) -> PrivateNode:
        """The node of a queue's leader; the home node of a classic one."""
        told = json.loads(management(self.node, "GET", f"/api/queues/%2F/{quote(queue, safe='')}"))
        name = told.get("leader") or told["node"]
        return next(node for node in self.nodes if node.name == name)


def three(installation: Installation, *, conf: str, advanced: str) -> list[PrivateNode]:
    """Nodes that will find each other when they start."""
    nodes = [PrivateNode(installation, advanced=advanced) for _ in range(SIZE)]
    peers = ["cluster_formation.peer_discovery_backend = classic_config"]
    peers += [
        f"cluster_formation.classic_config.nodes.{number} = {node.name}"
        for number, node in enumerate(nodes, 1)
    ]
    for node in nodes:
        node.conf = "\n".join([conf, *peers])
    return nodes


@contextmanager
def running(nodes: Sequence[PrivateNode]) -> Iterator[Cluster]:
    """Start them all, and end them all."""
    with ExitStack() as stack:
        for node in nodes:
            stack.enter_context(closing(node))
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.wait_ready(START)
        yield Cluster(nodes)

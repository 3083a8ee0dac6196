"""Three nodes that find each other by their configuration when they start."""

from __future__ import annotations

import json
from contextlib import ExitStack
from types import TracebackType
from typing import Self
from urllib.parse import quote

from brokerjobs.node.installation import Installation
from brokerjobs.node.private import PrivateNode
from tests.conftest import management

SIZE = 3
START = 180.0  # seconds


class Cluster:
    """Private nodes that are one broker; with one node just that one.

    Args:
        nodes: not started yet.
    """

    def __init__(self, nodes: list[PrivateNode]) -> None:
        self.nodes = nodes
        self._stack = ExitStack()

    @classmethod
    def of(cls, installation: Installation, *, conf: str, advanced: str) -> Cluster:
        nodes = [PrivateNode(installation, advanced=advanced) for _ in range(SIZE)]
        peers = ["cluster_formation.peer_discovery_backend = classic_config"]
        peers += [
            f"cluster_formation.classic_config.nodes.{number} = {node.name}"
            for number, node in enumerate(nodes, 1)
        ]
        for node in nodes:
            node.conf = "\n".join([conf, *peers])
        return cls(nodes)

    def __enter__(self) -> Self:
        for node in self.nodes:
            self._stack.callback(node.close)
        try:
            for node in self.nodes:
                node.start(wait=False)
            for node in self.nodes:
                node.wait_ready(START)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

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

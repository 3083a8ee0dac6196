"""How soon a job begins again elsewhere when its worker is killed or frozen.

    python -m tests.chaos.handover [VERSION]

Two workers, default heartbeat; whoever runs the job is hit. Prints one line of JSON with seconds.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from brokerjobs.client import Client
from brokerjobs.node.fetch import default_cache, fetch
from brokerjobs.node.private import PrivateNode
from tests.chaos.consumers import swift
from tests.chaos.fleet import Fleet, Member
from tests.chaos.history import Run
from tests.chaos.ledger import Ledger
from tests.chaos.stage import environment
from tests.waiting import eventually

KILLS, FREEZES = 10, 3
REST = 60.0  # seconds that a job takes: longer than it takes to notice a frozen worker
PATIENCE = 60.0
SLOTS = "50"  # so that jobs of earlier trials, which go on, stand in no job's way


def measure(version: str) -> dict[str, object]:
    """Kill and freeze; seconds from each blow until its job began again."""
    with (
        tempfile.TemporaryDirectory() as folder,
        PrivateNode(fetch(version, default_cache())) as node,
        Client(node.url) as client,
    ):
        ledger, fleet = Ledger(Path(folder)), Fleet(Path(folder), environment(BROKERJOBS_CONCURRENCY=SLOTS))
        try:
            for name in "worker-a", "worker-b":
                command = ("-m", "brokerjobs", "consume", "swift")
                fleet.add(Member(name, command, {"BROKERJOBS_URL": node.url}))
            fleet.wait_consuming()
            killed = [_blow(client, fleet, ledger, signal.SIGKILL) for _ in range(KILLS)]
            frozen = [_blow(client, fleet, ledger, signal.SIGSTOP) for _ in range(FREEZES)]
        finally:
            fleet.close()
        return {"rabbitmq": ".".join(map(str, node.version)), "killed": killed, "frozen": frozen}


def _blow(client: Client, fleet: Fleet, ledger: Ledger, number: signal.Signals) -> float:
    fleet.wait_consuming()
    message = swift.go.message(rest=REST)
    client.send_message(message)
    victim = _runs(ledger, message.id, 1)[0].worker.partition(".")[0]
    began = time.time()
    if number == signal.SIGKILL:
        fleet.kill(victim)
    else:
        fleet.send(victim, number)
    again = _runs(ledger, message.id, 2)[1]
    fleet.send(victim, signal.SIGCONT)
    return round(again.started - began, 3)


def _runs(ledger: Ledger, id: str, count: int) -> list[Run]:
    def found() -> list[Run]:
        ledger.read()
        return sorted((run for run in ledger.runs if run.id == id), key=lambda run: run.started)

    eventually(lambda: len(found()) >= count, timeout=PATIENCE, what=f"{count} runs of {id}")
    return found()


if __name__ == "__main__":
    print(json.dumps(measure(*(sys.argv[1:] or ["4.3"]))))

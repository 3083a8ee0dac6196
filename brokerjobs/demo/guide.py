"""Where to look, and what to try, while the demo stays."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from brokerjobs.demo.stage import NAMESPACE, ROOT, Stage
from brokerjobs.node.broker import Broker


def guide(broker: Broker, stage: Stage, refused: str | None) -> Iterator[str]:
    """Lines for the person.

    Args:
        broker: the RabbitMQ.
        stage: what else runs.
        refused: id of the mail that died for want of a mailbox.
    """
    yield ""
    if broker.management_url:
        yield f"  management    {broker.management_url}   user guest, password guest"
    else:
        yield "  management    as your RabbitMQ has it, usually on port 15672"
    if broker.log:
        yield f"  its log       {broker.log}"
    yield f"  metrics       {stage.worker.metrics_url}"
    yield f"  worker's log  {stage.worker.log}"
    yield ""
    yield f"Try in another terminal, in {ROOT}:"
    yield f"  export {_exports(broker)}"
    command = _command()
    yield f"  {command} queues"
    yield f"  {command} dead list emails"
    if refused:
        yield f"  {command} dead show emails {refused}"
        yield "  # that mailbox exists by now, so this mail can go out:"
        yield f"  {command} dead replay emails {refused}"
    yield f"  {command} publish emails.welcome '{{\"user_id\": 7}}' --delay 5s"
    yield ""
    yield "Ctrl-C ends the demo, and all that it started."


def _exports(broker: Broker) -> str:
    """The person's own URL is set already, and may hold a password."""
    namespace = f"BROKERJOBS_NAMESPACE={NAMESPACE}"
    if os.environ.get("BROKERJOBS_URL") == broker.url:
        return namespace
    return f"BROKERJOBS_URL={broker.url} {namespace}"


def _command() -> str:
    """How the person can call it: by its name if that is found, else by where it lies."""
    here = Path(sys.executable).parent / "brokerjobs"
    found = shutil.which("brokerjobs")
    if found and Path(found).resolve() == here.resolve():
        return "brokerjobs"
    return str(here.relative_to(ROOT)) if here.is_relative_to(ROOT) else str(here)

"""RabbitMQ by Docker Compose, from the file in docker/ of a checkout."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from brokerjobs.node.command import run
from brokerjobs.node.errors import RabbitMQUnavailable

# As docker/compose.yaml publishes them.
URL = "amqp://guest:guest@127.0.0.1:5672/%2F"
MANAGEMENT_URL = "http://127.0.0.1:15672"

_CHECKOUT = Path(__file__).resolve().parents[2]
_LOOK = 10.0  # seconds; an engine that is stuck does not answer
_PULL_AND_START = 600.0
_STOP = 60.0


def file() -> Path | None:
    """The compose file, if this is a checkout."""
    path = _CHECKOUT / "docker" / "compose.yaml"
    return path if path.is_file() else None


def engine_answers() -> bool:
    """True if Docker is of use: a client without its engine or without Compose is not."""
    if not shutil.which("docker"):
        return False
    try:
        return all(_docker(command, _LOOK).returncode == 0 for command in (["compose", "version"], ["info"]))
    except subprocess.TimeoutExpired:
        return False


def up(file: Path, say: Callable[[str], object] = lambda _: None) -> bool:
    """Start it and wait until it is healthy; False if it ran already.

    Raises:
        RabbitMQUnavailable: it does not start.
    """
    if _compose(file, "ps", "--quiet", "--status", "running", timeout=_STOP):
        return False
    say("starting RabbitMQ by Docker Compose (the first time it downloads the image)")
    _compose(file, "up", "--detach", "--wait", timeout=_PULL_AND_START)
    return True


def down(file: Path) -> None:
    """Stop it; its data stays in its volume.

    Raises:
        RabbitMQUnavailable: it does not stop.
    """
    _compose(file, "down", timeout=_STOP)


def _compose(file: Path, *arguments: str, timeout: float) -> str:
    shown = f"docker compose -f {file} {' '.join(arguments)}"
    try:
        done = _docker(["compose", "--file", str(file), *arguments], timeout)
    except subprocess.TimeoutExpired:
        raise RabbitMQUnavailable(f"`{shown}` took more than {timeout:.0f} s") from None
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise RabbitMQUnavailable(f"`{shown}` failed with exit code {done.returncode}:\n{last}")
    return done.stdout.strip()


def _docker(arguments: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    return run(["docker", *arguments], timeout=timeout)

"""What a worker costs before its first job: time from the command to consuming, memory at rest.

python -m bench.worker_start
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.brokers import VERSIONS, cpu_seconds, node, pss_mib

ROUNDS = 7
CONSUMER = """
from brokerjobs import Consumer

consumer = Consumer("emails")


@consumer.job()
async def welcome(user_id: int) -> None: ...
"""


def main() -> None:
    print(f"`brokerjobs consume emails` with default settings, topology there, median of {ROUNDS}")
    for version in VERSIONS:
        with node(version) as running, tempfile.TemporaryDirectory() as folder:
            package = Path(folder, "consumers")
            package.mkdir()
            (package / "__init__.py").touch()
            (package / "emails.py").write_text(CONSUMER)
            _start(folder, running.url)  # the first one declares
            starts, memory, cpu = zip(*(_start(folder, running.url) for _ in range(ROUNDS)), strict=True)
            print(
                f"RabbitMQ {'.'.join(map(str, running.version))}: consumes after {statistics.median(starts):.2f} s "
                f"({min(starts):.2f} to {max(starts):.2f}), {statistics.median(cpu):.2f} s of CPU; "
                f"idles with {statistics.median(memory):.1f} MiB PSS ({min(memory):.1f} to {max(memory):.1f})"
            )


def _start(folder: str, url: str) -> tuple[float, float, float]:
    """Seconds until it consumes, MiB at rest, CPU seconds."""
    began = time.monotonic()
    worker = subprocess.Popen(
        [sys.executable, "-m", "brokerjobs", "consume", "emails", "--log-format", "json"],
        cwd=folder,
        env={**os.environ, "BROKERJOBS_URL": url, "BROKERJOBS_METRICS_PORT": "none"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    for line in worker.stderr:
        if '"consuming"' in line:
            break
    else:
        raise RuntimeError("the worker ended before it consumed")
    took = time.monotonic() - began
    time.sleep(1)  # noqa: TID251  (at rest: past the first sweep and the garbage of the start)
    memory, cpu = pss_mib(worker.pid), cpu_seconds(worker.pid)
    worker.terminate()
    worker.communicate(timeout=30)
    return took, memory, cpu


if __name__ == "__main__":
    main()

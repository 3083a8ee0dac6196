"""Private nodes for measurements, and the CPU time that a process has used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brokerjobs.node.fetch import default_cache, fetch
from brokerjobs.node.private import PrivateNode

VERSIONS = os.environ.get("RABBITMQ", "3.10 4.3").split()
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def node(version: str) -> Iterator[PrivateNode]:
    quiet = {"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none"}
    with PrivateNode(fetch(version, default_cache()), env=quiet) as running:
        yield running


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads together (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_of_process(pid: int) -> float:
    """The same by the process's own clock, which counts nanoseconds instead of ticks; 0 when it has ended."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED of a process: clock_getcpuclockid(3)
    except OSError:
        return 0.0


def pss_mib(pid: int) -> float:
    """Proportional set size: shared pages count in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no Pss in smaps_rollup")

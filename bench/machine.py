"""One line about the machine and the versions, without which a figure says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.adapter import Adapter


def line(rabbitmq: Sequence[int], contestants: Iterable[type[Adapter]]) -> str:
    """Cores, processor, Python, RabbitMQ, contestants, load."""
    packages = sorted({one.package for one in contestants} | {"uvloop"})
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}, "
        f"RabbitMQ {'.'.join(map(str, rabbitmq))}, {versions}; load average at the start: {load()}"
    )


def load() -> str:
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def _processor() -> str:
    try:
        for found in Path("/proc/cpuinfo").read_text().splitlines():
            if found.startswith("model name"):
                return found.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()

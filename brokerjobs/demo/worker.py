"""The worker, a process of its own: started, watched by its log and its metrics, stopped."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from brokerjobs.node.ports import reserve
from brokerjobs.node.reaper import Reaper

STOP_TIMEOUT = 8.0  # seconds
METRICS_TIMEOUT = 2.0  # seconds

_SAMPLE = re.compile(r"^(?P<name>[a-z_]+)\{(?P<labels>[^}]*)\} (?P<value>\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Line = tuple[float, dict[str, Any]]
"""When a log line was written, seconds since the epoch, and its fields."""


class WorkerProcess:
    """`brokerjobs consume …`; it ends with this process, whatever ends that.

    Args:
        queues: what it consumes.
        folder: for its log.
        root: its working folder, where the package `consumers` lies.
        environment: all of its environment but the metrics' port.
    """

    def __init__(
        self, queues: Sequence[str], folder: Path, root: Path, environment: Mapping[str, str]
    ) -> None:
        self.log = folder / "worker.log"
        self._port = reserve()
        self._reaper = Reaper()
        self._process = self._reaper.start(
            [sys.executable, "-m", "brokerjobs", "consume", *queues],
            log=self.log,
            cwd=root,
            env={**environment, "BROKERJOBS_METRICS_PORT": str(self._port.number)},
        )
        self._followed = self.log.open("rb")
        self._unfinished = b""
        self.last_words: deque[str] = deque(maxlen=5)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self._port.number}/metrics"

    def new_lines(self) -> list[Line]:
        """The log lines written since the last call."""
        *whole, self._unfinished = (self._unfinished + self._followed.read()).split(b"\n")
        return [line for text in whole if (line := self._parse(text)) is not None]

    def metrics(self) -> Counter[tuple[str, str]]:
        """Its counters, summed by name and by the label that matters: queue or outcome.

        Raises:
            OSError: it does not answer.
        """
        with urllib.request.urlopen(self.metrics_url, timeout=METRICS_TIMEOUT) as answer:
            return read_metrics(answer.read().decode())

    def stop(self) -> None:
        """Let it drain, and kill it if it has not ended after STOP_TIMEOUT."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)
        self._process.kill()
        self._process.wait()
        self._reaper.forget(self._process.pid)
        self._reaper.close()
        self._followed.close()
        self._port.close()

    def _parse(self, text: bytes) -> Line | None:
        try:
            fields = json.loads(text)
            return datetime.fromisoformat(fields["timestamp"]).timestamp(), fields
        except (ValueError, KeyError, TypeError):
            if text.strip():
                self.last_words.append(text.decode(errors="replace"))
            return None


def read_metrics(text: str) -> Counter[tuple[str, str]]:
    """Prometheus' text format, as far as the demo needs it."""
    found: Counter[tuple[str, str]] = Counter()
    for sample in _SAMPLE.finditer(text):
        labels = dict(_LABEL.findall(sample["labels"]))
        found[sample["name"], labels.get("outcome") or labels.get("queue", "")] += int(float(sample["value"]))
    return found

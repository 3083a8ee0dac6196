"""A real Prometheus with our configuration and rules: other targets, and a second between two looks."""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from brokerjobs.node.ports import reserve
from tests.dashboards import PROMETHEUS
from tests.foreign import prometheus
from tests.waiting import eventually

SHOWN = 30  # seconds: what a panel shows


class Prometheus:
    """One that runs.

    Args:
        port: of its HTTP API.
    """

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self._address}/-/ready", timeout=5).close()
        except OSError:
            return False
        return True

    def get(self, path: str, **arguments: object) -> Any:
        """The data of an answer of the API."""
        address = f"{self._address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode()}") from None

    def ask(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The series of an expression now, each with its labels; those that are no number are left out."""
        found = self.get("query", query=expression)["result"]
        return [
            (series["metric"], float(series["value"][1]))
            for series in found
            if not math.isnan(float(series["value"][1]))
        ]

    def value(self, expression: str) -> float:
        """The one value of an expression; NaN where there is none."""
        found = self.ask(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else math.nan

    def shows(self, expression: str) -> bool:
        """Whether a panel of this expression shows anything."""
        now = time.time()
        found = self.get("query_range", query=expression, start=now - SHOWN, end=now, step=1)["result"]
        return any(not math.isnan(float(value)) for series in found for _, value in series["values"])


@contextmanager
def running(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Start one in an empty folder.

    Args:
        folder: for its data and log.
        targets: the address for each of our scrape jobs.
    """
    configuration = folder / "prometheus.yml"
    configuration.write_text(yaml.safe_dump(_configuration(targets)))
    with reserve() as port, (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *prometheus("prometheus").command,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port.number}",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            server = Prometheus(port.number)
            eventually(lambda: server.is_ready() or process.poll() is not None, what="Prometheus answers")
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            yield server
        finally:
            process.kill()
            process.wait()


def _configuration(targets: Mapping[str, str]) -> dict[str, Any]:
    """Ours, with other targets, and quick."""
    ours = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert {scraped["job_name"] for scraped in ours["scrape_configs"]} == set(targets)
    for scraped in ours["scrape_configs"]:
        scraped.pop("dns_sd_configs", None)
        scraped["static_configs"] = [{"targets": [targets[scraped["job_name"]]]}]
    return {
        **ours,
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(PROMETHEUS / path) for path in ours["rule_files"]],
    }

"""Programs that are none of ours, fetched once into the cache: amqp-publish, Node's amqplib, Prometheus.

Without them the tests that need them fail, and say what to install.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from brokerjobs.node.errors import RabbitMQNotFetched
from brokerjobs.node.fetch import SUITES, _Apt, default_cache
from brokerjobs.node.locks import locked

AMQPLIB = "0.10.9"
TIMEOUT = 120.0  # seconds
_LIBRARIES = re.compile(r"librabbitmq|libpopt|libssl")
_NO_LIBRARIES = re.compile(r"(?!)")


@dataclass(frozen=True)
class Program:
    """A command to run, and what it needs in its environment."""

    command: list[str]
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.command, *arguments],
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def amqp_publish() -> Program:
    """The C tool: the installed one, else that of Debian's package amqp-tools, unpacked without installing it."""
    if installed := shutil.which("amqp-publish"):
        return Program([installed])
    root = _package("amqp-tools", _LIBRARIES, or_install="amqp-tools, or brew install rabbitmq-c")
    libraries = ":".join(str(folder) for folder in root.glob("usr/lib/*-linux-*"))
    return Program([str(root / "usr/bin/amqp-publish")], {"LD_LIBRARY_PATH": libraries})


def amqplib() -> Program:
    """Node, with its client amqplib."""
    missing = [program for program in ("node", "npm") if not shutil.which(program)]
    if missing:
        pytest.fail(
            f"{' and '.join(missing)} needed to test publishing from Node: install Node.js 18 or later"
        )
    folder = _cached(f"amqplib-{AMQPLIB}", _install_amqplib)
    return Program(["node"], {"NODE_PATH": str(folder / "node_modules")})


def prometheus(name: str) -> Program:
    """`prometheus` or `promtool`: the installed one, else that of Debian's package, which needs no libraries."""
    if installed := shutil.which(name):
        return Program([installed])
    root = _package("prometheus", _NO_LIBRARIES, or_install="prometheus, or brew install prometheus")
    return Program([str(root / "usr/bin" / name)])


def _package(name: str, libraries: re.Pattern[str], *, or_install: str) -> Path:
    """Where Debian's package is unpacked, with those of the libraries that it needs."""

    def unpack(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            apt = _Apt(SUITES["3.10"], Path(scratch))
            for package in apt.download([name, *apt.needs(name, libraries)]):
                subprocess.run(["dpkg-deb", "--extract", package, folder], check=True, timeout=TIMEOUT)

    try:
        return _cached(name, unpack)
    except RabbitMQNotFetched as error:
        pytest.fail(f"{name} is needed: apt-get install {or_install} ({error})")


def _install_amqplib(folder: Path) -> None:
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error",
         "--prefix", folder, f"amqplib@{AMQPLIB}"],
        check=True,
        timeout=TIMEOUT,
    )  # fmt: skip


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """The folder, made if it is not there yet; safe for several processes at once."""
    folder = default_cache() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{name}.lock"), timeout=2 * TIMEOUT):
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=folder.parent) as scratch:
                make(Path(scratch) / "made")
                (Path(scratch) / "made").rename(folder)
    return folder

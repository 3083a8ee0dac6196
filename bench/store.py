"""A Redis of one's own for the peers that need one: the system's, or else Debian's package in the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brokerjobs.node.fetch import default_cache
from brokerjobs.node.ports import listens, reserve
from brokerjobs.node.waiting import wait_until

PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1")
START_TIMEOUT = 20.0
FETCH_TIMEOUT = 120.0


class NoRedis(Exception):
    """There is none, and none can be fetched; says why."""


@contextmanager
def running() -> Iterator[str]:
    """A server on loopback; gives its URL.

    It keeps what it is sent as it comes: in memory, and from time to time in a file.

    Raises:
        NoRedis: there is none for this system, or it does not start.
    """
    program, environment = _program()
    with reserve() as reserved, tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
        port = reserved.number
        server = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if not wait_until(lambda: listens(port) or server.poll() is not None, timeout=START_TIMEOUT):
                raise NoRedis("redis-server does not answer")
            if server.poll() is not None:
                raise NoRedis("redis-server ended at its start")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def _program() -> tuple[str, dict[str, str]]:
    """Where it is, and the environment that it needs."""
    installed = shutil.which("redis-server")
    if installed:
        return installed, dict(os.environ)
    folder = default_cache() / "redis"
    if not (folder / "complete").exists():
        _fetch(folder)
    libraries = ":".join(str(path) for path in sorted(folder.glob("root/usr/lib/*-linux-*")))
    return str(folder / "root/usr/bin/redis-server"), {**os.environ, "LD_LIBRARY_PATH": libraries}


def _fetch(folder: Path) -> None:
    """The packages of this system's own release, so that they fit its C library."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise NoRedis("there is no redis-server, and no apt-get to fetch one")
    shutil.rmtree(folder, ignore_errors=True)
    archives = folder / "archives"
    archives.mkdir(parents=True)
    try:
        _run(["apt-get", "--quiet=2", "download", *PACKAGES], archives)
        for archive in sorted(archives.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(archive), str(folder / "root")], archives)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise NoRedis(f"there is no redis-server, and its packages cannot be fetched: {error}") from None
    shutil.rmtree(archives)
    (folder / "complete").touch()


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=FETCH_TIMEOUT)

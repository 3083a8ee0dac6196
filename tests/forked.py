"""Commands that are forked from a process that has loaded what they need.

Half a second of each command is imports, and the tests run some seven hundred. So one process for all tests loads once
and forks for each. What it forks is a process of its own as any other: it has its own streams, folder, environment and
exit code, and it ends as Python ends. Only that Python can load it is proved elsewhere.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

PIPE = 65_536  # bytes that a pipe takes though nobody reads
LOADING = 60.0  # seconds until a command is forked: for the first one, all is loaded
_LARGEST = 128 * 1024  # bytes of a wish


class Mother:
    """The process that forks; it ends with the process that has started it."""

    def __init__(self) -> None:
        self._link, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.close)

    def close(self) -> None:
        """End it; commands go on."""
        self._link.close()
        self._process.wait(10)

    def run(
        self, arguments: Sequence[str], folder: Path, env: Mapping[str, str], stdin: bytes, timeout: float
    ) -> tuple[int, bytes, bytes]:
        """Run a command to its end; gives its exit code, or the negative number of a signal, and what it said.

        Args:
            stdin: up to `PIPE`.
            timeout: seconds from when it is forked; what takes longer is killed.

        Raises:
            TimeoutExpired: it took longer.
        """
        with ExitStack() as stack:
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            its_stdin, our_words = _pipe(stack)
            news, its_news = _pipe(stack)
            our_words.write(stdin)
            our_words.close()
            wish = json.dumps([list(arguments), str(folder), dict(env)]).encode()
            streams = [its_stdin, out, err, its_news]
            socket.send_fds(self._link, [wish], [stream.fileno() for stream in streams])
            its_news.close()
            code = _code(news, arguments, timeout)
            return code, _all(out), _all(err)


@functools.cache
def mother() -> Mother:
    """The one of this process."""
    return Mother()


def _pipe(stack: ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    """Both ends, until the stack closes them."""
    reading, writing = os.pipe()
    return stack.enter_context(open(reading, "rb", 0)), stack.enter_context(open(writing, "wb", 0))


def _all(file: IO[bytes]) -> bytes:
    """Without moving to where its writers are."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def _code(news: IO[bytes], arguments: Sequence[str], timeout: float) -> int:
    """What the attendant tells: first the number of the process, then its exit code."""
    until, told = time.monotonic() + LOADING, b""
    while select.select([news], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(news.fileno(), 64)
        if not part:
            return int(told.split()[1])
        if not told:  # before, nobody could kill it
            until = time.monotonic() + timeout
        told += part
    with suppress(IndexError, ProcessLookupError):
        os.kill(int(told.split()[0]), signal.SIGKILL)
    raise subprocess.TimeoutExpired(list(arguments), timeout)


# -- the process that forks


def serve(link: socket.socket) -> None:
    """Fork for each wish; returns in each command only."""
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how attendants end
    while True:
        wish, streams, _, _ = socket.recv_fds(link, _LARGEST, 4)
        if not wish:
            os._exit(0)
        if not os.fork():
            link.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if _attend(*streams):
                return _become(*json.loads(wish))
            os._exit(0)
        for number in streams:
            os.close(number)


def _load() -> None:
    from brokerjobs import cli

    gc.disable()
    for verb in cli.VERBS:
        cli.command_of(verb)
    for name in "client", "worker", "inspection.watch", "dead_letters.desk", "control", "discovery":
        importlib.import_module(f"brokerjobs.{name}")
    gc.freeze()
    gc.enable()


def _attend(stdin: int, out: int, err: int, news: int) -> bool:
    """Fork the command and tell how it ends; True in the command itself."""
    pid = os.fork()
    if not pid:
        os.close(news)
        for number, place in (stdin, 0), (out, 1), (err, 2):
            os.dup2(number, place)
            os.close(number)
        return True
    for number in stdin, out, err:
        os.close(number)
    with suppress(BrokenPipeError):  # it took too long, and nobody waits any more
        os.write(news, f"{pid} ".encode())
        os.write(news, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    return False


def _become(arguments: list[str], folder: str, env: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    sys.path[0] = folder
    sys.argv[1:] = arguments


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    from brokerjobs.cli import main

    main()

"""The code blocks of our documents, and a reader who does what they say.

A comment above a block, which rendered Markdown does not show, says what the reader does with it:

    <!-- file: consumers/emails.py -->    writes this file, into a package if it is in a folder
    <!-- example -->                      runs this Python without a broker; what it sends is recorded
    <!-- run -->                          types the lines after `$`, and sees the others; Python is just run
    <!-- run: exit 2 -->                  the same, and the last command ends with this exit code
    <!-- run: exactly -->                 the same, and numbers count too
    <!-- worker -->                       types a command that goes on, and sees the lines below it
    <!-- log -->                          sees these lines in the worker's output, in this order
    <!-- by hand: 1a2b3c4d, why -->       nothing: a person ran it; the digits are those of the text they ran

Blocks in the language `text` and `mermaid` are pictures and need none. In output, `…` stands for anything, spaces
count as one, and numbers, ids and the lengths of rules may be others.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        ROOT / "SECURITY.md",
        *ROOT.glob("docs/**/*.md"),
    ]
)
PICTURES = ("text", "mermaid")
MARKS = ("file", "example", "run", "worker", "log", "by hand")
COLUMNS = 110
COMMAND_TIMEOUT = 120.0  # seconds

_BLOCK = re.compile(
    r"^(?: *<!-- (?P<mark>[a-z ]+)(?:: (?P<detail>[^\n]*))? -->\n)? *```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
# A progress bar goes up to its line and erases it.
_UP = re.compile(r"\n\x1b\[1A")
_ERASED = re.compile(r"[^\n]*\x1b\[2K")
_OTHER_ESCAPES = re.compile(r"\x1b\[(?!1A|2K)[0-9;?]*[A-Za-z]|\r(?=\x1b|\n)|(?<=\n)\r")
_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4,12}){1,4}\b")
_RULE = re.compile("─+")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One code block.

    Args:
        page: where it stands.
        line: of its first line of code.
        language: `python`, `console`, …
        mark: what the reader does with it; empty for none.
        detail: what the mark says after the colon.
        text: the code.
    """

    page: Path
    line: int
    language: str
    mark: str
    detail: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def digits(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Each command with the output that it is said to have."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found and _goes_on(found[-1][0]):
                found[-1] = (f"{found[-1][0]}\n{line}", [])
            elif found:
                found[-1][1].append(line)
            else:
                raise AssertionError(f"{self.place}: output without a command")
        yield from found


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            page=page,
            line=text.count("\n", 0, found.start("text")) + 1,
            language=found["language"],
            mark=found["mark"] or "",
            detail=found["detail"] or "",
            text=textwrap.dedent(found["text"]),
        )
        for found in _BLOCK.finditer(text)
    ]


def named(pages: Sequence[Path], *marks: str) -> list[str]:
    """The names of the pages that have blocks with one of these marks."""
    return [
        str(page.relative_to(ROOT)) for page in pages if any(block.mark in marks for block in blocks(page))
    ]


def write(folder: Path, block: Block, replaced: Mapping[str, str] | None = None) -> Path:
    path = folder / block.detail
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent != folder:
        (path.parent / "__init__.py").touch()
    path.write_text(_replace(block.text, replaced or {}))
    return path


@dataclass
class Reader:
    """Somebody at a terminal who does what a page says.

    Args:
        folder: an empty one, where they work.
        environment: of what they run.
        replaced: what differs here from what the page says, such as the address of RabbitMQ.
    """

    folder: Path
    environment: Mapping[str, str]
    replaced: Mapping[str, str] = field(default_factory=dict)
    _workers: list[Terminal] = field(default_factory=list)

    def follow(self, page: Path) -> None:
        try:
            for block in blocks(page):
                self._do(block)
        finally:
            codes = [worker.stop() for worker in self._workers]
        assert not any(codes), f"a worker of {page.name} ended with exit code {codes}"

    def _do(self, block: Block) -> None:
        match block.mark:
            case "file":
                write(self.folder, block, self.replaced)
            case "run" if block.language == "python":
                path = write(self.folder, _as_file(block), self.replaced)
                self._type(block, f"{sys.executable} {path.name}", ["…"], 0)
            case "run":
                *others, last = block.commands()
                for command, output in others:
                    self._type(block, command, output, 0)
                _, exits, code = block.detail.partition("exit ")
                self._type(block, *last, int(code) if exits else 0)
            case "worker":
                ((command, output),) = block.commands()
                self._workers.append(
                    Terminal(_replace(command, self.replaced), self.folder, self.environment)
                )
                self._watch(block, output)
            case "log":
                self._watch(block, block.text.splitlines())

    def _type(self, block: Block, command: str, expected: list[str], code: int) -> None:
        expected = [_replace(line, self.replaced) for line in expected]
        terminal = Terminal(_replace(command, self.replaced), self.folder, self.environment)
        ended = terminal.wait(COMMAND_TIMEOUT)
        found = terminal.lines()
        said = (
            f"{block.place}: $ {command}\nsaid:\n"
            + "\n".join(found)
            + "\ninstead of:\n"
            + "\n".join(expected)
        )
        assert ended == code, f"exit code {ended} instead of {code} of {said}"
        assert found == expected if block.detail == "exactly" else is_same(expected, found), said

    def _watch(self, block: Block, expected: list[str]) -> None:
        worker = self._workers[-1]
        expected = [_replace(line, self.replaced) for line in expected]
        try:
            eventually(lambda: is_same(["…", *_between(expected)], worker.lines()), timeout=60)
        except AssertionError:
            said = "\n".join(worker.lines())
            raise AssertionError(
                f"{block.place}: the worker said:\n{said}\ninstead of:\n{block.text}"
            ) from None


class Terminal:
    """A command on a terminal of its own, so that it looks as it does to a person."""

    def __init__(self, command: str, folder: Path, environment: Mapping[str, str]) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            ["bash", "-c", f"set -o pipefail\n{command}"],
            cwd=folder,
            env={**environment, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(COLUMNS)},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._ours = ours
        self._seen = b""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def lines(self) -> list[str]:
        text = _OTHER_ESCAPES.sub("", self._seen.decode(errors="replace"))
        text = _ERASED.sub("", _UP.sub("", text))
        return [line for line in (line.rstrip() for line in text.splitlines()) if line]

    def wait(self, timeout: float) -> int:
        try:
            return self._process.wait(timeout)
        finally:
            self._end()

    def stop(self) -> int:
        """As Ctrl-C does."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)
        return self.wait(COMMAND_TIMEOUT)

    def _read(self) -> None:
        with suppress(OSError):  # a terminal whose program has ended
            while data := os.read(self._ours, 65536):
                self._seen += data

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reading.join()
        with suppress(OSError):
            os.close(self._ours)


def is_same(expected: Sequence[str], found: Sequence[str]) -> bool:
    """Whether the lines found are those expected, by the rules above."""
    pattern = "".join(
        r"(?:.*\n)?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n"
        for line in _plain(expected)
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _plain(found)), re.DOTALL) is not None


def _plain(lines: Sequence[str]) -> list[str]:
    return [
        _RULE.sub("─", _NUMBER.sub("0", _ID.sub("0", " ".join(line.split()))))
        for line in lines
        if line.strip()
    ]


def _goes_on(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:  # an open quotation, or a backslash at the end
        return True
    return False


def _between(lines: list[str]) -> Iterator[str]:
    """The lines, with room for others between them."""
    for line in lines:
        yield from (line, "…")


def _replace(text: str, replaced: Mapping[str, str]) -> str:
    for old, new in replaced.items():
        text = text.replace(old, new)
    return text


def _as_file(block: Block) -> Block:
    return Block(**{**vars(block), "detail": f"block_{block.line}.py"})

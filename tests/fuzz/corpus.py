"""Inputs that are kept, a line of hexadecimal digits each: what reaches something new, and what failed once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

FOLDER = Path(__file__).parent / "corpus"
ROOT = Path(__file__).resolve().parents[2]
TRACED = str(ROOT / "brokerjobs" / "amqp")

Reached: TypeAlias = set[tuple[str, int, int]]  # file, line, and the line before it


def kept(target: str) -> list[bytes]:
    """Those that tell something, and all that have ever failed."""
    return _read(f"{target}.txt") + _read(f"{target}-failed.txt")


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """Those that tell something, instead of the ones before."""
    _write(f"{target}.txt", inputs)


def keep_failed(target: str, inputs: Iterable[bytes]) -> None:
    """Those that failed, for good."""
    name = f"{target}-failed.txt"
    if found := dict.fromkeys([*_read(name), *inputs]):
        _write(name, found)


def _read(name: str) -> list[bytes]:
    path = FOLDER / name
    return [bytes.fromhex(line) for line in path.read_text().splitlines()] if path.exists() else []


def _write(name: str, inputs: Iterable[bytes]) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text("".join(f"{data.hex()}\n" for data in inputs))


def telling(run: Callable[[bytes], None], inputs: Iterable[bytes]) -> list[bytes]:
    """Of these inputs the short ones that together reach all that any of them reaches."""
    reached: Reached = set()
    found = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        if new := _reached(run, data) - reached:
            reached |= new
            found.append(data)
    return found


def _reached(run: Callable[[bytes], None], data: bytes) -> Reached:
    found: Reached = set()

    def call(frame: FrameType, _: str, __: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(TRACED):
            return None
        before = 0

        def line(frame: FrameType, event: str, _: object) -> Any:
            nonlocal before
            if event == "line":
                found.add((code.co_filename, before, frame.f_lineno))
                before = frame.f_lineno
            return line

        return line

    tracing = sys.gettrace()
    sys.settrace(call)
    try:
        run(data)
    except Exception:
        found.clear()  # kept elsewhere
    finally:
        sys.settrace(tracing)
    return found

"""A consumer whose jobs die in all ways that a process can die; child processes import it from here."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from typing import Any

from opentelemetry import trace

from brokerjobs import Consumer, Context, Next, Reject, Retry, RetryLater, current_job

seen: list[str] = []


async def noted(context: Context, call_next: Next) -> Any:
    seen.append(f"before {context.job}")
    return await call_next()


consumer = Consumer(
    "risky", retry=Retry(3, delays=[10, 30], on=(OSError, ConnectionError)), middleware=[noted]
)
broken = Consumer("broken", retry=Retry(3, on=ConnectionError))
settled: list[tuple[str, Any]] = []


@consumer.on_startup
def open_pool() -> None:
    seen.append("start-up")


@consumer.on_shutdown
def close_pool() -> None:
    if path := os.environ.get("RISKY_JOURNAL"):
        with open(path, "a") as journal:
            journal.write(f"shut-down {os.getpid()}\n")


@broken.on_startup
def fail() -> None:
    if "brokerjobs.executor.child" in sys.modules["__main__"].__file__.replace("/", "."):  # type: ignore[union-attr]
        raise OSError("no database")


@broken.job(isolate=True)
def never() -> None: ...


@broken.job()
def suspected() -> int:
    return os.getpid()


@consumer.job(isolate=True)
def knows(number: int) -> dict[str, Any]:
    job = current_job()
    return {
        "number": number,
        "pid": os.getpid(),
        "id": job.id,
        "attempt": job.attempt,
        "headers": dict(job.headers),
        "has_time": 0 < job.remaining <= 600,
        "max_attempts": job.max_attempts,
        "redelivered": job.redelivered,
        "seen": list(seen),
        "python_path": os.environ.get("PYTHONPATH"),
        "span": trace.get_current_span().get_span_context().span_id,
    }


@consumer.job(isolate=True)
async def awaited(number: int) -> tuple[int, int]:
    return number, os.getpid()


@consumer.job()
def trusted() -> int:
    return os.getpid()


@consumer.job(isolate=True)
def leaves(code: int) -> None:
    os._exit(code)


@consumer.job(isolate=True)
def dies_of(number: int) -> None:
    os.kill(os.getpid(), number)


@consumer.job(isolate=True)
def segfaults() -> None:
    ctypes.string_at(0)


@consumer.job(isolate=True, memory_limit="160 MiB")
def hoards() -> None:
    held = []
    while True:
        held.append(bytes(2**20))


@consumer.job(isolate=True, memory_limit="160 MiB")
def is_modest(size: int) -> int:
    return len(bytes(size))


@consumer.job(isolate=True, memory_limit=1)
def has_no_room() -> None: ...


@consumer.job(isolate=True, timeout=0.3)
def hangs(path: str) -> None:
    """Never returns to Python, and has started another process."""
    started = subprocess.Popen(["sleep", "600"])
    with open(path, "w") as file:
        file.write(f"{os.getpid()} {started.pid}")
    ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock held


class Odd(ConnectionError):
    """Cannot be pickled, and its `__init__` asks for more than `args` holds."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.lock = threading.Lock()


@consumer.job(isolate=True)
def raises(kind: str) -> None:
    match kind:
        case "plain":
            raise ConnectionRefusedError(111, "refused")
        case "odd":
            raise Odd(503, "busy")
        case "local":

            class Local(ConnectionError):
                pass

            raise Local("known to nobody")
        case "later":
            raise RetryLater("30s", "busy")
        case "reject":
            raise Reject("gone for good")
        case "exit":
            sys.exit(3)


@consumer.job(isolate=True)
def counts_threads() -> int:
    return len(os.listdir("/proc/self/task"))


@consumer.job(isolate=True)
def hangs_in_c() -> None:
    ctypes.PyDLL(None).sleep(600)  # and keeps Python's lock


@consumer.job(isolate=True)
def returns_a_lock() -> Any:
    return threading.Lock()


@consumer.job(isolate=True)
def decides(how: str) -> None:
    job = current_job()
    match how:
        case "ack":
            job.ack()
        case "nack":
            job.nack()
        case "reject":
            job.reject("no path")
    os.kill(os.getpid(), signal.SIGKILL)


@consumer.job(isolate=True)
def ends_while_idle() -> int:
    threading.Timer(0.05, lambda: os._exit(1)).start()
    return os.getpid()


@consumer.on_success
def note_success(context: Context, result: Any) -> None:
    settled.append(("success", result))


@consumer.on_failure
def note_failure(context: Context, error: BaseException) -> None:
    settled.append(("failure", error))


@consumer.on_exhausted
def note_end(context: Context, error: BaseException) -> None:
    settled.append(("exhausted", error))

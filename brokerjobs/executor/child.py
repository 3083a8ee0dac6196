"""The program of a child process: `python -m brokerjobs.executor.child PIPE QUEUE`; see processes.py.

It runs what its worker tells it to, one job at a time, and ends when the worker says so; or at once, whatever it
does, when the worker has died.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import importlib
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from brokerjobs import logs, tracing, transport
from brokerjobs.consumer import Consumer
from brokerjobs.context import Context, current
from brokerjobs.errors import ConfigurationError
from brokerjobs.executor.parcels import Error, Result
from brokerjobs.executor.pipe import (
    WHERE,
    Begun,
    Broke,
    Broken,
    ChildEnd,
    Decided,
    Order,
    OutOfMemory,
    Ready,
    Setup,
    Stop,
)
from brokerjobs.executor.running import Runner, arguments_of
from brokerjobs.executor.threads import Threads
from brokerjobs.failure import Failure
from brokerjobs.logs import log

PR_SET_PDEATHSIG = 1
# What bounds a job's own memory: on Linux all that it may write to, heap and private mappings; elsewhere its
# whole address space, code and mapped files included.
BOUND = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS


def main() -> None:
    """Work until told to stop."""
    pipe = ChildEnd(socket.socket(fileno=int(sys.argv[1])))
    try:
        setup = pipe.receive()
    except Broke:
        return
    die_with(setup.parent)
    for number in signal.SIGTERM, signal.SIGINT:
        # The worker decides when a job ends. A handler, since what is ignored stays so in programs that a job starts.
        signal.signal(number, lambda *_: None)
    faulthandler.enable(setup.faults)
    logs.configure(setup.settings.log_level, setup.settings.log_format)
    _take_over(setup)
    tracing.instrument()
    asyncio.run(serve(pipe, setup))


def die_with(parent: int) -> None:
    """End when the worker ends, even in the midst of a call that never returns to Python."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _take_over(setup: Setup) -> None:
    sys.path[:] = setup.path
    if setup.python_path is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = setup.python_path
    transport.use_settings(setup.settings)


async def serve(pipe: ChildEnd, setup: Setup) -> None:
    """Import the consumer, then run orders until told to stop."""
    threads = Threads(1)
    try:
        consumer = _consumer(setup)
        runner = Runner(consumer, threads)
        for hook in consumer.startup:
            await runner.call_hook(hook)
    except (Exception, SystemExit) as error:
        pipe.send(Broken(str(Failure.of(error))))
        return
    faulthandler.register(WHERE, setup.faults)  # it is answered even where Python itself stands still
    orders = _orders(pipe)
    pipe.send(Ready())
    while (order := await orders.get()) is not None:
        pipe.send(Begun())
        if isinstance(reply := await _run(order, consumer, runner, setup, pipe), OutOfMemory):
            pipe.send(reply)
            return
        pipe.send(reply)
    await _stop(consumer, runner)
    threads.close()


def _consumer(setup: Setup) -> Consumer:
    found = vars(importlib.import_module(setup.module)).values()
    for value in found:
        if isinstance(value, Consumer) and value.queue == setup.queue:
            return value
    raise ConfigurationError(f"module {setup.module} declares no consumer of queue {setup.queue!r}")


def _orders(pipe: ChildEnd) -> asyncio.Queue[Order | None]:
    """Orders as they come; None to stop."""
    orders: asyncio.Queue[Order | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            while not isinstance(order := pipe.receive(), Stop):
                loop.call_soon_threadsafe(orders.put_nowait, order)
            loop.call_soon_threadsafe(orders.put_nowait, None)
            pipe.receive()
        except Broke:
            os.killpg(0, signal.SIGKILL)  # the worker has died; and what the job has started ends with it
        except RuntimeError:  # the loop has ended
            return

    threading.Thread(target=read, name="brokerjobs-pipe", daemon=True).start()
    return orders


async def _run(
    order: Order, consumer: Consumer, runner: Runner, setup: Setup, pipe: ChildEnd
) -> Result | Error | OutOfMemory:
    token = None
    try:
        job = consumer.find(order.message)
        if job is None:
            raise LookupError(f"module {setup.module} declares no job {order.message.job!r}")
        context = Context(
            message=order.message,
            queue=setup.queue,
            arguments=arguments_of(job, order.message, len(order.message.body)),
            redelivered=order.redelivered,
            deadline=time.monotonic() + order.timeout,
            max_attempts=job.retry.max_attempts,
            _decide=lambda outcome: pipe.send(Decided(outcome)),
        )
        token = current.set(context)
        with tracing.continued(order.trace), bounded(order.memory_limit):
            value = await runner.run(job, context, timeout=None)
        return Result.of(value)
    except MemoryError as error:
        return Error.of(error) if order.memory_limit is None else OutOfMemory(Error.of(error))
    except Exception as error:
        return Error.of(error)
    finally:
        if token is not None:
            current.reset(token)


@contextmanager
def bounded(limit: int | None) -> Iterator[None]:
    """Within the block this process gets no memory beyond the limit, in bytes.

    Raises:
        ConfigurationError: it holds as much already.
    """
    if limit is None:
        yield
        return
    if (held := _held()) >= limit:
        raise ConfigurationError(
            f"the memory_limit of {limit / 2**20:,.0f} MiB is less than the {held / 2**20:,.0f} MiB "
            "that its process holds before the job begins"
        )
    soft, hard = resource.getrlimit(BOUND)
    most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(BOUND, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(BOUND, (soft, hard))


def _held() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[5]) * resource.getpagesize()
    except OSError:  # no Linux
        return 0


async def _stop(consumer: Consumer, runner: Runner) -> None:
    for hook in consumer.shutdown:
        try:
            await runner.call_hook(hook)
        except Exception as error:
            log.error(
                "hook failed", hook=getattr(hook, "__qualname__", str(hook)), error=str(Failure.of(error))
            )
    sender: Any = transport.use_sender(None)
    if hasattr(sender, "aclose"):
        await sender.aclose()


if __name__ == "__main__":
    main()

"""Jobs in real child processes: what goes there, what comes back, and how children die and are replaced."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from PIL import Image
from structlog.testing import capture_logs

from brokerjobs import ConfigurationError, JobCrashed, JobTimeout, Message
from brokerjobs import settings as settings_module
from brokerjobs.executor import Executor, Processes, Program, Threads, processes
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, Succeeded
from consumers import images
from tests import risky
from tests.waiting import eventually_async

AMPLE = 60.0  # seconds within which everything here ends

Run = Callable[..., Coroutine[Any, Any, Outcome]]


@pytest.fixture
def deaths() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    risky.settled.clear()
    risky.seen.clear()


@pytest.fixture
async def executor(deaths: list[str]) -> AsyncIterator[Executor]:
    threads = Threads(2)
    program = Program("tests.risky", "risky", settings_module.Settings())
    executor = Executor(risky.consumer, threads, Processes(program, 2, on_death=deaths.append))
    yield executor
    await executor.close()
    threads.close()


@pytest.fixture
def run(executor: Executor) -> Run:
    async def run(name: str, arguments: Any = None, *, suspect: bool = False, **fields: Any) -> Outcome:
        body = b"" if arguments is None else json.dumps(arguments).encode()
        message = Message(job=f"risky.{name}", routing_key=f"risky.{name}", body=body, **fields)
        async with asyncio.timeout(AMPLE):
            return await executor.execute(message, suspect=suspect)

    return run


def result(outcome: Outcome) -> Any:
    assert isinstance(outcome, Succeeded), outcome
    return outcome.result


def crash(outcome: Outcome) -> str:
    assert isinstance(outcome, Retried), outcome
    assert (outcome.reason, outcome.spends) == ("crashed", True)
    assert outcome.failure is not None
    assert outcome.failure.kind == "JobCrashed"
    return outcome.failure.text


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_job_runs_in_a_child_that_is_kept_and_knows_what_it_would_know_here(
    run: Run, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal"
    monkeypatch.setenv("RISKY_JOURNAL", str(journal))
    monkeypatch.setenv("PYTHONPATH", "/nowhere")

    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    with trace.use_span(span):
        first = result(await run("knows", {"number": 1}, id="7", attempt=2, headers={"tenant": "shop"}))
    second = result(await run("knows", [2]))
    awaited = result(await run("awaited", [3]))
    await executor.close()

    assert first["pid"] == second["pid"] == awaited[1] != os.getpid()
    assert (first["number"], first["id"], first["attempt"]) == (1, "7", 2)
    assert (first["headers"], first["max_attempts"], first["redelivered"]) == ({"tenant": "shop"}, 3, False)
    assert first["has_time"]
    assert first["python_path"] == "/nowhere"
    assert (first["span"], second["span"]) == (2, 0)  # what is current here is so there
    assert second["seen"] == ["start-up", "before risky.knows", "before risky.knows"]
    assert awaited == (3, first["pid"])  # a tuple, not JSON
    assert risky.settled == [("success", first), ("success", second), ("success", awaited)]  # told here
    assert risky.seen == []
    assert journal.read_text() == f"shut-down {first['pid']}\n"
    assert not lives(first["pid"])


async def test_only_isolated_jobs_and_suspects_run_in_children(run: Run) -> None:
    assert result(await run("trusted")) == os.getpid()
    suspect = result(await run("trusted", suspect=True))

    assert suspect == result(await run("awaited", [1]))[1] != os.getpid()


async def test_arguments_are_refused_before_a_child_is_troubled(run: Run, deaths: list[str]) -> None:
    outcome = await run("knows", {"number": "seven"})

    assert isinstance(outcome, DeadLettered)
    assert outcome.reason == "arguments"


async def test_child_that_dies_costs_an_attempt_and_is_replaced(run: Run, deaths: list[str]) -> None:
    assert crash(await run("leaves", [3])) == "the process of risky.leaves died: exit code 3"
    outcome = await run("segfaults")
    assert crash(outcome) == "the process of risky.segfaults died: killed by SIGSEGV"
    assert isinstance(outcome, Retried)
    assert outcome.failure is not None
    assert "in segfaults" in outcome.failure.traceback  # where it stood
    assert "killed by SIGKILL" in crash(await run("dies_of", [signal.SIGKILL]))

    assert deaths == ["exit", "SIGSEGV", "SIGKILL"]
    assert result(await run("awaited", [1]))[1] != os.getpid()
    kinds = [(event, type(error)) for event, error in risky.settled[:-1]]
    assert kinds == [("failure", JobCrashed)] * 3


async def test_job_is_dead_after_its_last_crash_or_its_last_attempt(run: Run) -> None:
    for fields in {"crashes": 2, "attempt": 1}, {"crashes": 0, "attempt": 3}:
        risky.settled.clear()
        outcome = await run("leaves", [0], **fields)

        assert isinstance(outcome, DeadLettered)
        assert outcome.reason == "crashed"
        assert "exit code 0" in outcome.failure.text
        assert [event for event, _ in risky.settled] == ["failure", "exhausted"]


async def test_memory_limit_ends_the_job_and_not_those_after_it(run: Run, deaths: list[str]) -> None:
    assert result(await run("is_modest", [2**20])) == 2**20
    assert "died: out of memory, its limit is 160 MiB" in crash(await run("hoards"))
    assert deaths == ["memory"]
    assert result(await run("is_modest", [2**20])) == 2**20
    outcome = await run("has_no_room")

    assert isinstance(outcome, DeadLettered)
    assert "memory_limit of 0 MiB is less than" in outcome.failure.text


async def test_image_that_unpacks_to_more_than_its_memory_limit_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example: 144 megapixels are a file of 18 kB, and 576 MB when it is unpacked."""
    monkeypatch.setenv("IMAGES_FOLDER", str(tmp_path))
    Image.new("1", (12_000, 12_000)).save(tmp_path / "bomb.png")
    Image.new("RGB", (400, 200), "red").save(tmp_path / "cat.jpg")
    threads = Threads(1)
    program = Program("consumers.images", "images", settings_module.Settings())
    executor = Executor(images.consumer, threads, Processes(program, 1))

    bomb = await executor.execute(images.thumbnail.message("bomb.png"))
    cat = await executor.execute(images.thumbnail.message("cat.jpg"))
    await executor.close()
    threads.close()

    assert crash(bomb) == "the process of images.thumbnail died: out of memory, its limit is 512 MiB"
    assert result(cat).endswith("cat.jpg.256.webp")


async def test_job_that_outruns_its_timeout_is_killed_with_all_it_has_started(
    run: Run, deaths: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "pids"

    outcome = await run("hangs", [str(path)])

    assert isinstance(outcome, Retried)
    assert outcome.reason == "failed"
    assert outcome.failure is not None
    assert outcome.failure.text == "risky.hangs was killed: outran its timeout of 300ms"
    assert "in hangs" in outcome.failure.traceback
    assert isinstance(risky.settled[0][1], JobTimeout)
    assert deaths == ["timeout"]
    for pid in map(int, path.read_text().split()):
        await eventually_async(lambda pid=pid: not lives(pid))  # type: ignore[misc]


async def test_job_says_where_it_stood_though_python_stands_still(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(risky.hangs_in_c, "timeout", 0.3)

    outcome = await run("hangs_in_c")

    assert isinstance(outcome, Retried)
    assert outcome.failure is not None
    assert "in hangs_in_c" in outcome.failure.traceback


async def test_child_has_no_thread_beside_its_job_but_the_two_that_listen(run: Run) -> None:
    """To start one for each job took a third of what a job costs a child beyond itself."""
    assert result(await run("counts_threads")) == 3


async def test_errors_come_back_for_the_retry_policy_to_judge(run: Run) -> None:
    """It retries OSError and its kin only: also those that cannot be pickled."""
    outcomes = {
        kind: await run("raises", [kind]) for kind in ("plain", "odd", "local", "later", "reject", "exit")
    }
    plain, odd, local, later, reject, left = outcomes.values()

    for outcome, text in (plain, "[Errno 111] refused"), (odd, "503 busy"), (local, "known to nobody"):
        assert isinstance(outcome, Retried), outcome
        assert outcome.failure is not None
        assert outcome.failure.text == text
        assert "in raises" in outcome.failure.traceback
    assert isinstance(odd, Retried)
    assert odd.failure is not None
    assert odd.failure.kind == "tests.risky.Odd"
    told = dict(zip(("plain", "odd", "local"), (error for _, error in risky.settled), strict=False))
    assert (type(told["odd"]), told["odd"].code) == (risky.Odd, 503)
    assert type(told["local"]) is ConnectionError
    assert later == Retried(delay=30, reason="retry_later", spends=False, began=later.began)  # type: ignore[union-attr]
    assert isinstance(reject, DeadLettered)
    assert (reject.reason, reject.failure.text) == ("rejected", "gone for good")
    assert isinstance(left, DeadLettered)
    assert (left.reason, left.failure.text) == ("failed", "it raised SystemExit: 3")


async def test_result_that_cannot_be_pickled_does_not_undo_a_success(run: Run) -> None:
    assert result(await run("returns_a_lock")) is None


async def test_decision_by_hand_holds_though_the_process_dies_right_after_it(run: Run) -> None:
    assert await run("decides", ["ack"]) == Succeeded()
    assert isinstance(await run("decides", ["nack"]), Released)
    rejected = await run("decides", ["reject"])
    assert isinstance(rejected, DeadLettered)
    assert rejected.failure.text == "no path"


async def test_child_that_died_while_nobody_looked_is_no_jobs_fault(run: Run, deaths: list[str]) -> None:
    gone = result(await run("ends_while_idle"))
    await eventually_async(lambda: not lives(gone))

    assert result(await run("awaited", [1]))[1] != gone
    assert deaths == []


async def test_no_more_children_than_places_and_each_is_renewed_in_time(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = {result(found)[1] for found in await asyncio.gather(*(run("awaited", [n]) for n in range(8)))}
    monkeypatch.setattr(processes, "JOBS_PER_CHILD", 1)
    last = {result(await run("awaited", [n]))[1] for n in range(3)}

    assert len(pids) == 2
    assert len(last - pids) == 1


async def test_idle_child_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "IDLE_TIME", 0.01)
    pid = result(await run("awaited", [1]))[1]

    await eventually_async(lambda: not lives(pid))


async def test_run_that_is_cancelled_kills_its_child(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    running = asyncio.create_task(run("hangs", [str(path)]))
    await eventually_async(lambda: path.exists() and len(path.read_text().split()) == 2)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    for pid in map(int, path.read_text().split()):
        await eventually_async(lambda pid=pid: not lives(pid))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("module", "queue", "why"),
    [
        ("tests.risky", "broken", "OSError: no database"),
        ("tests.risky", "emails", "declares no consumer of queue 'emails'"),
        ("tests.nowhere", "emails", "No module named 'tests.nowhere'"),
    ],
)
async def test_child_that_cannot_start_says_why(module: str, queue: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        await Processes(Program(module, queue, settings_module.Settings()), 1).start()


async def test_suspect_that_has_no_process_runs_here_and_an_isolated_job_waits() -> None:
    threads = Threads(1)
    program = Program("tests.risky", "broken", settings_module.Settings())
    executor = Executor(risky.broken, threads, Processes(program, 1))

    with capture_logs() as logs:
        suspect = await executor.execute(Message(job="broken.suspected", routing_key=""), suspect=True)
    isolated = await executor.execute(Message(job="broken.never", routing_key=""))
    await executor.close()
    threads.close()

    assert suspect == Succeeded(os.getpid())
    assert [line["event"] for line in logs] == ["suspect not isolated"]
    assert isinstance(isolated, Retried)
    assert isolated.reason == "failed"
    assert "no database" in str(isolated.failure)


DYING_WORKER = """
import asyncio, json, sys
from brokerjobs import Message, settings
from brokerjobs.executor import Executor, Processes, Program, Threads
from consumers import images
from tests import risky

async def main():
    executor = Executor(
        risky.consumer, Threads(1), Processes(Program("tests.risky", "risky", settings.Settings()), 2)
    )
    risky.hangs.timeout = 600
    await asyncio.gather(*(
        executor.execute(Message(job="risky.hangs", routing_key="", body=json.dumps([path]).encode()))
        for path in sys.argv[1:]
    ))

asyncio.run(main())
"""


async def test_no_child_outlives_a_worker_that_is_killed(tmp_path: Path) -> None:
    """Though its job never returns to Python. What the job has started is beyond our reach then."""
    paths = [tmp_path / "1", tmp_path / "2"]
    command = [sys.executable, "-c", DYING_WORKER, *map(str, paths)]
    worker = subprocess.Popen(command)  # noqa: ASYNC220  (nothing to wait for)
    try:
        await eventually_async(lambda: all(path.exists() and path.read_text().count(" ") for path in paths))
        found = [list(map(int, path.read_text().split())) for path in paths]
        assert all(lives(child) for child, _ in found)
    finally:
        worker.kill()
        worker.wait()

    for child, started in found:
        await eventually_async(lambda child=child: not lives(child))  # type: ignore[misc]
        os.kill(started, signal.SIGKILL)

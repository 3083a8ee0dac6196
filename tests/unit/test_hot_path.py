"""What a job costs on its way through a worker and a publisher, beside the raw client: nobody doubles it unseen.

Steps of the interpreter and writes are the same on every machine. CPU time is not: here the least of several rounds of
each is compared, because what disturbs a round only adds to it, and the bound is wide. `make bench-quick` is narrower.
"""

from __future__ import annotations

import pytest

from bench.floors import IN_MEMORY
from bench.hot_path import PAIRS, Drain, Publish, cost

FEWEST, MOST = 6, 15  # rounds: from the fewest on, the first that suffices is the last
JOBS = 300
WIDE = 0.75  # of the floor, which has a margin of its own


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What is bought once is nobody's cost; Python 3.12 counts no step of who counts first, and later ones learn."""
    for pair in PAIRS.values():
        for path in pair:
            cost(path, 10)
            if not path.in_threads:
                cost(path, 10, steps=True)


@pytest.mark.parametrize("name", [name for name, (ours, _) in PAIRS.items() if not ours.in_threads])
def test_a_job_takes_no_more_steps_than_it_did(name: str) -> None:
    ours, raw = (cost(path, 60, steps=True).steps for path in PAIRS[name])

    assert raw / ours >= IN_MEMORY[f"{name}, steps"].least


@pytest.mark.parametrize("name", PAIRS)
def test_a_job_takes_no_more_time_than_it_did(name: str) -> None:
    bound, best = IN_MEMORY[f"{name}, CPU"].least * WIDE, dict.fromkeys(PAIRS[name], 1.0)
    for number in range(1, MOST + 1):
        for path in PAIRS[name]:
            best[path] = min(best[path], cost(path, JOBS).seconds)
        ours, raw = best.values()
        if number >= FEWEST and raw / ours >= bound:
            return
    pytest.fail(f"{raw / ours:.2f} times as fast as the raw client, where {bound:.2f} is the least")


@pytest.mark.parametrize("path", [Drain, Publish])
def test_answers_and_sends_of_one_turn_leave_in_one_write(path: type[Drain | Publish]) -> None:
    assert cost(path, 400).writes < 0.1


def test_steps_are_the_same_each_time() -> None:
    first, second = (cost(Drain, 60, steps=True).steps for _ in range(2))

    assert first == pytest.approx(second, rel=0.02)

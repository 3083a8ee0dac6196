"""Fuzz each target, and keep what is worth keeping.

    python -m tests.fuzz

MINUTES is for all targets together, TARGETS chooses some. What it has found before is taken up again from `.fuzz`.
Exits with 1 when an input failed; it is in the corpus then, and the ordinary tests fail until that is mended.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.fuzz import corpus
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

LONGEST = 2048  # bytes of an input
SLOW = 5  # seconds for one input, after which it counts as hung
HEAP = 1024  # MiB


def main() -> int:
    chosen = os.environ.get("TARGETS", "").split() or list(TARGETS)
    seconds = float(os.environ.get("MINUTES") or 5) * 60 / len(chosen)
    failed = [target for target in chosen if _fuzz(target, seconds)]
    for target in failed:
        print(f"{target} failed: the input is the last line of tests/fuzz/corpus/{target}-failed.txt")
    return 1 if failed else 0


def _fuzz(target: str, seconds: float) -> bool:
    """Whether an input failed."""
    work = corpus.ROOT / ".fuzz" / target
    inputs, failures = work / "inputs", work / "failures"
    for folder in (inputs, failures):
        folder.mkdir(parents=True, exist_ok=True)
    for old in failures.iterdir():
        old.unlink()
    for number, data in enumerate([*SEEDS[target], *corpus.kept(target)]):
        (inputs / f"seed-{number}").write_bytes(data)
    print(f"{target}: {seconds:.0f} s, from {len(list(inputs.iterdir()))} inputs", flush=True)
    options = [
        f"-max_total_time={seconds:.0f}",
        f"-max_len={LONGEST}",
        f"-timeout={SLOW}",
        f"-rss_limit_mb={HEAP}",
        f"-artifact_prefix={failures}/",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", target, *options, str(inputs)], check=False
    )
    found = [path.read_bytes() for path in failures.iterdir()]
    corpus.keep_failed(target, found)
    corpus.keep(target, corpus.telling(TARGETS[target], [path.read_bytes() for path in inputs.iterdir()]))
    return bool(ended.returncode or found)


if __name__ == "__main__":
    sys.exit(main())

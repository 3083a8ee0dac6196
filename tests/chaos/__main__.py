"""`python -m tests.chaos`: a run as SEED, MINUTES, JOBS, RABBITMQ, FAULTS and CLUSTER ask for it; see `make chaos`."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.chaos import trial
from tests.chaos.plan import from_environment

SHOWN = 20  # violations


def main() -> int:
    plan = from_environment(os.environ, seed=random.SystemRandom().randrange(10**6))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and all that was started ends too
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    kept = os.environ.get("JOURNALS")
    report = trial.run(plan, folder=Path(kept) if kept else None, say=say)
    invalid = trial.why_invalid(report, plan)
    for violation in report.violations[:SHOWN]:
        say(f"{violation.kind.upper()} {violation.id}: {violation.text}")
    print(json.dumps(trial.as_json(report, plan, invalid)))
    return 1 if report.violations or invalid else 0


if __name__ == "__main__":
    sys.exit(main())

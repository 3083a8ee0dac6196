"""A process of a contestant: its sender or its worker, so that none pays for what another imports.

    python -m bench.process raw_pika Pika send '{"how": "pipelined", "count": 5000}'
    python -m bench.process raw_pika Pika work

`BENCH_PLAN` holds the plan.
"""

from __future__ import annotations

import json
import os
import sys
import time

from bench.adapter import Order, Plan, find, jobs


def main(module: str, name: str, verb: str, detail: str = "{}") -> None:
    adapter = find(module, name)(Plan.given())
    if verb == "work":
        for _ in range(adapter.plan.processes - 1 if adapter.forked else 0):
            if not os.fork():
                break
        adapter.work()
        return
    order = Order(**json.loads(detail))
    adapter.open()
    began, cpu = time.monotonic(), time.process_time()
    adapter.send(order.how, jobs(order))
    print(json.dumps({"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}))
    sys.stdout.flush()
    adapter.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Measure brokerjobs beside its peers, on a RabbitMQ of its own.

    python -m bench

Options are environment variables: see docs/performance.md. The last line is JSON.
"""

from __future__ import annotations

import json
import os
import pkgutil
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from rich.console import Console

from bench import contestants, machine, report, store
from bench.adapter import Adapter, entrants
from bench.brokers import node
from bench.contest import Stage
from bench.figures import Table
from bench.sections import REFERENCE, Bench, drain, enqueue, growth, lasting, latency

SECTIONS = {
    "enqueue": enqueue.enqueue,
    "drain": drain.drain,
    "drain-def": drain.drain_def,
    "latency": latency.latency,
    "io": drain.io,
    "cpu": drain.cpu,
    "backlog": growth.backlog,
    "body": growth.body,
    "queues": growth.queues,
    "scaling": drain.scaling,
    "consumers": drain.consumers,
    "children": lasting.children,
    "soak": lasting.soak,
}
USUAL = "enqueue drain drain-def latency io"
MODULES = sorted(
    (module.name for module in pkgutil.iter_modules(contestants.__path__)),
    key=lambda name: (name != "ours", not name.startswith("raw"), name),
)


class BadOption(Exception):
    """An environment variable cannot be used; says which and why."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for."""

    sections: tuple[str, ...]
    peers: tuple[str, ...]
    rounds: int
    jobs: int
    waiting: int
    minutes: float
    rabbitmq: tuple[str, ...]
    markdown: bool

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Options:
        """From the environment.

        Raises:
            BadOption: a value cannot be used.
        """
        sections = tuple(environment.get("SECTIONS", USUAL).replace(",", " ").split())
        if sections == ("all",):
            sections = tuple(name for name in SECTIONS if name != "soak")
        for name in sections:
            if name not in SECTIONS:
                raise BadOption(f"SECTIONS: there is no {name!r}; there are {', '.join(SECTIONS)}, and all")
        peers = tuple(environment.get("PEERS", "").lower().replace(",", " ").split())
        for name in peers:
            if name not in MODULES:
                raise BadOption(f"PEERS: there is no {name!r}; there are {', '.join(MODULES)}")
        return cls(
            sections=sections,
            peers=peers,
            rounds=_number(environment, "ROUNDS", 3),
            jobs=_number(environment, "JOBS", 5_000),
            waiting=_number(environment, "WAITING", 100_000),
            minutes=float(_number(environment, "MINUTES", 30)),
            rabbitmq=tuple(environment.get("RABBITMQ", "3.10").split()),
            markdown=environment.get("MARKDOWN", "") not in ("", "0"),
        )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "").replace("_", "")
    if not text:
        return default
    if not text.isdigit() or not int(text):
        raise BadOption(f"{name} must be a whole number above 0, not {text!r}")
    return int(text)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    console = Console(stderr=False, soft_wrap=False, width=None if sys.stdout.isatty() else 180)
    try:
        options = Options.read(os.environ)
    except BadOption as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    results = {}
    for version in options.rabbitmq:
        with ExitStack() as stack:
            running = stack.enter_context(node(version))
            stage, without = Stage(running.url), ""
            try:
                stage = Stage(running.url, stack.enter_context(store.running()))
            except store.NoRedis as why:
                without = str(why)
            entered, missing = _contestants(options, stage, without)
            print(machine.line(running.version, entered))
            for word in missing:
                print(f"  left out: {word}")
            bench = Bench(
                stage, entered, options.rounds, options.jobs, options.waiting, options.minutes, _say
            )
            tables = [_run(name, bench, options, console) for name in options.sections]
            print(f"\nload average at the end: {machine.load()}; medians of {options.rounds} rounds (lowest–highest) "
                  f"×ratio to {REFERENCE}, the median over the rounds")  # fmt: skip
            results[".".join(map(str, running.version))] = report.plain(tables)
    print(json.dumps(results))
    return 0


def _run(name: str, bench: Bench, options: Options, console: Console) -> Table:
    table = SECTIONS[name](bench)
    _say("")
    if options.markdown:
        print("\n" + report.markdown(table))
    else:
        report.show(table, console)
    sys.stdout.flush()
    return table


def _contestants(options: Options, stage: Stage, without: str) -> tuple[list[type[Adapter]], list[str]]:
    """Who takes part, in the order of the tables, and a word about each who does not."""
    found: list[type[Adapter]] = []
    missing = []
    for module in MODULES:
        if options.peers and module != "ours" and module not in options.peers:
            continue
        try:
            entered = entrants(module)
        except ImportError as error:
            missing.append(f"{module}: {error}")
            continue
        missing += [f"{one.title}: {without}" for one in entered if not _has_broker(one, stage)]
        found += [one for one in entered if _has_broker(one, stage)]
    return found, missing


def _has_broker(who: type[Adapter], stage: Stage) -> bool:
    return who.on == "rabbitmq" or bool(stage.redis)


def _say(text: str) -> None:
    """Progress, on a terminal only: over the line before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""How it ended: what the worker logged, held against what the queues hold and what the seed foretold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brokerjobs.demo.holdings import Holdings
from brokerjobs.demo.ledger import Ledger
from brokerjobs.demo.plan import Plan
from brokerjobs.durations import text


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known at the end, from each source.

    Args:
        ledger: from the publishers' confirms and the worker's log.
        holdings: from the queues.
        dead_ids: from the dead letter queues, per queue.
        metrics: from the worker.
        message_ids: from the mail server.
        order_states: from the shop's database: how many orders are in which state.
    """

    ledger: Ledger
    holdings: Holdings
    dead_ids: Mapping[str, Sequence[str]]
    metrics: Counter[tuple[str, str]]
    message_ids: Sequence[str]
    order_states: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Check:
    """Two things that must agree."""

    claim: str
    expected: object
    found: object

    @property
    def holds(self) -> bool:
        return self.expected == self.found


def check(plan: Plan, evidence: Evidence) -> Iterator[Check]:
    """All that must agree."""
    ledger, holdings = evidence.ledger, evidence.holdings
    yield Check("published = done + dead", len(ledger.entries), ledger.done + ledger.dead.total())
    yield Check("done, as the seed foretells", plan.expected.done, ledger.done)
    yield Check("dead, as the seed foretells", plan.expected.dead, ledger.dead)
    for queue, found in evidence.dead_ids.items():
        yield Check(f"{queue}.dead holds what died", sorted(ledger.ids(queue, "dead")), sorted(found))
    yield Check("work queues are empty", 0, sum(holdings.ready.values()))
    yield Check("delay levels are empty", 0, holdings.delayed)
    yield Check("jobs.unrouted is empty", 0, holdings.unrouted)
    for outcome in ("succeeded", "retried", "dead"):
        counted = evidence.metrics["brokerjobs_jobs_finished_total", outcome]
        yield Check(f"metrics count the attempts {outcome}", ledger.outcomes[outcome], counted)
    mails = {f"<{id}@example.com>" for id in ledger.ids("emails", "done")}
    yield Check("the mail server has each mail done", mails, set(evidence.message_ids))
    shipped = len(ledger.ids("shipping", "done"))
    states = Counter(shipped=shipped, failed=len(plan.orders) - shipped)
    yield Check("the database has each order", states, Counter(evidence.order_states))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures, for people and for programs.

    Args:
        seed: from which all of it can be had again.
        rabbitmq: the broker's version.
        by_demo: how many jobs the demo published; the steps that orders sent come on top.
        ledger: of all jobs.
        checks: of the counts.
        duration: seconds from the first publish to the last outcome.
    """

    seed: int
    rabbitmq: str
    by_demo: int
    ledger: Ledger
    checks: Sequence[Check]
    duration: float

    @property
    def agrees(self) -> bool:
        return all(check.holds for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; durations in seconds."""
        ledger = self.ledger
        return {
            "agrees": self.agrees,
            "seed": self.seed,
            "rabbitmq": self.rabbitmq,
            "published": len(ledger.entries),
            "published_by_demo": self.by_demo,
            "published_by_jobs": len(ledger.entries) - self.by_demo,
            "done": ledger.done,
            "dead": ledger.dead.total(),
            "dead_by_reason": dict(ledger.dead.most_common()),
            "dead_by_queue": ledger.dead_by_queue(),
            "retried": ledger.retried,
            "retried_by_reason": self._by_reason(),
            "waits": {
                "count": len(ledger.waits),
                "sum": round(sum(ledger.waits), 3),
                "longest": round(max(ledger.waits, default=0.0), 3),
            },
            "duration": round(self.duration, 3),
            "checks": len(self.checks),
            "disagreements": [
                {"claim": check.claim, "expected": repr(check.expected), "found": repr(check.found)}
                for check in self.checks
                if not check.holds
            ],
        }

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """Name, figure and explanation."""
        ledger, by_demo = self.ledger, self.by_demo
        steps = len(ledger.entries) - by_demo
        yield (
            "published",
            str(len(ledger.entries)),
            f"{by_demo} by the demo, {steps} by orders as they went on",
        )
        yield "done", str(ledger.done), ""
        yield "dead", str(ledger.dead.total()), _list(ledger.dead)
        yield "retried", str(ledger.retried), _list(self._by_reason())
        longest = text(max(ledger.waits, default=0.0))
        yield "waits", text(sum(ledger.waits)), f"in the delay levels, in all; the longest {longest}"
        yield "took", text(self.duration), f"RabbitMQ {self.rabbitmq}, --seed {self.seed}"

    def _by_reason(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for (_, reason), count in self.ledger.retries.items():
            counts[reason] += count
        return counts


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())

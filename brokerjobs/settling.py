"""Settle the runs of one queue: once each, by the first decision, and only after what follows from it is confirmed."""

from __future__ import annotations

import asyncio

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from brokerjobs.amqp.connection import ConnectionLost
from brokerjobs.amqp.settlement import Settlement
from brokerjobs.errors import BrokerJobsError
from brokerjobs.gate import Gate
from brokerjobs.logs import log
from brokerjobs.outcome import Outcome, Released, Succeeded
from brokerjobs.records import Records
from brokerjobs.runs import FOLLOWED_UP, Run, Runs

UNCONFIRMED = "publisher"  # who pauses a queue while its copies are not confirmed
TRIES_BEFORE_PAUSE = 3


class Settling:
    """How the runs of one queue get settled.

    Args:
        queue: as users say it.
        settlement: publishes copies and answers deliveries.
        runs: remembers what a message still needs, should it come again.
        gate: paused while copies are not confirmed.
        records: told of what was lost.
    """

    def __init__(self, queue: str, settlement: Settlement, runs: Runs, gate: Gate, records: Records) -> None:
        self._queue = queue
        self._settlement = settlement
        self._runs = runs
        self._gate = gate
        self._records = records
        self._unconfirmed: set[Run] = set()

    def decide(self, run: Run, outcome: Outcome) -> None:
        """Begin to settle by this outcome, while the job goes on; the first decision holds."""
        if run.settling is None:
            run.outcome = outcome
            run.settling = asyncio.create_task(self._settle(run, outcome))

    async def end(self, run: Run, outcome: Outcome) -> None:
        """Nothing runs any more: settle by this outcome, unless the job has decided; return once it is settled."""
        run.has_ended = True
        if run.settling is not None:
            await run.settling
            return
        run.outcome = outcome
        run.settling = run.task
        await self._settle(run, outcome)

    async def _settle(self, run: Run, outcome: Outcome) -> None:
        owed = outcome
        try:
            if isinstance(outcome, Released):
                self._runs.give_back(run.identity)
            else:
                if not isinstance(outcome, Succeeded):
                    await self._follow_up(run, outcome)
                owed = FOLLOWED_UP
                self._runs.owe(run, owed)
            await self._settlement.settle(run.delivery, outcome)
        except ConnectionLost as error:
            if not isinstance(outcome, Released):
                self._runs.owe(run, owed)
            self._records.settlement_lost(run.message, outcome, error)

    async def _follow_up(self, run: Run, outcome: Outcome) -> None:
        """Publish the copy; while it is not confirmed, hold the original and try again with backoff."""
        try:
            async for attempt in AsyncRetrying(
                wait=wait_random_exponential(multiplier=0.5, max=30),
                retry=retry_if_exception_type(BrokerJobsError),
                before_sleep=lambda state: self._held(run, state),
            ):
                with attempt:
                    if not run.delivery.is_live:
                        raise ConnectionLost("the session of this delivery has ended")
                    await self._settlement.follow_up(run.message, outcome, self._queue)
        finally:
            if run in self._unconfirmed:
                self._unconfirmed.discard(run)
                if not self._unconfirmed:
                    self._gate.resume(UNCONFIRMED)

    def _held(self, run: Run, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.error("copy not confirmed, job held", queue=self._queue, id=run.message.id, error=str(error))
        if state.attempt_number >= TRIES_BEFORE_PAUSE:
            self._unconfirmed.add(run)
            self._gate.pause(UNCONFIRMED, f"retries or dead letters cannot be published: {error}")

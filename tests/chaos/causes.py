"""Why a message arrived twice: the cause must stand in the journals, at the right time and for the right process.

A message comes again in one of two ways. It is *delivered again*, because who had it did not settle it: killed,
frozen, cut off, its acknowledgement lost. Or there are *two copies* of it, because a publish was sent again when its
confirm did not come. Only the first kind is marked `redelivered`, so an unmarked repeat needs a cause of the second.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.chaos.history import NEVER, Fault, History, Notice, Run, Send

# Seconds. A lost connection is noticed after three heartbeats at the latest, on each side by itself.
NOTICED = 60.0
# On a classic queue an acknowledgement is on disk a moment later; under load that moment is longer.
UNDONE = 20.0
# Until publishers are back to normal after a fault: backoff, a connection to open again.
AFTERMATH = 5.0
# A copy is published when its run ends, and its worker needs a moment for that.
COPIED = 2.0
# A process that ended by itself is seen so a moment later.
SEEN = 1.0
SLACK = 0.05


class Causes:
    """Finds causes in a history.

    Args:
        history: of the run.
        absorbing: whether a process must recognise what it has run itself, so that a lost session or
            acknowledgement explains a repeat in another process only.
    """

    def __init__(self, history: History, *, absorbing: bool) -> None:
        self._absorbing = absorbing
        self._faults = sorted(history.faults, key=lambda fault: fault.began)
        self._deaths = _Times(notice for notice in history.notices if notice.event == "died")
        ends = "session ended", "queue lost"
        self._sessions = _Times(notice for notice in history.notices if notice.event in ends)
        self._by_id: dict[str, list[Notice]] = defaultdict(list)
        for notice in history.notices:
            if notice.id:
                self._by_id[notice.id].append(notice)

    def of_run(self, again: Run, before: Sequence[Run], sends: Sequence[Send], parents: Sequence[Run]) -> str:
        """Why this run is a repeat of those before; empty when nothing explains it.

        Args:
            again: the repeat.
            before: runs of the same message that began earlier.
            sends: all sends of its id.
            parents: runs of the attempt before, each of which may have made a copy.
        """
        for earlier in reversed(before):
            if cause := self._delivered_again(earlier, again):
                return cause
        return self.of_copy(again.started, sends, parents)

    def of_copy(self, at: float, sends: Sequence[Send], parents: Sequence[Run]) -> str:
        """Why there is a second copy of a message by this time; empty when nothing explains it."""
        if not parents:
            if len(sends) > 1:
                return "sent again"
            if any(self._shaken(send.invoked, send.ended, "resend") for send in sends):
                return "send unsure"
            since = min((send.invoked for send in sends if send.delay), default=NEVER)
        else:
            if len(parents) > 1:
                return "copied again"
            since = parents[0].finished
            if since == NEVER:
                since = parents[0].started
            if self._shaken(since, since + COPIED, "resend"):
                return "copy unsure"
        # On its way through the delay levels the broker itself publishes it, with confirms of its own.
        return "broker fault" if self._shaken(since, at, "echo") else ""

    def _delivered_again(self, earlier: Run, again: Run) -> str:
        # A worker may replace what comes again by a copy, to count how often it has come.
        if not again.redelivered and again.hop <= earlier.hop:
            return ""
        window = earlier.started - SLACK, again.started + SLACK
        if self._died(earlier, (window[0], window[1] + SEEN)):
            return "killed"
        for event, cause in ("job released", "released"), ("failpoint", "failpoint"):
            if self._has_notice(again.id, event, window):
                return cause
        if self._undone(earlier, again):
            return "broker crash"
        if self._absorbing and (earlier.worker, earlier.pid) == (again.worker, again.pid):
            return ""
        if any(fault.target == earlier.worker for fault in self._during(*window, "freeze")):
            return "frozen"
        late = window[0], window[1] + NOTICED
        if self._has_notice(again.id, "settlement lost", late):
            return "ack lost"
        # What had finished long before its session ended, had been settled on it.
        unsettled_until = again.started if earlier.finished == NEVER else earlier.finished
        ended = self._sessions.between(earlier.worker, *late)
        return "session lost" if any(notice.at <= unsettled_until + NOTICED for notice in ended) else ""

    def _died(self, earlier: Run, window: tuple[float, float]) -> bool:
        deaths = self._deaths.between(earlier.worker, *window)
        return any(notice.pid in (0, earlier.pid) for notice in deaths)

    def _undone(self, earlier: Run, again: Run) -> bool:
        """Whether the broker crashed and forgot that it was settled."""
        crashes = self._during(earlier.started, again.started, "undo")
        if self._absorbing and (earlier.worker, earlier.pid) == (again.worker, again.pid):
            return False
        return any(earlier.finished == NEVER or fault.began <= earlier.finished + UNDONE for fault in crashes)

    def _has_notice(self, id: str, event: str, window: tuple[float, float]) -> bool:
        return any(
            notice.event == event and window[0] <= notice.at <= window[1]
            for notice in self._by_id.get(id, ())
        )

    def _shaken(self, began: float, ended: float, effect: str) -> bool:
        return any(True for _ in self._during(began, ended, effect))

    def _during(self, began: float, ended: float, effect: str) -> Iterable[Fault]:
        for fault in self._faults:
            if fault.began > ended:
                return
            if effect in fault.effects and fault.ended + AFTERMATH >= began:
                yield fault


class _Times:
    """Notices by worker, in the order of time."""

    def __init__(self, notices: Iterable[Notice]) -> None:
        self._notices: dict[str, list[Notice]] = defaultdict(list)
        for notice in sorted(notices, key=lambda notice: notice.at):
            self._notices[notice.worker].append(notice)

    def between(self, worker: str, began: float, ended: float) -> Sequence[Notice]:
        known = self._notices.get(worker, [])
        first = bisect_left(known, began, key=lambda notice: notice.at)
        return known[first : bisect_right(known, ended, key=lambda notice: notice.at)]

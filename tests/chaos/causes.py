"""Why a message arrived twice: the cause must stand in the journals, at the right time and for the right process.

A message comes again in one of two ways. It is *delivered again*, because who had it did not settle it: killed,
frozen, cut off, its acknowledgement lost. Or there are *two copies* of it, because a publish was sent again when its
confirm did not come. Only the first kind is marked `redelivered`, so an unmarked repeat needs a cause of the second.

Of several processes under one parent each answers for itself: the end of one, or of the parent, is no cause for what
another one had.
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
            parents: runs of the turn before, each of which may have made a copy.
        """
        for earlier in reversed(before):
            if cause := self._delivered_again(earlier, again) or self._overtaken(earlier, again):
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
        if not again.redelivered or again.hop != earlier.hop:
            return ""
        window = earlier.started - SLACK, again.started + SLACK
        if _any_of(earlier, self._deaths.between(earlier.worker, window[0], window[1] + SEEN)):
            return "killed"
        for event, cause in ("job released", "released"), ("failpoint", "failpoint"):
            if self._has_notice(earlier, event, window):
                return cause
        if self._undone(earlier, again):
            return "broker crash"
        if self._absorbing and (earlier.worker, earlier.pid) == (again.worker, again.pid):
            return ""
        return self._cut_off(earlier, again, window)

    def _overtaken(self, earlier: Run, again: Run) -> str:
        """The delivery that came first ran last: it lay with a process that was cut off, and did not know that yet."""
        if again.redelivered or not earlier.redelivered or again.hop != earlier.hop:
            return ""
        if self._absorbing and (earlier.worker, earlier.pid) == (again.worker, again.pid):
            return ""
        unknowing = again.started - SLACK, again.started + NOTICED
        ends = [
            *self._sessions.between(again.worker, *unknowing),
            *self._deaths.between(again.worker, *unknowing),
        ]
        return "overtaken" if _any_of(again, ends) else ""

    def _cut_off(self, earlier: Run, again: Run, window: tuple[float, float]) -> str:
        """What another process than that of the earlier run need not have recognised."""
        if any(fault.target == earlier.worker for fault in self._during(*window, "freeze")):
            return "frozen"
        late = window[0], window[1] + NOTICED
        if self._has_notice(earlier, "settlement lost", late):
            return "ack lost"
        # What had finished long before its session ended, had been settled on it.
        unsettled_until = again.started if earlier.finished == NEVER else earlier.finished
        until = min(late[1], unsettled_until + NOTICED)
        ended = self._sessions.between(earlier.worker, late[0], until)
        if _any_of(earlier, ended):
            return "session lost"
        return "counted twice" if self._is_there_twice(again, since=earlier.started - NOTICED) else ""

    def _is_there_twice(self, again: Run, *, since: float) -> bool:
        """Whether a worker made a copy of it to count that it came again, and could not acknowledge the original."""
        for counted in self._by_id.get(again.id, ()):
            if counted.event != "redelivery counted" or not since <= counted.at <= again.started:
                continue
            around = counted.worker, counted.at - AFTERMATH, counted.at + NOTICED
            ends = [*self._sessions.between(*around), *self._deaths.between(*around)]
            if any(counted.pid in (0, end.pid) or not end.pid for end in ends):
                return True
        return False

    def _undone(self, earlier: Run, again: Run) -> bool:
        """Whether the broker crashed and forgot that it was settled."""
        crashes = self._during(earlier.started, again.started, "undo")
        if self._absorbing and (earlier.worker, earlier.pid) == (again.worker, again.pid):
            return False
        return any(earlier.finished == NEVER or fault.began <= earlier.finished + UNDONE for fault in crashes)

    def _has_notice(self, run: Run, event: str, window: tuple[float, float]) -> bool:
        told = self._by_id.get(run.id, ())
        return _any_of(
            run,
            (notice for notice in told if notice.event == event and window[0] <= notice.at <= window[1]),
        )

    def _shaken(self, began: float, ended: float, effect: str) -> bool:
        return any(True for _ in self._during(began, ended, effect))

    def _during(self, began: float, ended: float, effect: str) -> Iterable[Fault]:
        for fault in self._faults:
            if fault.began > ended:
                return
            if effect in fault.effects and fault.ended + AFTERMATH >= began:
                yield fault


def _any_of(run: Run, notices: Iterable[Notice]) -> bool:
    """Whether any of these tells of the process that had this run."""
    return any(notice.worker == run.worker and notice.pid in (0, run.pid) for notice in notices)


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

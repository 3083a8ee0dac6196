"""The blocking publisher: one owner thread with one pika connection serves all threads of a program.

pika connections may be touched by one thread at a time, and must be served even while nobody publishes (heartbeats).
So callers hand their messages over and wait for the answer with a deadline; the owner writes whatever has come
together: fifty threads and `send_many` share one pipeline. A caller that is alone does the owner's work meanwhile.
After a fork the child starts over with a thread and a connection of its own.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from brokerjobs.amqp.sending import Sending
from brokerjobs.errors import BrokerJobsError, PublishUnknown
from brokerjobs.senders import Senders
from brokerjobs.settings import Settings
from brokerjobs.transport import Publication

if TYPE_CHECKING:
    from brokerjobs.amqp.owner import Owner

WINDOW = 500  # unconfirmed messages of one send_many
REFILL = 125  # of which so many are awaited together: each wait is two changes of thread
OnPublished = Callable[[str, float | None], None]


class BlockingPublisher:
    """Publishes from ordinary threads; safe across threads and after fork.

    Args:
        settings: where to connect.
        on_published: told each outcome: confirmed, refused or unknown; and after how many seconds, but not of many.
    """

    def __init__(self, settings: Settings, on_published: OnPublished | None = None) -> None:
        self._settings = settings
        self._on_published = on_published
        self._senders = Senders.of(settings)
        self._lock = threading.RLock()
        self._owner: Owner | None = None
        self._is_starting = False  # an owner, by whoever has the lock
        self._inner: BlockingPublisher | None = None  # for handlers of signals that send, within a send
        _publishers.add(self)

    def publish(self, publication: Publication, *, timeout: float) -> None:
        """Publish one message and wait for its confirm; raises as the asyncio publisher does."""
        began = time.monotonic()
        deadline = began + timeout
        self._outcome_of(self._begin(publication, until=deadline), deadline, began)

    def publish_many(
        self, publications: Iterable[Publication | BrokerJobsError], *, timeout: float
    ) -> Iterator[Publication | BrokerJobsError]:
        """Publish a stream of messages, pipelined; gives each in order once it is confirmed, or its error.

        Args:
            publications: taken as needed, so a generator of millions is fine; an error among them stands for a
                message that was refused before. What the iterable raises comes out when all before it have ended.
            timeout: seconds that each message may take once it was handed over.
        """
        window: deque[tuple[Publication | BrokerJobsError, Sending, float]] = deque()
        source, failure = iter(publications), None
        while True:
            try:
                publication = next(source)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            if len(window) >= WINDOW:
                yield from self._results(window, REFILL)
            window.append((publication, self._begin(publication, of_stream=True), time.monotonic() + timeout))
        while window:
            yield from self._results(window, min(REFILL, len(window)))
        if failure is not None:
            raise failure

    def queue_exists(self, queue: str, *, timeout: float) -> bool:
        """Whether the broker has a queue of this name; raises BrokerUnreachable when it cannot be asked."""
        deadline = time.monotonic() + timeout
        sending = Sending(queue=queue)
        self._hand_over(sending)
        return sending.answer(deadline)

    def close(self) -> None:
        """End the connection; what waits for a confirm has its fate unknown."""
        with self._lock:
            owner, self._owner = self._owner, None
        if owner is not None:
            owner.stop()
        if self._inner is not None:
            self._inner.close()

    def forget(self) -> None:
        """In the child of a fork: the thread is not here, and the connection is the parent's."""
        self._lock = threading.RLock()
        self._owner, self._is_starting = None, False

    def _hand_over(self, sending: Sending, *, of_stream: bool = False, until: float | None = None) -> None:
        if (owner := self._owner) is not None:
            if owner.is_within:
                self._hand_over_within(sending, of_stream=of_stream)
                return
            if owner.take(sending, of_stream=of_stream, until=until):
                return
        with _loading:  # it brings pika, which a program that never gets here need not load
            from brokerjobs.amqp.owner import Owner

        with self._lock:
            if self._is_starting:
                self._hand_over_within(sending, of_stream=of_stream)
                return
            try:
                self._is_starting = True
                while self._owner is None or not self._owner.take(sending, of_stream=of_stream):
                    self._owner = _started(Owner(self._settings, self._take_over))
            finally:
                self._is_starting = False

    def _hand_over_within(self, sending: Sending, *, of_stream: bool) -> None:
        """Where the handler of a signal sends within a send of its thread, which it cannot wait for."""
        self._inner = self._inner or BlockingPublisher(self._settings)
        self._inner._hand_over(sending, of_stream=of_stream)

    def _take_over(self, broken: Owner, unanswered: list[Sending]) -> None:
        """Send again on another connection what has no answer yet, unless all was closed meanwhile."""
        with self._lock:
            if self._owner is broken:
                self._owner = _started(type(broken)(self._settings, self._take_over))
            for sending in unanswered:
                if self._owner is None or not self._owner.take(sending):
                    sending.why = "the client was closed"
                    sending.resolve(sending.give_up())

    def _begin(
        self,
        publication: Publication | BrokerJobsError,
        *,
        of_stream: bool = False,
        until: float | None = None,
    ) -> Sending:
        if isinstance(publication, BrokerJobsError):
            sending = Sending()
            sending.resolve(publication)
            return sending
        if (signed := self._senders.signed(publication.message)) is not publication.message:
            publication = replace(publication, message=signed)
        sending = Sending(publication)
        self._hand_over(sending, of_stream=of_stream, until=until)
        return sending

    def _results(
        self, window: deque[tuple[Publication | BrokerJobsError, Sending, float]], count: int
    ) -> Iterator[Publication | BrokerJobsError]:
        """The first of a window, once they have ended."""
        if (owner := self._owner) is not None:
            owner.hurry()
        window[count - 1][1].wait(window[0][2])
        for _ in range(count):
            publication, sending, deadline = window.popleft()
            try:
                self._outcome_of(sending, deadline)
            except BrokerJobsError as error:
                yield error
            else:
                yield publication

    def _outcome_of(self, sending: Sending, deadline: float, began: float | None = None) -> None:
        """Wait for the verdict, and count it."""
        try:
            sending.answer(deadline)
        except BrokerJobsError as error:
            if self._on_published is not None:
                self._on_published("unknown" if isinstance(error, PublishUnknown) else "refused", None)
            raise
        if self._on_published is not None:
            self._on_published("confirmed", None if began is None else time.monotonic() - began)


def _started(owner: Owner) -> Owner:
    """Nobody may hand over to a thread whose start was interrupted: it never comes."""
    owner.start()
    return owner


_publishers: weakref.WeakSet[BlockingPublisher] = weakref.WeakSet()
_loading = threading.Lock()


def _after_fork() -> None:
    _loading.release()
    for publisher in list(_publishers):
        publisher.forget()


def _at_exit() -> None:
    for publisher in list(_publishers):
        publisher.close()


# A fork waits until no other thread loads a module here: in the child that thread, and the end of its work, is missing.
os.register_at_fork(before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_after_fork)
atexit.register(_at_exit)

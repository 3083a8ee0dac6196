"""The seams: what a publisher and a sender promise, and which sender `job.send` uses."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, cast

from brokerjobs.message import Message
from brokerjobs.settings import Settings


@dataclass(frozen=True, slots=True)
class JobHandle:
    """A job that the broker has confirmed.

    Args:
        id: the job id, in every attempt, log line and dead letter of it.
        job: the job's name.
    """

    id: str
    job: str


@dataclass(frozen=True, slots=True)
class Publication:
    """One message on its way to an exchange."""

    exchange: str
    routing_key: str
    message: Message


class AsyncPublisher(Protocol):
    async def publish(self, publication: Publication, *, timeout: float) -> None:
        """Return once the broker has confirmed and kept it, else raise PublishRefused or PublishUnknown."""


class Sender(Protocol):
    """What `job.send` and its kin need."""

    def send_message(self, message: Message) -> JobHandle: ...
    async def asend_message(self, message: Message) -> JobHandle: ...
    def send_many(self, messages: Iterable[Message]) -> list[JobHandle]: ...
    async def asend_many(self, messages: Iterable[Message]) -> list[JobHandle]: ...


_sender: Sender | None = None
_settings: Settings | None = None
_lock = threading.Lock()
# A fork waits until no other thread makes the sender: in the child that thread, and the end of its work, is missing.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def sender() -> Sender:
    """The sender of this process: the one given to `use_sender`, else a client made from the settings."""
    global _sender
    if _sender is None:
        with _lock:
            if _sender is None:
                # By name: the client stands above this module and imports it.
                client = importlib.import_module("brokerjobs.client")
                _sender = cast(Sender, client.Client(settings=_settings))
    return _sender


def use_settings(settings: Settings) -> None:
    """Let a default sender that is made later use these settings, not those of the environment."""
    global _settings
    _settings = settings


def use_sender(sender: Sender | None) -> Sender | None:
    """Let `job.send` use this sender (None: a new default one when needed); gives the one before."""
    global _sender
    before, _sender = _sender, sender
    return before

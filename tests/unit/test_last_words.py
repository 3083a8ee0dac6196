"""What the worker knows of a child process."""

from __future__ import annotations

import tempfile
from typing import Any

from brokerjobs import Message
from brokerjobs.executor.children import Child
from brokerjobs.executor.pipe import Begun, Order


class Pipe:
    async def send(self, _: Order) -> None: ...

    async def receive(self) -> Begun:
        return Begun()


async def test_last_words_are_those_of_the_last_job() -> None:
    """A job that ends just after its timeout was asked where it stands, and its child lives on."""
    order = Order(Message(job="a.b", routing_key="a.b"), redelivered=False, timeout=1.0, memory_limit=None)
    with tempfile.TemporaryFile() as faults:
        process, pipe = Any, Pipe()
        child = Child(process, pipe, faults)  # type: ignore[arg-type]
        for words in b"slow job", b"":
            await child.begin(order)
            faults.write(words)
            faults.flush()
            assert child.last_words() == words.decode()

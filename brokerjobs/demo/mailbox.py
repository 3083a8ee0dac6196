"""An SMTP server on this machine that takes mail: from some senders only at the second or third try."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from email import message_from_bytes
from typing import Self

from aiosmtpd.smtp import SMTP, Envelope, Session

HOST = "127.0.0.1"


class Mailbox:
    """Takes mail for everybody; runs on the event loop that enters it.

    Args:
        busy: recipients whose mail is put off, and how often before it is taken (SMTP 451).
        unknown: recipients who are refused for good (SMTP 550).
    """

    def __init__(self, busy: Mapping[str, int] | None = None, unknown: Collection[str] = ()) -> None:
        self._put_off = Counter(dict(busy or {}))
        self._unknown = set(unknown)
        self._server: asyncio.Server | None = None
        self.mails: list[tuple[str, bytes]] = []
        """Message-ID and content of each mail taken."""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(self, loop=loop, hostname="localhost", ident="brokerjobs demo"), HOST, 0
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def message_ids(self) -> list[str]:
        return [message_id for message_id, _ in self.mails]

    def mend(self) -> list[str]:
        """Take mail for the unknown recipients from now on; gives who they are."""
        mended, self._unknown = sorted(self._unknown), set()
        return mended

    # -- called by aiosmtpd

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self._unknown:
            return "550 5.1.1 no such mailbox"
        if self._put_off[address] > 0:
            self._put_off[address] -= 1
            return "451 4.7.1 greylisted, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        self.mails.append((str(message_from_bytes(content)["Message-ID"]), content))
        return "250 OK"

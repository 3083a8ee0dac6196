"""Certificates as files: an authority of the tests' own, what it has signed, and a listener that shows one."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trustme

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in two files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; `file` is what a client needs to trust it.

    Args:
        folder: where its files go.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def sign(self, *names: str, expired: bool = False) -> Pair:
        """A certificate for these hosts."""
        signed = self._ca.issue_cert(
            *names, not_before=PAST, not_after=PAST + datetime.timedelta(days=1) if expired else None
        )
        stem = f"{names[0]}{'-expired' if expired else ''}"
        pair = Pair(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        signed.cert_chain_pems[0].write_to_path(pair.certificate)
        signed.private_key_pem.write_to_path(pair.key)
        return pair


class Listener:
    """Shakes hands with whoever comes, answers nothing, and remembers what came.

    Args:
        pair: shown to clients; None listens without TLS.
        newest: the newest version of TLS that it knows.
    """

    def __init__(self, pair: Pair | None, newest: ssl.TLSVersion | None = None) -> None:
        self._context: ssl.SSLContext | None = None
        if pair is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(pair.certificate, pair.key)
            if newest is not None:
                self._context.set_ciphers("DEFAULT:@SECLEVEL=0")
                with warnings.catch_warnings(
                    action="ignore"
                ):  # old versions are deprecated, which is the point
                    self._context.minimum_version = ssl.TLSVersion.TLSv1
                    self._context.maximum_version = newest
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.came = 0
        self.received = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.came += 1
                connection.settimeout(5)
                with suppress(OSError), connection:
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection:
            self.received += connection.recv(1000)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@contextmanager
def listening(pair: Pair | None, newest: ssl.TLSVersion | None = None) -> Iterator[Listener]:
    listener = Listener(pair, newest)
    try:
        yield listener
    finally:
        listener.close()

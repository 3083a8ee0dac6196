"""Free TCP ports on 127.0.0.1 that several processes can pick at once without colliding.

A node needs seconds from the choice of its ports until it listens. Meanwhile each choice is
marked by a UDP socket bound to the same number: the kernel gives it to one process only, on this
machine (or container) and whatever the user, and takes it back when that process dies.
"""

from __future__ import annotations

import random
import re
import socket
from pathlib import Path
from typing import Self

from brokerjobs.node.errors import NodeFailed

_PREFERRED = range(20_000, 24_000)
_LINUX_CLIENT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_CLIENT_RANGE = range(32_768, 65_536)


class ReservedPort:
    """A port for one listener; nobody else who uses this module gets it until it is closed."""

    def __init__(self, number: int) -> None:
        """Reserve this port.

        Raises:
            OSError: somebody listens there or has reserved it.
        """
        self.number = number
        self._mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._mark.bind(("127.0.0.1", number))
            _ensure_nobody_listens(number)
        except BaseException:
            self._mark.close()
            raise

    def close(self) -> None:
        """Let others have it."""
        self._mark.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reserve(wanted: int = 0) -> ReservedPort:
    """A reserved port: the wanted one if it is free, otherwise any outside of the kernel's range
    for clients (there, an outgoing connection could take it between two starts of a node).

    Raises:
        NodeFailed: none is free.
    """
    candidates = _candidates()
    random.shuffle(candidates)
    for number in [wanted, *candidates] if wanted else candidates:
        try:
            return ReservedPort(number)
        except OSError:
            continue
    raise NodeFailed(f"no free port in {_PREFERRED.start}-{_PREFERRED.stop - 1} on 127.0.0.1")


def listens(number: int) -> bool:
    """True if somebody accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", number)) == 0


def _ensure_nobody_listens(number: int) -> None:
    with socket.socket() as probe:
        # As Erlang does: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", number))
    if listens(number):  # macOS lets us bind beside a listener on all interfaces
        raise OSError(f"somebody listens on port {number}")


def _candidates() -> list[int]:
    client_range = _client_range()
    outside = [number for number in _PREFERRED if number not in client_range]
    return outside or list(_PREFERRED)


def _client_range() -> range:
    try:
        first, last = map(int, re.findall(r"\d+", _LINUX_CLIENT_RANGE.read_text()))
    except (OSError, ValueError):
        return _USUAL_CLIENT_RANGE
    return range(first, last + 1)

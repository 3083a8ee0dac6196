import socket
import subprocess
import sys

import pytest

from brokerjobs.node import ports
from brokerjobs.node.ports import ReservedPort, listens, reserve

RESERVE_AND_WAIT = """
import sys
from brokerjobs.node.ports import reserve
port = reserve(int(sys.argv[1]))
print(port.number, flush=True)
sys.stdin.read()
"""


def test_a_port_is_given_once() -> None:
    reserved = [reserve() for _ in range(100)]
    assert len({port.number for port in reserved}) == 100
    for port in reserved:
        port.close()


def test_another_process_gets_another_port() -> None:
    with (
        reserve() as mine,
        subprocess.Popen(
            [sys.executable, "-c", RESERVE_AND_WAIT, str(mine.number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other,
    ):
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        assert theirs != mine.number
        with pytest.raises(OSError, match="in use"):
            ReservedPort(theirs)
        other.kill()
        other.wait()
        ReservedPort(theirs).close()  # the dead hold nothing


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_where_somebody_listens_is_not_given(address: str) -> None:
    with socket.socket() as listener:
        listener.bind((address, 0))
        listener.listen()
        number = listener.getsockname()[1]
        assert listens(number)
        with reserve(number) as port:
            assert port.number != number
    assert not listens(number)


def test_the_wanted_port_is_given_if_it_is_free() -> None:
    with reserve() as port:
        number = port.number
    with reserve(number) as port:
        assert port.number == number


def test_no_port_is_one_that_the_kernel_gives_to_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_client_range", lambda: range(10_000, 23_990))
    reserved = [reserve() for _ in range(5)]
    assert all(port.number >= 23_990 for port in reserved)
    for port in reserved:
        port.close()

"""Results and errors on their way between processes; no process is needed to see how they come out."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest

from brokerjobs import JobTimeout, Reject, RetryLater
from brokerjobs.executor.parcels import Error, Result
from brokerjobs.failure import Failure


class Picky(OSError):
    """Its own `__init__` gets something else from a pickle than from its maker."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Locked(ConnectionError):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()
        self.tries = 3


class Unprintable(ValueError):
    def __str__(self) -> str:
        return str(self.args[1])


class Explosive:
    def __reduce__(self) -> Any:
        raise ZeroDivisionError


class Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("raise KeyError",))


def sent(error: Exception) -> Exception:
    """The error as it comes out on the other side, with what is said of it there."""
    try:
        raise error
    except Exception as raised:
        parcel = pickle.loads(pickle.dumps(Error.of(raised)))
    received: Exception = parcel.error()
    said = Failure.of(received)
    assert said == Failure.of(error)
    assert "in sent" in said.traceback
    return received


@pytest.mark.parametrize("value", [None, 7, {"a": [1, b"x"]}, {1, 2}])
def test_result_comes_out_as_it_was(value: Any) -> None:
    assert pickle.loads(pickle.dumps(Result.of(value))).value() == value


@pytest.mark.parametrize("value", [threading.Lock(), lambda: 1, Explosive(), Bomb()])
def test_result_that_does_not_travel_says_so(value: Any) -> None:
    with pytest.raises(ValueError, match=r"cannot be pickled|KeyError"):
        Result.of(value).value()


def test_ordinary_errors_come_out_whole() -> None:
    received = sent(ConnectionRefusedError(111, "refused"))

    assert isinstance(received, ConnectionRefusedError)
    assert (received.errno, str(received)) == (111, "[Errno 111] refused")
    assert isinstance(sent(JobTimeout("late")), JobTimeout)
    assert str(sent(Reject("gone"))) == "gone"


@pytest.mark.parametrize("reason", ["", "busy"])
def test_retry_later_keeps_its_wait_and_its_reason(reason: str) -> None:
    error = RetryLater("30s", reason)
    received = sent(error)

    assert isinstance(received, RetryLater)
    assert (received.after, str(received)) == ("30s", str(error))


def test_error_that_a_pickle_would_distort_gets_a_stand_in_of_its_class() -> None:
    received = sent(Picky(503))

    assert isinstance(received, Picky)
    assert (received.code, received.args) == (503, ("code 503",))


def test_error_that_cannot_be_pickled_keeps_its_plain_attributes() -> None:
    received = sent(Locked())

    assert isinstance(received, Locked)
    assert (received.tries, str(received)) == (3, "locked")
    assert not hasattr(received, "lock")


def test_error_of_a_class_that_cannot_be_imported_becomes_its_base() -> None:
    class Local(Locked):
        pass

    received = sent(Local())

    assert type(received) is Locked


def test_stand_in_can_be_printed() -> None:
    received = sent(Unprintable("x"))

    assert type(received) is ValueError


def test_error_whose_class_is_not_here_becomes_its_base() -> None:
    error = Error(
        Failure(text="lost"),
        b"",
        (("nowhere", "Lost"), ("builtins", "LookupError"), ("builtins", "object")),
        {},
    )

    assert type(error.error()) is LookupError
    assert str(Error(Failure(text="lost"), b"no pickle", (), {}).error()) == "lost"

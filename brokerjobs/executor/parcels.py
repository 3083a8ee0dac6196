"""What a job returned or raised, on its way from one process to another.

Pickled where that works. Where it does not, a result is left behind, and a stand-in takes the place of an error:
of its class, or the nearest that can be imported, with its text and its plain attributes, so that a retry policy
judges it as it would judge the error itself.
"""

from __future__ import annotations

import importlib
import pickle
from dataclasses import dataclass
from typing import Any

from brokerjobs.failure import Failure, said_of


@dataclass(frozen=True, slots=True)
class Result:
    """What a job returned.

    Args:
        pickled: empty when it could not be.
    """

    pickled: bytes

    @classmethod
    def of(cls, value: Any) -> Result:
        return cls(_pickle(value))

    def value(self) -> Any:
        """What the job returned.

        Raises:
            ValueError: it cannot be made here.
        """
        if not self.pickled:
            raise ValueError("it cannot be pickled")
        try:
            return pickle.loads(self.pickled)
        except Exception as error:  # its class may do anything
            raise ValueError(str(Failure.of(error))) from error


@dataclass(frozen=True, slots=True)
class Error:
    """What a job raised.

    Args:
        failure: what is to be said of it.
        pickled: empty when it could not be.
        classes: module and name of its class and that one's bases, nearest first.
        attributes: of its own, those of plain types.
    """

    failure: Failure
    pickled: bytes
    classes: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]

    @classmethod
    def of(cls, error: Exception) -> Error:
        found = getattr(error, "__dict__", {})
        return cls(
            failure=Failure.of(error),
            pickled=_pickle(error) if _survives(error) else b"",
            classes=tuple((base.__module__, base.__qualname__) for base in type(error).__mro__),
            attributes={name: value for name, value in found.items() if _is_plain(value)},
        )

    def error(self) -> Exception:
        """The error or its stand-in; `Failure.of` says of it what was said where it was raised."""
        error = self._unpickled() or self._stand_in()
        said_of(error, self.failure)
        return error

    def _unpickled(self) -> Exception | None:
        try:
            error = pickle.loads(self.pickled)
        except Exception:  # no such class here, for instance
            return None
        return error if isinstance(error, Exception) else None

    def _stand_in(self) -> Exception:
        for module, name in self.classes:
            try:
                error = _made(module, name, self.failure.text)
                for attribute, value in self.attributes.items():
                    setattr(error, attribute, value)
                str(error)
            except Exception:  # not to be found, not to be made so, or not to be printed: the next base
                continue
            return error
        return Exception(self.failure.text)


def _made(module: str, name: str, text: str) -> Exception:
    """One of this class, without its `__init__`, of which nobody knows what it asks for."""
    found: Any = importlib.import_module(module)
    for word in name.split("."):
        found = getattr(found, word)
    if not issubclass(found, Exception):
        raise TypeError(f"{name} is no exception")
    error: Exception = found.__new__(found)
    error.args = (text,)
    return error


def _pickle(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception:  # a lock, a connection, a class inside a function, a __reduce__ that raises
        return b""


def _survives(error: Exception) -> bool:
    """Whether it comes out of a pickle as it was put in; an `__init__` of its own may get the wrong arguments."""
    try:
        copy = pickle.loads(pickle.dumps(error))
        return type(copy) is type(error) and str(copy) == str(error)
    except Exception:
        return False


def _is_plain(value: Any) -> bool:
    return value is None or type(value) in (str, bytes, int, float, bool)

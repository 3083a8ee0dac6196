"""A job's parameters: checked when a message is made and again before it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs, ErrorDetails

from brokerjobs.errors import BrokerJobsError, ConfigurationError

MISTAKES_NAMED = 10


class ArgumentError(BrokerJobsError):
    """The arguments do not fit the signature."""


class Signature:
    """The parameters of a function, with pydantic's rules for their types.

    A function whose only parameter is `body: bytes` takes raw bodies: nothing is decoded or checked.

    Raises:
        ConfigurationError: for positional-only or `*args` parameters, which JSON objects cannot name.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._signature = inspect.signature(function)
        parameters = list(self._signature.parameters.values())
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise ConfigurationError(
                    f"{_name(function)}: parameter {parameter.name!r} cannot be given by name; "
                    "a job's arguments travel as a JSON object"
                )
        self.is_raw = [(p.name, p.annotation) for p in parameters] in (
            [("body", bytes)],
            [("body", "bytes")],
        )

    def __str__(self) -> str:
        return str(_as_written(self._signature))

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name, checked and converted.

        Raises:
            ArgumentError: with each parameter that does not fit.
        """
        checker = self._checker
        try:
            positional, named = checker.validate_python(ArgsKwargs(args, kwargs))
        except ValidationError as error:
            raise ArgumentError(f"{_name(self._function)}{self}: {self._explain(error)}") from None
        except Exception as error:  # in a validator of the user's own
            raise ArgumentError(
                f"{_name(self._function)}{self}: a check of its own raised {type(error).__name__}"
            ) from error
        if not positional:
            return named
        return {**dict(zip(self._signature.parameters, positional, strict=False)), **named}

    def check(self) -> None:
        """Resolve the annotations now rather than at the first message.

        Raises:
            ConfigurationError: if pydantic cannot check one of them.
        """
        _ = self._checker

    @functools.cached_property
    def _checker(self) -> TypeAdapter[tuple[tuple[Any, ...], dict[str, Any]]]:
        @functools.wraps(self._function)
        def arguments(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        try:
            return TypeAdapter(arguments)  # type: ignore[arg-type]  # a function's schema checks its call
        except (PydanticUserError, NameError, TypeError) as error:
            raise ConfigurationError(
                f"{_name(self._function)}{self}: cannot check its annotations: {error}"
            ) from error

    def _explain(self, error: ValidationError) -> str:
        """What is wrong with which argument, without the values: they may be secret."""
        mistakes = error.errors(include_url=False, include_input=False)
        said = [f"{self._place(item['loc'])}: {_say(item)}" for item in mistakes[:MISTAKES_NAMED]]
        if len(mistakes) > MISTAKES_NAMED:
            said.append(f"and {len(mistakes) - MISTAKES_NAMED} more")
        return "; ".join(said)

    def _place(self, place: tuple[int | str, ...]) -> str:
        """`address.street`; a key of a dictionary is a value too, and shows as `…`."""
        declared = repr(self._checker.core_schema)
        parameters = [
            p.name for p in self._signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        first, *inner = place or ("arguments",)
        if isinstance(first, int) and first < len(parameters):
            first = parameters[first]
        words = [str(word) if isinstance(word, int) or repr(word) in declared else "…" for word in inner]
        return ".".join([str(first), *words])


def _say(mistake: ErrorDetails) -> str:
    if mistake["type"] == "union_tag_invalid":  # whose message quotes the tag
        return f"Input tag is none of {mistake['ctx']['expected_tags']}"
    return mistake["msg"]


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


class _Written:
    """An annotation that Python kept as text, shown without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _as_written(signature: inspect.Signature) -> inspect.Signature:
    def shown(annotation: Any) -> Any:
        return _Written(annotation) if isinstance(annotation, str) else annotation

    return signature.replace(
        parameters=[p.replace(annotation=shown(p.annotation)) for p in signature.parameters.values()],
        return_annotation=shown(signature.return_annotation),
    )

"""A job's parameters: checked when a message is made and again before it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs

from brokerjobs.errors import BrokerJobsError, ConfigurationError


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
        return str(self._signature)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name, checked and converted.

        Raises:
            ArgumentError: with each parameter that does not fit.
        """
        try:
            positional, named = self._checker.validate_python(ArgsKwargs(args, kwargs))
        except ValidationError as error:
            raise ArgumentError(f"{_name(self._function)}{self}: {explain(error)}") from None
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


def explain(error: ValidationError) -> str:
    """What is wrong with which argument, without the values: they may be secret."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    )


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))

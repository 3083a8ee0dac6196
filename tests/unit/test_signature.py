from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from brokerjobs.errors import ConfigurationError
from brokerjobs.payload import decode, encode
from brokerjobs.signature import ArgumentError, Signature


class Colour(enum.Enum):
    RED = "red"


class Address(BaseModel):
    street: str
    number: int


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Moody(BaseModel):
    """A model with a validator that breaks."""

    mood: str

    @field_validator("mood")
    @classmethod
    def _look_up(cls, mood: str) -> str:
        return {"good": "fine"}[mood]


@dataclass
class Point:
    x: int
    y: int


def welcome(user_id: int, locale: str = "en", *, loud: bool = False) -> None: ...


def typed(annotation: Any) -> Signature:
    """The signature of a function with one parameter, `value`, of this type."""

    def function(value: Any) -> None: ...

    function.__annotations__["value"] = annotation
    return Signature(function)


# ---- binding


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((7,), {}),
        ((), {"user_id": 7}),
        ((7, "en"), {}),
        ((7,), {"locale": "en", "loud": False}),
        (("7",), {"loud": "no"}),
    ],
)
def test_arguments_are_bound_as_python_would_and_defaults_filled_in(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    assert Signature(welcome).bind(args, kwargs) == {"user_id": 7, "locale": "en", "loud": False}


def test_function_without_parameters_takes_nothing() -> None:
    def tick() -> None: ...

    assert Signature(tick).bind((), {}) == {}
    with pytest.raises(ArgumentError):
        Signature(tick).bind((1,), {})


def test_parameter_without_annotation_takes_anything() -> None:
    def loose(a, b=None):  # type: ignore[no-untyped-def]
        ...

    assert Signature(loose).bind(([1],), {"b": {"x": None}}) == {"a": [1], "b": {"x": None}}


def test_further_named_arguments_are_bound_where_they_are_taken() -> None:
    def open_ended(a: int, **rest: int) -> None: ...

    assert Signature(open_ended).bind((1,), {"b": "2", "c": 3}) == {"a": 1, "b": 2, "c": 3}


async def test_async_function_is_bound_without_running() -> None:
    async def never(a: int) -> None:
        raise AssertionError("must not run")

    assert Signature(never).bind(("1",), {}) == {"a": 1}


def test_annotations_behind_a_decorator_count() -> None:
    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    signature = Signature(traced(welcome))

    assert signature.bind((), {"user_id": "7"})["user_id"] == 7


CONVERSIONS: list[tuple[Any, Any, Any]] = [
    (int, "7", 7),
    (float, 7, 7.0),
    (bool, "yes", True),
    (datetime, "2026-11-22T00:00:00Z", datetime(2026, 11, 22, tzinfo=UTC)),
    (date, "2026-11-22", date(2026, 11, 22)),
    (timedelta, "P1D", timedelta(days=1)),
    (UUID, "00000000-0000-0000-0000-000000000007", UUID(int=7)),
    (Decimal, "9.90", Decimal("9.90")),
    (Colour, "red", Colour.RED),
    (Address, {"street": "Unter den Linden", "number": "1"}, Address(street="Unter den Linden", number=1)),
    (Point, {"x": 1, "y": 2}, Point(1, 2)),
    (list[int], ["1", 2], [1, 2]),
    (set[int], [1, 1], {1}),
    (dict[str, Address], {"a": {"street": "b", "number": 1}}, {"a": Address(street="b", number=1)}),
    (int | None, None, None),
    (bytes, "abc", b"abc"),
    (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": "dog"}, Dog(kind="dog")),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), CONVERSIONS)
def test_json_becomes_the_type_that_the_job_asked_for(annotation: Any, value: Any, expected: Any) -> None:
    assert typed(annotation).bind((), {"value": value}) == {"value": expected}


@pytest.mark.parametrize(("annotation", "_", "value"), CONVERSIONS)
def test_what_is_sent_arrives_as_the_same(annotation: Any, _: Any, value: Any) -> None:
    """Checked when sent, written as JSON, read, checked again."""
    signature = typed(annotation)

    args, kwargs = decode(encode(signature.bind((value,), {})), None, None)

    assert signature.bind(tuple(args), kwargs) == {"value": value}


# ---- what does not fit


@pytest.mark.parametrize(
    ("args", "kwargs", "complaints"),
    [
        ((), {}, ["user_id: Missing required argument"]),
        ((), {"user_id": "x"}, ["user_id: Input should be a valid integer"]),
        (("x",), {}, ["user_id: Input should be a valid integer"]),
        ((7, 8), {}, ["locale: Input should be a valid string"]),
        ((7, "en", True), {}, ["2: Unexpected positional argument"]),
        ((7,), {"userid": 8}, ["userid: Unexpected keyword argument"]),
        ((7,), {"user_id": 8}, ["user_id: Got multiple values for argument"]),
        ((), {"locale": 1, "loud": "x"}, ["user_id: Missing", "locale: Input", "loud: Input"]),
        ((None,), {}, ["user_id: Input should be a valid integer"]),
    ],
)
def test_each_argument_that_does_not_fit_is_named(
    args: tuple[Any, ...], kwargs: dict[str, Any], complaints: list[str]
) -> None:
    with pytest.raises(ArgumentError) as caught:
        Signature(welcome).bind(args, kwargs)

    assert str(caught.value).startswith("welcome(user_id: int, locale: str = 'en', *, loud: bool = False)")
    for complaint in complaints:
        assert complaint in str(caught.value)


def test_place_inside_an_argument_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"value\.1\.street: Field required"):
        typed(list[Address]).bind((), {"value": [{"street": "a", "number": 1}, {"number": 1}]})


SECRET = "hunter2"
TYPES: list[Any] = [annotation for annotation, _, _ in CONVERSIONS] + [
    Literal["a"],
    dict[str, int],
    dict[int, int],
    dict[str, dict[str, int]],
    tuple[int, int],
    int | float,
    Annotated[str, Field(max_length=2)],
    Annotated[str, Field(pattern="a+")],
    Moody,
]
HIDING: list[Any] = [
    SECRET,
    SECRET.encode(),
    [SECRET],
    {SECRET: SECRET},
    {"kind": SECRET},
    {"street": [SECRET]},
    {"mood": SECRET},
    {SECRET: {SECRET: SECRET}},
    [{SECRET: {"deep": SECRET}}],
]


@pytest.mark.parametrize("annotation", TYPES, ids=str)
@pytest.mark.parametrize("value", HIDING, ids=str)
def test_value_of_an_argument_never_shows_in_an_error(annotation: Any, value: Any) -> None:
    signature = typed(annotation)
    try:
        signature.bind((), {"value": value})
    except ArgumentError as error:
        said = str(error)
    else:
        said = ""  # it fits

    assert SECRET not in said


def test_many_mistakes_make_no_endless_error() -> None:
    with pytest.raises(ArgumentError, match="and 99990 more") as caught:
        typed(list[int]).bind((), {"value": ["x"] * 100_000})

    assert len(str(caught.value)) < 2000


def test_few_mistakes_are_all_named() -> None:
    with pytest.raises(ArgumentError) as caught:
        typed(list[int]).bind((), {"value": ["x"] * 10})

    assert "value.9: Input should be" in str(caught.value)
    assert "more" not in str(caught.value)


def test_tag_that_fits_no_alternative_is_told_from_those_that_do() -> None:
    with pytest.raises(ArgumentError, match=r"value: Input tag is none of 'cat', 'dog'"):
        typed(Annotated[Cat | Dog, Field(discriminator="kind")]).bind((), {"value": {"kind": SECRET}})


def test_validator_that_breaks_is_an_argument_that_does_not_fit() -> None:
    with pytest.raises(ArgumentError, match="a check of its own raised KeyError"):
        typed(Moody).bind((), {"value": {"mood": "bad"}})

    assert typed(Moody).bind((), {"value": {"mood": "good"}})["value"].mood == "fine"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    )
)
def test_any_json_is_bound_or_refused(value: Any) -> None:
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((value,), {}),
        ((), {"user_id": value}),
        ((7,), {"locale": value}),
    ]
    for args, kwargs in arguments:
        with suppress(ArgumentError):
            bound = Signature(welcome).bind(args, kwargs)

            assert isinstance(bound["user_id"], int)
            assert isinstance(bound["locale"], str)


# ---- what cannot be a job


def positional_only(a: int, /) -> None: ...


def starred(*args: int) -> None: ...


@pytest.mark.parametrize("function", [positional_only, starred])
def test_parameter_that_json_cannot_name_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"parameter '(a|args)' cannot be given by name"):
        Signature(function)


def test_annotation_that_cannot_be_checked_is_refused_when_asked_for() -> None:
    class Opaque: ...

    def opaque(thing: Opaque) -> None: ...

    def misspelt(thing: Unheard) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function in (opaque, misspelt):
        with pytest.raises(ConfigurationError, match="cannot check its annotations"):
            Signature(function).check()


def test_annotations_of_a_module_are_resolved_late() -> None:
    """A job may be declared above the model it takes."""

    def early(later: Later) -> None: ...

    signature = Signature(early)

    signature.check()
    assert signature.bind((), {"later": {"n": "1"}})["later"] == Later(n=1)


class Later(BaseModel):
    n: int


# ---- raw bodies


def raw(body: bytes) -> None: ...


def raw_and_more(body: bytes, more: int = 0) -> None: ...


def otherwise_named(data: bytes) -> None: ...


def text_body(body: str) -> None: ...


def test_one_parameter_named_body_of_bytes_takes_raw_bodies() -> None:
    def unquoted(body) -> None:  # type: ignore[no-untyped-def]
        ...

    unquoted.__annotations__["body"] = bytes

    assert Signature(raw).is_raw
    assert Signature(unquoted).is_raw


@pytest.mark.parametrize("function", [raw_and_more, otherwise_named, text_body, welcome])
def test_other_parameters_take_json(function: Callable[..., Any]) -> None:
    assert not Signature(function).is_raw

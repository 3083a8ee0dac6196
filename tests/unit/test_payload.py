from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from brokerjobs import payload
from brokerjobs.errors import NotSerializable, UndecodableMessage
from brokerjobs.payload import decode, encode

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


# ---- there and back


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_arguments_by_name_come_back_as_they_were(arguments: dict[str, Any]) -> None:
    assert decode(encode(arguments), "application/json", None) == ([], arguments)


@given(st.lists(VALUES, max_size=5))
def test_arguments_by_position_come_back_as_they_were(arguments: list[Any]) -> None:
    assert decode(encode(arguments), "application/json", None) == (arguments, {})


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_any_json_writer_will_do(arguments: dict[str, Any]) -> None:
    for written in (json.dumps(arguments), json.dumps(arguments, ensure_ascii=False, indent=2)):
        assert decode(written.encode(), None, None) == ([], arguments)


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t"])
def test_empty_body_is_no_arguments(body: bytes) -> None:
    assert decode(body, None, None) == ([], {})


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":":","b":"c:d","e":"\\":","f":"\\\\","g":{"a":[{"a":1},{"a":"\\\\\\":"}]}}',
        b'["a:b","a:b",{"k" : 1},{"k"\n:\t2}]',
    ],
)
def test_one_name_in_several_objects_and_colons_in_texts_are_no_doubles(body: bytes) -> None:
    args, kwargs = decode(body, None, None)

    assert (args or kwargs) == json.loads(body)


@given(VALUES, TEXTS)
def test_name_that_stands_twice_is_found_wherever_it_stands(value: Any, name: str) -> None:
    written = json.dumps(name)
    for inner in f"{{{written}: 1, {written} :2}}", f'{{"x": {{{written}:1,"y":[],{written}:2}}}}':
        with pytest.raises(UndecodableMessage, match="stands twice in one object of the body"):
            decode(f'[{json.dumps(value)}, "a:", {inner}]'.encode(), None, None)


class Address(BaseModel):
    street: str


@dataclass
class Order:
    id: UUID
    at: datetime
    price: Decimal
    ships_within: timedelta
    to: Address


def test_kinds_of_pydantic_are_written_as_json() -> None:
    order = Order(
        id=UUID(int=7),
        at=datetime(2026, 11, 22, tzinfo=UTC),
        price=Decimal("9.90"),
        ships_within=timedelta(days=1),
        to=Address(street="Unter den Linden"),
    )

    body = encode({"order": order, "tags": {"new"}})

    assert json.loads(body) == {
        "order": {
            "id": "00000000-0000-0000-0000-000000000007",
            "at": "2026-11-22T00:00:00Z",
            "price": "9.90",
            "ships_within": "P1D",
            "to": {"street": "Unter den Linden"},
        },
        "tags": ["new"],
    }


# ---- what is not sent


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def mixed(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (float("nan"), "no word for NaN and infinity"),
        ([float("inf")], "no word for NaN and infinity"),
        ({"deep": [-float("inf")]}, "no word for NaN and infinity"),
        (object(), "unknown type: <class 'object'>"),
        ("\ud800", "surrogates"),
        (b"\xff", "utf-8"),
        (cycle(), "cannot be written as JSON"),
        (nested(400), "cannot be written as JSON"),
        (mixed(230), "read again as JSON .recursion limit"),
        (nested(230), "read again as JSON .recursion limit"),
        pytest.param(10**5000, "read again as JSON .number out of range", id="5,000 digits"),
    ],
)
def test_what_json_cannot_carry_is_not_sent(value: Any, complaint: str) -> None:
    with pytest.raises(NotSerializable, match=complaint):
        encode({"value": value})


@pytest.mark.parametrize(
    "value",
    ["NaN", "-Infinity", {"NaN": "Infinity"}, "1" * 5000, "[{" * 300],
    ids=lambda value: str(value)[:12],
)
def test_text_that_looks_like_it_is_sent(value: Any) -> None:
    assert decode(encode({"value": value}), None, None) == ([], {"value": value})


@pytest.mark.parametrize("before", [0, 1, 50, 99])
def test_number_of_too_many_digits_is_found_wherever_it_stands(before: int) -> None:
    for value in 10**5000, [10**5000]:
        with pytest.raises(NotSerializable, match="number out of range"):
            encode({"text": "x" * before, "value": value, "end": "x" * 10_000})


def test_large_text_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "from_json", None)
    words = "NaN, -Infinity, 20261122, [[{{: "

    assert json.loads(encode({"text": words * 4000, "user_id": 7})) == {"text": words * 4000, "user_id": 7}


def test_depth_has_one_limit_on_both_sides() -> None:
    deepest = nested(63)  # in the object of arguments
    assert decode(encode({"value": deepest}), None, None) == ([], {"value": deepest})
    with pytest.raises(NotSerializable, match="deeper than 64 levels"):
        encode({"value": nested(64)})
    with pytest.raises(UndecodableMessage, match="deeper than 64 levels"):
        decode(json.dumps({"value": mixed(64)}).encode(), None, None)


def test_no_call_is_made_for_each_value_of_a_large_body() -> None:
    rows = [{"id": n, "price": n / 7, "tags": ["a", {"b": n}]} for n in range(1000)]
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    body, before = encode({"rows": rows}), sys.getprofile()
    sys.setprofile(count)
    try:
        taken = decode(body, None, None)
    finally:
        sys.setprofile(before)

    assert taken == ([], {"rows": rows})
    assert calls < 100


# ---- what is not taken


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b'{"a": 1', "not JSON: EOF while parsing an object"),
        (b"user_id=7", "not JSON: expected value at line 1 column 1$"),
        (b'{"a": 1} {"b": 2}', "not JSON: trailing characters"),
        (b"{'a': 1}", "not JSON: key must be a string"),
        (b'\xef\xbb\xbf{"a": 1}', "starts with a byte order mark; send UTF-8 without one"),
        ('{"a": 1}'.encode("utf-16"), "looks like UTF-16; send UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "looks like UTF-16; send UTF-8"),
        ('{"a": 1}'.encode("utf-16-be"), "looks like UTF-16; send UTF-8"),
        ('{"a": "é"}'.encode("latin-1"), "is not UTF-8"),
        ("{“a”: 1}".encode("cp1252"), "is not UTF-8"),
        (b"\x80\x04\x95\x00", "is not UTF-8"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": -Infinity}', "not JSON"),
        (b'{"a": 1e999}', "number too large to represent"),
        (b'{"a": [{"b": -1E+999}]}', "number too large to represent"),
        (b'{"a": 1.5, "b": [[], [2.5, "c", 1e999, 3.5]]}', "number too large to represent"),
        (b'{"a": ' + b"1" * 400 + b".5}", "number too large to represent"),
        (b'{"a": ' + b"1" * 300 + b"e99}", "number too large to represent"),
        (b'{"a": ' + b"1" * 5000 + b"}", "number out of range"),
        (b'["\\ud800"]', "not JSON"),
        (b'["\\udc00\\ud800"]', "not JSON"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"a":' * 100_000, "recursion limit"),
        (b"[" * 100_000 + b"]" * 100_000, "recursion limit"),
        (b"7", "is a JSON number; send an object of arguments"),
        (b"1.5", "is a JSON number"),
        (b"true", "is a JSON boolean"),
        (b"null", "is a JSON null"),
        (b'"user_id"', "is a JSON string"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_body_that_is_no_arguments_is_refused_with_what_is_wrong(body: bytes, complaint: str) -> None:
    with pytest.raises(UndecodableMessage, match=complaint) as caught:
        decode(body, "application/json", None)

    assert caught.value.reason == "json"


@given(st.binary(max_size=200))
def test_any_bytes_are_arguments_or_refused(body: bytes) -> None:
    with suppress(UndecodableMessage):
        args, kwargs = decode(body, None, None)

        assert not (args and kwargs)


@pytest.mark.parametrize(
    "content_type",
    [
        None, "", "application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "text/json",
        "application/cloudevents+json", "text/plain",
    ],
)  # fmt: skip
def test_json_by_any_of_its_names_is_taken(content_type: str | None) -> None:
    assert decode(b'{"a": 1}', content_type, "utf-8") == ([], {"a": 1})


@pytest.mark.parametrize(
    "content_type",
    [
        "application/octet-stream",
        "application/x-python-serialize",
        "application/msgpack",
        "text/html",
        "json",
    ],
)
def test_other_content_type_is_refused_by_name(content_type: str) -> None:
    with pytest.raises(UndecodableMessage, match=content_type) as caught:
        decode(b'{"a": 1}', content_type, None)

    assert caught.value.reason == "content_type"
    assert "send application/json" in str(caught.value)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "base64", "utf-16", "latin-1"])
def test_other_encoding_is_refused_by_name(encoding: str) -> None:
    with pytest.raises(UndecodableMessage, match=encoding) as caught:
        decode(b'{"a": 1}', "application/json", encoding)

    assert caught.value.reason == "encoding"
    assert "UTF-8" in str(caught.value)


@pytest.mark.parametrize("encoding", [None, "", "utf-8", "UTF-8", "utf8", "identity"])
def test_plain_encoding_is_taken(encoding: str | None) -> None:
    assert decode(b"[1]", None, encoding) == ([1], {})

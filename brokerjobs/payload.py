"""Bodies: a JSON object holds a job's arguments by name, an array by position, nothing means none."""

from __future__ import annotations

import json
import math
import re
from itertools import chain
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from brokerjobs.errors import NotSerializable, UndecodableMessage

JSON = "application/json"

Arguments = tuple[list[Any], dict[str, Any]]

# What the encoder writes of a large int, and `decode` would refuse: 4,000 digits in a row are 40 in every hundredth
# byte. To look for all of them took four times as long as to write a text; a false alarm costs a second look.
_EVERY = 100
_MANY_DIGITS = re.compile(rb"\d{40}")
# The parser's own limit is about 200; what validates and prints nested values is recursive too.
DEPTH = 64
# Where a name ends, or a string that looks like it; and whole strings, for a second look.
_NAME = re.compile(rb'"\s*:')
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PLAIN = frozenset((str, int, bool, type(None)))
_NO_NUMBER = re.compile(rb"\b(?:NaN|Infinity)\b")

# What the parser says of what people have not heard of.
_HINTS = {
    "recursion limit": "it is nested deeper than 64 levels",
    "number out of range": "a number of more than 4,300 digits",
    "hex escape": "an escape such as \\ud800 is half a character: both halves must be there",
    "surrogate": "an escape such as \\ud800 is half a character: both halves must be there",
}


def encode(arguments: Any) -> bytes:
    """The JSON for the arguments.

    Raises:
        NotSerializable: for what JSON cannot carry: unknown types, NaN and infinity, cycles, lone surrogates,
            more than 64 levels, ints of more than 4,300 digits.
    """
    try:
        body = to_json(arguments)
    except PydanticSerializationError as error:
        raise NotSerializable(f"the arguments cannot be written as JSON: {error}") from None
    if _holds_many_digits(body) or not (_is_flat(arguments) or _is_shallow(body)):
        _read_again(body)
    return body


def _holds_many_digits(body: bytes) -> bool:
    return len(body) >= 4000 and _MANY_DIGITS.search(body[::_EVERY]) is not None


def _is_shallow(body: bytes) -> bool:
    """Whether it has surely no more levels than it may, nor NaN or infinity."""
    if body.count(b"[") + body.count(b"{") > DEPTH:  # which is no less than the depth
        return False
    return b"NaN" not in body and b"Infinity" not in body


def _read_again(body: bytes) -> None:
    """Refuse what no worker could decode; parsing every body would cost as much as writing it."""
    try:
        _members_checked(from_json(body, allow_inf_nan=False))
    except UndecodableMessage as error:
        raise NotSerializable(f"no worker could read the arguments: {error}") from None
    except ValueError as error:
        raise NotSerializable(
            f"the arguments could not be read again as JSON ({error}): it has no word for NaN and infinity, "
            f"and is read to {DEPTH} levels and 4,300 digits"
        ) from None


def decode(body: bytes, content_type: str | None, content_encoding: str | None) -> Arguments:
    """The positional and named arguments in a body.

    Strict: UTF-8 without a mark, no NaN, no infinite numbers, at most 64 levels deep, no name twice in an object
    (of which programs take the first or the last, so that what one has checked the next might not run).

    Raises:
        UndecodableMessage: with the reason `encoding`, `content_type` or `json`.
    """
    if content_encoding and content_encoding.lower() not in ("utf-8", "utf8", "identity"):
        raise UndecodableMessage(
            "encoding",
            f"content_encoding is {content_encoding!r}; brokerjobs takes plain UTF-8 only",
        )
    if content_type and content_type != JSON and not _is_json(content_type):
        raise UndecodableMessage(
            "content_type",
            f"content_type is {content_type!r}; send {JSON}, or let a raw job (body: bytes) take it",
        )
    if not body or body.isspace():
        return [], {}
    return _split(_parse(body))


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    return media in (JSON, "text/json") or media.endswith("+json") or media == "text/plain"


def _parse(body: bytes) -> Any:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise UndecodableMessage("json", f"the body is not JSON: {error}{_hint(body, str(error))}") from None
    members = len(value) if _is_flat(value) else _members_checked(value)
    if body.count(b":") > members:  # for a name that stands twice, or within a text
        _refuse_double_names(members, body)
    return value


def _is_flat(value: Any) -> bool:
    """Whether it is an object of plain values, as most are; none of these can be too deep or too large."""
    return type(value) is dict and _PLAIN.issuperset(map(type, value.values()))


def _members_checked(value: Any) -> int:
    """How many names all objects have together; outside of strings the body has a colon for each.

    Level by level: to call a function for each value took several times as long as to parse the body.
    """
    members, depth, level = 0, 0, [value]
    while True:
        kinds = set(map(type, level))
        if float in kinds and not all(map(math.isfinite, [found for found in level if type(found) is float])):
            raise UndecodableMessage("json", "the body holds a number too large to represent")
        if kinds.isdisjoint((list, dict)):
            return members
        depth += 1
        if depth > DEPTH:
            raise UndecodableMessage("json", f"the body is nested deeper than {DEPTH} levels")
        objects = [found for found in level if type(found) is dict]
        members += sum(map(len, objects))
        lists = [found for found in level if type(found) is list]
        level = [*chain.from_iterable(lists), *chain.from_iterable(map(dict.values, objects))]


def _refuse_double_names(members: int, body: bytes) -> None:
    if members < len(_NAME.findall(body)) and members < _STRING.sub(b"", body).count(b":"):
        raise UndecodableMessage("json", f"the name {_double(body)!r} stands twice in one object of the body")


def _double(body: bytes) -> str:
    """A name that stands twice in an object of this JSON."""
    doubles: list[str] = []

    def look(members: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in members]
        doubles.extend(name for name in names if names.count(name) > 1)

    json.loads(body, object_pairs_hook=look)
    return doubles[0]


def _hint(body: bytes, parser_says: str) -> str:
    for words, hint in _HINTS.items():
        if words in parser_says:
            return f" ({hint})"
    if body.startswith(b"\xef\xbb\xbf"):
        return " (it starts with a byte order mark; send UTF-8 without one)"
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in body[:2]:
        return " (it looks like UTF-16; send UTF-8)"
    if body.startswith(b"\x1f\x8b"):
        return " (it looks like gzip; send it as it is)"
    try:
        body.decode()
    except UnicodeDecodeError:
        return " (it is not UTF-8)"
    return " (it has no word for NaN and infinity)" if _NO_NUMBER.search(body) else ""


def _split(value: Any) -> Arguments:
    match value:
        case dict():
            return [], value
        case list():
            return value, {}
    raise UndecodableMessage(
        "json",
        f"the body is a JSON {_kind(value)}; send an object of arguments, or an array of positional ones",
    )


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case None:
            return "null"
        case str():
            return "string"
    return "number"

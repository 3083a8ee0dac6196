"""What must hold of any bytes that a broker, or whoever publishes through it, may send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from struct import pack, unpack_from
from typing import Any
from unittest.mock import patch

import pamqp.exceptions
import pamqp.frame
from pamqp import commands
from pamqp.decode import TABLE_MAPPING
from pamqp.header import ContentHeader

from brokerjobs.amqp import encode, frames
from brokerjobs.amqp.frames import BrokenStream, Splitter
from brokerjobs.amqp.inlet import Inlet
from brokerjobs.amqp.outlet import Outlet, Verdict
from brokerjobs.amqp.properties import date_of, read_content_header
from brokerjobs.amqp.wire import from_wire
from brokerjobs.message import PROBLEMS, Message, decode, salvage

CHANNEL = 1
LARGEST = 4096
KINDS = frames.METHOD, frames.HEADER, frames.BODY, frames.HEARTBEAT
_plain = ContentHeader.unmarshal  # before anybody replaces it


# -- content headers


def header(data: bytes) -> None:
    """What the library reads is read alike; all else is told in words, and can be published again."""
    try:
        found = read_content_header(data)
    except ValueError:
        assert len(data) < 12, "only a header too short for its fixed part has no body size"
        return
    theirs = _by_library(data)
    if not found.problems:
        assert theirs is not None, "the library cannot read what is said to be without problems"
        assert _alike(found.properties, theirs)
    elif theirs is not None and _is_canonical(theirs, data):
        assert "nested deeper" in found.problems, "the library would have written it just so"
    _can_be_published_again(from_wire(found.properties), found.problems)


def _by_library(data: bytes) -> dict[str, Any] | None:
    made = ContentHeader()
    try:
        with patch.dict(TABLE_MAPPING, {b"D": _decimal}):
            _plain(made, data)
    except Exception:  # whatever its decoders happen to meet
        return None
    return {name: value for name, value in made.properties if value is not None}


def _decimal(value: bytes) -> tuple[int, Decimal]:
    """AMQP and RabbitMQ have no sign here; the library reads one."""
    if len(value) < 5:
        raise ValueError("cut off")
    places, digits = unpack_from(">BI", value)
    return 5, Decimal(digits).scaleb(-places)


def _is_canonical(properties: Mapping[str, Any], data: bytes) -> bool:
    try:
        return commands.Basic.Properties(**properties).marshal() == data[12:]
    except Exception:
        return False


def _alike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Compared as text: a float may be no number, which is equal to nothing. To the library an absent cluster is ""."""
    if "timestamp" in ours:
        ours = {**ours, "timestamp": date_of(ours["timestamp"])}
    return repr({"cluster_id": "", **ours}) == repr({"cluster_id": "", **theirs})


def _can_be_published_again(properties: dict[str, Any], problems: str) -> None:
    """A copy that cannot be written, or cannot be read, would be held for ever."""
    told = {**properties, PROBLEMS: problems} if problems else properties
    message = salvage(told, b"{}", routing_key="emails.welcome", default_id="7")
    copy = message.copy(marks={"error": problems or "why"})
    payload = encode.header(copy.properties(), len(copy.body))
    again = read_content_header(payload)
    assert again.problems == ""
    assert (again.class_id, again.body_size) == (60, 2)
    theirs = _by_library(payload)
    assert theirs is not None
    assert _alike(again.properties, theirs)
    back = decode(from_wire(again.properties), b"{}", routing_key="emails.welcome")
    for name in ("id", "job", "routing_key", "attempt", "due", "timestamp", "priority", "hop"):
        assert getattr(back, name) == getattr(copy, name), name


# -- the stream


@dataclass
class Heard:
    """What became of a stream.

    Args:
        came: deliveries: tag, body, whether it came before, exchange, routing key.
        passed: to the library.
        refused: why the rest was not read, if it was not.
    """

    came: list[tuple[Any, ...]] = field(default_factory=list)
    passed: bytes = b""
    refused: str = ""


def stream(data: bytes) -> None:
    """However a stream is cut, its deliveries are those that the library reads, and what is no stream is refused."""
    raw, cuts = _stream_of(data)
    whole, cut, model = _by_inlet([raw]), _by_inlet(cuts), _by_model(raw)
    assert whole.came == cut.came == model.came
    assert bool(whole.refused) == bool(cut.refused) == bool(model.refused), (whole.refused, model.refused)
    if not whole.refused:
        assert whole.passed == cut.passed == model.passed


def _by_inlet(pieces: list[bytes]) -> Heard:
    heard = Heard()

    def take(arrival: Any) -> None:
        route = arrival.exchange, arrival.routing_key
        heard.came.append((arrival.tag, arrival.body, arrival.redelivered, *route))
        _ = arrival.properties  # never fails; what it reads is the other target's business

    splitter = Splitter(LARGEST)
    splitter.taps[CHANNEL] = Inlet(CHANNEL, lambda _: None, take, together=True).tap
    try:
        for piece in pieces:
            heard.passed += splitter.feed(piece)
    except BrokenStream as error:
        heard.refused = str(error)
    return heard


def _by_model(raw: bytes) -> Heard:
    """Frame by frame, with no thought of speed."""
    heard = Heard()
    try:
        _read_on(raw, heard)
    except Refused as why:
        heard.refused = str(why)
    return heard


class Refused(Exception):
    """What came is no AMQP; says why."""


def _read_on(raw: bytes, heard: Heard) -> None:
    method: bytes | None = None
    content, size = b"", -1  # below 0 as long as there is no header
    if raw and raw[0] not in KINDS:
        heard.passed = raw  # the library's to judge
        return
    while len(raw) >= frames.OVERHEAD:
        kind, channel, length = unpack_from(">BHI", raw)
        _must(kind in KINDS and length <= LARGEST, "no frame")
        if len(raw) < length + frames.OVERHEAD:
            return
        frame, raw = raw[: length + frames.OVERHEAD], raw[length + frames.OVERHEAD :]
        payload = frame[7:-1]
        is_other = payload[:4] != frames.DELIVER if kind == frames.METHOD else method is None
        if channel != CHANNEL or is_other:
            heard.passed += frame
            continue
        _must(frame[-1] == frames.END, "no end")
        if kind == frames.METHOD:
            method, content, size = payload, b"", -1
        elif kind == frames.HEADER:
            _must(size < 0 and len(payload) >= 12, "no header here, or a part of one")
            (size,) = unpack_from(">Q", payload, 4)
        else:
            _must(kind == frames.BODY and size >= 0, "no content")
            content += payload
            _must(len(content) <= size, "more than was told")
        if len(content) == size:
            assert method is not None
            heard.came.append(_delivery(method, content, len(heard.came) + 1))
            method, content, size = None, b"", -1


def _delivery(method: bytes, content: bytes, number: int) -> tuple[Any, ...]:
    """As the library reads it, which does not mind what is cut off."""
    at = 5 + method[4] if len(method) > 4 else 5
    _must(len(method) >= at + 9 and unpack_from(">Q", method, at)[0] == number, "no tag, or not the next")
    route = method[at + 9 :]
    _must(len(route) >= 2 + sum(_lengths(route)), "no route")
    try:
        _, _, read = pamqp.frame.unmarshal(frames.frame(frames.METHOD, CHANNEL, method))
    except pamqp.exceptions.UnmarshalingException:  # a name that is not UTF-8
        exchange, key = _lengths(route)
        names = route[1 : 1 + exchange], route[2 + exchange : 2 + exchange + key]
        return number, content, bool(method[at + 8] & 1), *(_spelled(name) for name in names)
    assert isinstance(read, commands.Basic.Deliver)
    return number, content, read.redelivered, read.exchange, read.routing_key


def _lengths(route: bytes) -> tuple[int, int]:
    first = route[0] if route else 0
    return first, route[1 + first] if len(route) > 1 + first else 0


def _spelled(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _must(holds: bool, why: str) -> None:
    if not holds:
        raise Refused(why)


# -- confirms


class _Writer:
    """Takes what is written."""

    def __init__(self) -> None:
        self.transport = self

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        for raw in frames_in(data):
            pamqp.frame.unmarshal(raw)


_loop = asyncio.new_event_loop()


def confirms(data: bytes) -> None:
    """Each message gets the verdict that the library would read for it, and none waits when the channel has ended."""
    _loop.run_until_complete(_confirms(data))


async def _confirms(data: bytes) -> None:
    count = data[0] % 8 if data else 0
    raw, _ = _stream_of(data[1:])
    outlet = Outlet(CHANNEL, _Writer(), LARGEST)  # type: ignore[arg-type]
    verdicts = {
        number: outlet.publish("jobs", "emails.welcome", _message(str(number)))
        for number in range(1, count + 1)
    }
    await asyncio.sleep(0)  # noqa: TID251  (one turn: what was published is written)
    taken = _taken(raw, outlet.tap)
    assert {number: _fate(verdict) for number, verdict in verdicts.items()} == _fates(count, taken)
    outlet.end(ConnectionError("gone"))
    assert all(verdict.done() for verdict in verdicts.values())


def _message(id: str) -> Message:
    return Message(job="emails.welcome", routing_key="emails.welcome", id=id, body=b"{}")


def _taken(raw: bytes, tap: frames.Tap) -> list[bytes]:
    """The frames that it has taken, until it refused one."""
    taken: list[bytes] = []

    def seen(kind: int, data: bytes, at: int, end: int) -> int:
        if taken_to := tap(kind, data, at, end):
            taken.extend(frames_in(data[at - 7 : taken_to]))
        return taken_to

    splitter = Splitter(LARGEST)
    splitter.taps[CHANNEL] = seen
    with suppress(BrokenStream):
        splitter.feed(raw)
    return taken


def _fate(verdict: Verdict) -> str:
    if not verdict.done():
        return ""
    return type(verdict.exception()).__name__ if verdict.exception() else "confirmed"


def _fates(count: int, taken: list[bytes]) -> dict[int, str]:
    fates = dict.fromkeys(range(1, count + 1), "")
    for fate, numbers in _verdicts(count, taken):
        for number in numbers:
            fates[number] = fates[number] or fate
    return fates


def _verdicts(count: int, taken: list[bytes]) -> Iterator[tuple[str, range]]:
    """As the library reads them."""
    missing, id, is_return = 0, "", False
    for raw in taken:
        if raw[0] == frames.METHOD and raw[7:11] != frames.RETURN:
            _, _, read = pamqp.frame.unmarshal(raw)
            assert isinstance(read, (commands.Basic.Ack, commands.Basic.Nack))
            number = read.delivery_tag or 0
            yield (
                "confirmed" if isinstance(read, commands.Basic.Ack) else "Refused",
                range(1 if read.multiple else number, number + 1),
            )
            continue
        if raw[0] == frames.METHOD:
            is_return = True
            continue
        if raw[0] == frames.HEADER:
            found = read_content_header(raw[7:-1])
            id, missing = found.properties.get("message_id", ""), found.body_size
        else:
            missing -= len(raw) - frames.OVERHEAD
        if is_return and not missing:
            is_return, number = False, int(id)
            yield "Returned", range(number, number + 1)


# -- bytes as streams


def frames_in(raw: bytes) -> Iterator[bytes]:
    """The frames in a well-formed stream."""
    while raw:
        (size,) = unpack_from(">I", raw, 3)
        yield raw[: size + frames.OVERHEAD]
        raw = raw[size + frames.OVERHEAD :]


def written(raw: bytes, *cuts: int) -> bytes:
    """A well-formed stream as an input of the fuzzer, which mends sizes and ends: they would hide all else."""
    data = bytes((len(cuts),)) + b"".join(pack(">H", cut) for cut in cuts)
    for each in frames_in(raw):
        (channel,) = unpack_from(">H", each, 1)
        payload = each[7:-1]
        data += (
            bytes((KINDS.index(each[0]) | (channel != CHANNEL) << 2,)) + pack(">H", len(payload)) + payload
        )
    return data


def _stream_of(data: bytes) -> tuple[bytes, list[bytes]]:
    """A stream, and the same in pieces; what follows a frame of the kind 3 (of 0 to 3) is no frame but raw bytes."""
    count, at = (data[0] % 8, 1) if data else (0, 0)
    cuts = [int.from_bytes(data[at + 2 * each : at + 2 * each + 2], "big") for each in range(count)]
    at += 2 * count
    parts = []
    while at < len(data):
        how, size = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
        payload = data[at + 3 : at + 3 + size]
        at += 3 + size
        if how & 3 == 3:
            parts.append(payload)
        else:
            parts.append(frames.frame(KINDS[how & 3], CHANNEL + (how >> 2 & 1), payload))
    raw = b"".join(parts)
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return raw, [raw[begin:end] for begin, end in pairwise(places)]


TARGETS: dict[str, Callable[[bytes], None]] = {"stream": stream, "header": header, "confirms": confirms}

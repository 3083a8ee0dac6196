from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import commands, encode

from brokerjobs import delay
from brokerjobs.amqp.confirm_channel import to_pika
from brokerjobs.amqp.wire import from_pamqp, to_pamqp
from brokerjobs.message import DRAWN, HEADERS_LIMIT, LATEST, PREFIX, Message, decode, new_id, portable

AMQP_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
SHORT = AMQP_TEXT.filter(lambda text: 0 < len(text.encode()) <= 255)
NUMBERS = st.integers(min_value=0, max_value=2**47)
INT64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)

OWN_NUMBERS = [
    "attempt",
    "generation",
    "hop",
    "due",
    "not-before",
    "not-after",
    "first-at",
    "unknown",
    "died-at",
]
OWN_TEXTS = ["reason", "error", "error-kind", "traceback", "history", "queue", "worker", "user-id"]
HEADER_NAMES = SHORT.filter(
    lambda name: (
        len(name.encode()) <= 128
        and not name.lower().startswith(("x-", PREFIX))
        and name not in ("CC", "BCC")
    )
)

MESSAGES = st.builds(
    Message,
    job=SHORT,
    routing_key=SHORT,
    body=st.binary(max_size=50),
    id=SHORT,
    priority=st.none() | st.integers(min_value=0, max_value=255),
    content_type=st.none() | SHORT,
    content_encoding=st.none() | SHORT,
    timestamp=st.integers(min_value=1, max_value=2**32 - 1),
    correlation_id=st.none() | SHORT,
    reply_to=st.none() | SHORT,
    app_id=st.none() | SHORT,
    attempt=st.integers(min_value=1, max_value=2**47),
    generation=NUMBERS,
    hop=NUMBERS,
    due=NUMBERS,
    not_before=NUMBERS,
    not_after=NUMBERS,
    first_at=NUMBERS,
    unknown=NUMBERS,
    died_at=NUMBERS,
    crashes=NUMBERS,
    redeliveries=NUMBERS,
    headers=st.dictionaries(HEADER_NAMES, AMQP_TEXT | st.booleans() | INT64, max_size=4),
    marks=st.dictionaries(st.sampled_from(OWN_TEXTS), SHORT, max_size=4),
)

Wire = Callable[[Message], dict[str, Any]]


def as_values(message: Message) -> dict[str, Any]:
    return message.properties()


def through_pamqp(message: Message) -> dict[str, Any]:
    """As aio-pika sends and receives it."""
    return arrived(to_pamqp(message).marshal())


def through_pika(message: Message) -> dict[str, Any]:
    """As pika sends it and aio-pika receives it."""
    return arrived(
        b"".join(
            to_pika(message).encode()  # type: ignore[no-untyped-call]
        )
    )


def arrived(frame: bytes) -> dict[str, Any]:
    flags, properties = 0, commands.Basic.Properties()
    flags = int.from_bytes(frame[:2], "big")
    properties.unmarshal(flags, frame[2:])
    return dict(from_pamqp(properties))


# ---- there and back


@pytest.mark.parametrize("wire", [as_values, through_pamqp, through_pika])
def test_message_comes_back_as_it_was_sent(wire: Wire) -> None:
    @given(MESSAGES)
    def there_and_back(message: Message) -> None:
        assert decode(wire(message), message.body, routing_key=message.routing_key) == message

    there_and_back()


@given(MESSAGES, st.integers(min_value=0, max_value=2**delay.LEVELS - 1))
def test_copy_remembers_the_first_routing_key(message: Message, count: int) -> None:
    copy = message.copy(attempt=message.attempt + 1)

    for key in (delay.key(count, delay.to_queue("emails")), "emails"):
        back = decode(copy.properties(), copy.body, routing_key=key)

        assert back.routing_key == message.routing_key
        assert (back.id, back.job, back.attempt) == (message.id, message.job, message.attempt + 1)
        assert back.hop == message.hop + 1


def test_scheduled_message_has_the_topic_key_behind_its_delay() -> None:
    key = delay.key(40, delay.to_key("emails.welcome"))

    assert decode({}, b"", routing_key=key).routing_key == "emails.welcome"
    assert decode({}, b"", routing_key=key).job == "emails.welcome"


def test_copy_keeps_the_marks_and_adds_to_them() -> None:
    message = Message(
        job="emails.welcome", routing_key="orders.created", marks={"reason": "expired", "error": "late"}
    )

    copy = message.copy(marks={"error": "later"})

    assert copy.marks == {"reason": "expired", "error": "later", "key": "orders.created"}
    assert message.marks == {"reason": "expired", "error": "late"}


def test_nothing_is_sent_that_is_as_by_default() -> None:
    message = Message(job="emails.welcome", routing_key="emails.welcome", id="7", timestamp=1_700_000_000)

    assert message.properties() == {
        "content_type": "application/json",
        "delivery_mode": 2,
        "priority": 4,
        "message_id": "7",
        "timestamp": 1_700_000_000,
        "type": "emails.welcome",
    }


# ---- what others publish


def test_message_typed_by_hand_is_a_job() -> None:
    before = int(time.time())

    message = decode({"headers": {}, "delivery_mode": 1}, b"{}", routing_key="emails.welcome")

    assert (message.job, message.routing_key, message.body) == ("emails.welcome", "emails.welcome", b"{}")
    assert (message.attempt, message.generation, message.hop) == (1, 0, 0)
    assert message.priority is None
    assert message.content_type is None
    assert before <= message.timestamp <= time.time()
    assert message.id


def test_type_names_the_job_whatever_the_key() -> None:
    assert decode({"type": "audit.write"}, b"", routing_key="orders.created").job == "audit.write"


def test_message_without_id_gets_the_given_one_or_a_new_one() -> None:
    assert decode({}, b"", routing_key="a.b", default_id="7").id == "7"
    assert decode({}, b"", routing_key="a.b").id != decode({}, b"", routing_key="a.b").id


def test_foreign_user_is_remembered_but_not_sent_on_as_a_property() -> None:
    message = decode({"user_id": "alice"}, b"", routing_key="a.b")

    copy = message.copy()

    assert message.user_id == copy.copied_from == "alice"
    assert "user_id" not in copy.properties()


def test_expiration_is_never_sent_on() -> None:
    """Inside a delay level it would end the wait early."""
    assert "expiration" not in decode({"expiration": "1000"}, b"", routing_key="a.b").copy().properties()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        ("5", 5),
        (5.0, 5),
        (5.9, 5),
        (datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC), 5),
        (-5, 0),
        ("-5", 0),
        ("five", 0),
        ("²", 0),
        ("9" * 5000, 0),
        (True, 0),
        (None, 0),
        (float("nan"), 0),
        (float("inf"), 0),
        (b"5", 0),
        ([5], 0),
        ({"a": 5}, 0),
        (Decimal("5"), 0),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_number_of_ours_in_an_odd_kind_is_read_or_left_out(value: Any, expected: int) -> None:
    message = decode({"headers": {PREFIX + "not-before": value}}, b"", routing_key="a.b")

    assert message.not_before == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (9, 9), (255, 255), (256, None), (-1, None), ("9", None), (True, None)]
)
def test_priority_is_kept_as_delivered_where_it_is_one(value: Any, expected: int | None) -> None:
    assert decode({"priority": value}, b"", routing_key="a.b").priority == expected


def test_seconds_and_milliseconds_of_the_timestamp_are_told_apart() -> None:
    now = 1_700_000_000

    assert decode({"timestamp": now}, b"", routing_key="a.b").timestamp == now
    assert decode({"timestamp": now * 1000 + 7}, b"", routing_key="a.b").timestamp == now
    assert decode({"timestamp": 2**32 - 1}, b"", routing_key="a.b").timestamp == 2**32 - 1
    assert decode({"timestamp": datetime.fromtimestamp(now, UTC)}, b"", routing_key="a.b").timestamp == now


AMQP_KINDS = st.recursive(
    st.none()
    | st.booleans()
    | INT64
    | st.integers(min_value=2**63 - 3, max_value=2**64)
    | st.floats()
    | AMQP_TEXT
    | st.binary(max_size=300)
    | st.binary(max_size=20).map(bytearray)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(AMQP_TEXT, inner, max_size=3),
    max_leaves=5,
)
PROPERTIES = [
    "content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to", "expiration",
    "message_id", "timestamp", "type", "user_id", "app_id",
]  # fmt: skip
HOSTILE_NAMES = (
    st.sampled_from([PREFIX + name for name in (*OWN_NUMBERS, *OWN_TEXTS, "key", "", "unheard-of")])
    | st.sampled_from(["x-death", "X-First-Death-Queue", "CC", "BCC", "traceparent", ""])
    | AMQP_TEXT
    | st.binary(max_size=20)  # what pika makes of a name that is not UTF-8
)
HOSTILE = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(PROPERTIES, AMQP_KINDS),
        "headers": st.dictionaries(HOSTILE_NAMES, AMQP_KINDS, max_size=6) | AMQP_KINDS,
    },
)


@given(HOSTILE, st.binary(max_size=20), AMQP_TEXT.filter(lambda key: len(key.encode()) <= 255))
@example({"message_id": b"\xff" * 255, "type": b"\xff" * 255, "correlation_id": b"\xff" * 255}, b"", "a.b")
@example({"headers": {PREFIX + "hop": 2**63 - 1, PREFIX + "attempt": 2**63 - 1}}, b"", "a.b")
@example({"headers": {PREFIX + "key": "k" * 100_000, PREFIX + "error": ["e"] * 20_000}}, b"", "a.b")
@example({"timestamp": 2**64 - 1, "priority": True}, b"", "a.b")
@example({"timestamp": datetime.min, "headers": {"brokerjobs-due": datetime.max}}, b"", "a.b")
def test_whatever_arrives_is_a_message_that_can_be_sent_on(
    properties: dict[str, Any], body: bytes, routing_key: str
) -> None:
    message = decode(properties, body, routing_key=routing_key)
    copy = message.copy(attempt=message.attempt + 1)

    for wire in (through_pamqp, through_pika):
        back = decode(wire(copy), body, routing_key="anywhere")

        assert (back.id, back.job, back.routing_key) == (message.id, message.job, message.routing_key)
        assert (back.attempt, back.hop) == (min(copy.attempt, LATEST), min(copy.hop, LATEST))
    assert json.dumps(copy.due + copy.died_at + copy.generation)
    assert copy.published_at >= 0
    assert datetime.fromtimestamp(copy.ready_at, UTC)


# ---- headers that travel on


def size_of(headers: dict[str, Any]) -> int:
    """The bytes of these headers on the wire."""
    return len(encode.field_table(headers))


def test_headers_of_the_broker_do_not_travel_on() -> None:
    """`x-death` makes an older broker drop the copy silently; CC would route it twice."""
    kept = portable(
        {"x-death": [{"count": 1}], "X-Delivery-Count": 2, "CC": ["a"], "BCC": ["b"], "tenant": "shop"}
    )

    assert kept == {"tenant": "shop"}


def test_headers_of_other_kinds_travel_as_text() -> None:
    kept = portable(
        {"ratio": 1.5, "raw": b"\xffab", "none": None, "list": [1, "a"], "big": 2**64, "yes": True}
    )

    assert kept == {
        "ratio": "1.5",
        "raw": "\N{REPLACEMENT CHARACTER}ab",
        "none": "",
        "list": "[1, 'a']",
        "big": str(2**64),
        "yes": True,
    }


def test_header_that_is_too_large_does_not_take_the_others_along() -> None:
    kept = portable({"blob": "x" * 100_000, "traceparent": "00-4bf92f-00f067-01"})

    assert kept == {"traceparent": "00-4bf92f-00f067-01"}


def test_header_too_deep_to_be_written_is_emptied() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert portable({"deep": deep, "tenant": "shop"}) == {"deep": "", "tenant": "shop"}


@pytest.mark.parametrize(
    "headers",
    [
        {"blob": "x" * 1_000_000},
        {f"{n:05}": "" for n in range(20_000)},
        {f"{n:05}": True for n in range(20_000)},
        {f"{n:05}" + "値" * 40: 2**62 for n in range(2_000)},
        {f"{n:05}": "€" * 1_000 for n in range(200)},
    ],
    ids=["one blob", "many empty", "many booleans", "long names", "many texts"],
)
def test_foreign_headers_leave_room_for_our_own(headers: dict[str, Any]) -> None:
    assert 0 <= size_of(portable(headers)) <= HEADERS_LIMIT // 2


def test_headers_of_a_copy_stay_within_what_a_connection_takes() -> None:
    huge = "\x01€" * 100_000
    message = Message(
        job="a.b",
        routing_key="k" * 255,
        headers={f"h{n}": "x" * 500 for n in range(1_000)},
        marks=dict.fromkeys(OWN_TEXTS, huge),
        due=2**47,
        died_at=2**47,
        attempt=2**47,
    )

    headers = message.copy(marks={"unheard-of": huge}).properties()["headers"]

    assert size_of(headers) <= 64 * 1024


def test_lone_surrogate_in_an_error_does_not_hold_the_copy_up() -> None:
    message = Message(job="a.b", routing_key="a.b", marks={"error": "no such file: \udcff.txt"})

    assert through_pamqp(message)["headers"][PREFIX + "error"] == "no such file: ?.txt"


# ---- ids and times


def test_new_id_is_a_uuid_of_version_7_that_tells_the_time() -> None:
    before = time.time() - 0.001

    id = uuid.UUID(new_id())

    assert id.version == 7
    assert id.variant == uuid.RFC_4122
    assert before <= (id.int >> 80) / 1000 <= time.time()


def test_new_ids_differ_and_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({new_id() for _ in range(1000)}) == 1000

    ids = []
    for millisecond in range(5):
        monkeypatch.setattr(time, "time_ns", lambda now=1_700_000_000_000 + millisecond: now * 1_000_000)
        ids.append(new_id())

    assert ids == sorted(ids)


def test_the_child_of_a_fork_makes_ids_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    new_id()  # so that more are drawn, and left over
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, " ".join(new_id() for _ in range(20)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = set(os.read(read, 10_000).decode().split())
    os.close(read)
    os.close(write)

    assert len(theirs) == 20
    assert theirs.isdisjoint({new_id() for _ in range(2 * DRAWN)})


def test_published_at_is_exact_where_the_id_is_ours() -> None:
    message = Message(job="a.b", routing_key="a.b")

    assert abs(message.published_at - time.time()) < 5
    assert message.published_at != int(message.published_at) or message.published_at == message.timestamp


OURS = "01890a5d-ac96-7123-8abc-0123456789ab"
ODD = [
    OURS[:3] + odd + OURS[4:] for odd in "- _z\u0661"
]  # among the digits of the time; the last is a digit elsewhere
ODD += [OURS[:place] + "c" + OURS[place + 1 :] for place in (8, 13, 14, 18, 19, 23)]  # of another form


def test_time_of_an_id_of_ours() -> None:
    for id in OURS, OURS.upper():
        assert Message(job="a.b", routing_key="a.b", id=id).published_at == 0x01890A5DAC96 / 1000


@pytest.mark.parametrize(
    "id",
    [
        "7",
        "order-7",
        "z" * 14 + "7" + "z" * 21,
        str(uuid.UUID(int=7, version=4)),
        OURS.replace("-", "0"),
        *ODD,
    ],
)
def test_published_at_is_the_timestamp_where_the_id_is_foreign(id: str) -> None:
    message = Message(job="a.b", routing_key="a.b", id=id, timestamp=1_700_000_000)

    assert message.published_at == 1_700_000_000


def test_ready_at_is_when_it_was_due_or_published() -> None:
    message = Message(job="a.b", routing_key="a.b", id="7", timestamp=1_700_000_000)

    assert message.ready_at == 1_700_000_000
    assert message.copy(due=1_700_000_010_500).ready_at == 1_700_000_010.5
    assert message.copy(due=1_600_000_000_000).ready_at == 1_700_000_000


def test_arguments_never_show_in_a_repr() -> None:
    message = Message(job="a.b", routing_key="a.b", id="7", body=b'{"password": "hunter2"}')

    assert repr(message) == "<Message a.b 7 attempt 1>"

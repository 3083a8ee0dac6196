from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import tenacity

from brokerjobs import Consumer, Retry, asend_many, send_many
from brokerjobs.errors import (
    ConfigurationError,
    InvalidArguments,
    MessageTooLarge,
    NotSerializable,
    WrongLoop,
)
from brokerjobs.job import Job, check_size
from brokerjobs.message import Message
from brokerjobs.testing import Recorder
from brokerjobs.transport import use_sender

consumer = Consumer("mail")


@consumer.job()
def welcome(user_id: int, locale: str = "en") -> str:
    """Greet a new user."""
    return f"hello {user_id} in {locale}"


@consumer.job(priority=7)
async def receipt(order_id: str) -> str:
    return f"receipt of {order_id}"


@consumer.job()
def archive(body: bytes) -> int:
    return len(body)


@pytest.fixture
def recorder() -> Recorder:
    """What `send` sends with."""
    recorder = Recorder()
    use_sender(recorder)
    return recorder


# ---- still a function


async def test_job_stays_a_plain_function() -> None:
    assert welcome(7) == "hello 7 in en"
    assert welcome(7, locale="de") == "hello 7 in de"
    assert await receipt("A7") == "receipt of A7"


def test_job_looks_like_its_function() -> None:
    assert welcome.__name__ == "welcome"  # type: ignore[attr-defined]
    assert welcome.__doc__ == "Greet a new user."
    assert repr(welcome).startswith("<Job mail.welcome(user_id:")


def test_decorated_function_leaves_the_jobs_own_options_alone() -> None:
    """tenacity's decorator sets an attribute `retry` on the function."""

    @consumer.job(name="decorated", retry=Retry(3))
    @tenacity.retry(stop=tenacity.stop_after_attempt(2), reraise=True)
    def call() -> int:
        return 7

    assert isinstance(call.retry, Retry)
    assert call.retry.max_attempts == 3
    assert call() == 7


# ---- its message


def test_message_carries_the_arguments_by_name() -> None:
    message = welcome.message(7, locale="de")

    assert (message.job, message.routing_key) == ("mail.welcome", "mail.welcome")
    assert json.loads(message.body) == {"user_id": 7, "locale": "de"}
    assert (message.content_type, message.priority, message.attempt) == ("application/json", 4, 1)
    assert (message.due, message.not_after, message.delay) == (0, 0, 0)
    assert abs(message.timestamp - time.time()) < 5


def test_message_has_the_priority_of_its_job() -> None:
    assert receipt.message("A7").priority == 7
    assert receipt.options(priority=0).message("A7").priority == 0
    assert receipt.options(delay=1).message("A7").priority == 7


def test_raw_job_sends_its_bytes_as_they_are() -> None:
    message = archive.message(b"\x00\xff")

    assert message.body == b"\x00\xff"
    assert message.content_type == "application/octet-stream"


def test_each_message_has_an_id_of_its_own() -> None:
    assert welcome.message(7).id != welcome.message(7).id


def test_wrong_arguments_are_refused_before_anything_is_sent(recorder: Recorder) -> None:
    with pytest.raises(InvalidArguments, match="user_id: Input should be a valid integer"):
        welcome.send("seven")  # type: ignore[arg-type]

    assert recorder.sent == []


def test_arguments_that_json_cannot_carry_are_refused() -> None:
    @consumer.job(name="loose")
    def loose(thing: Any) -> None: ...

    with pytest.raises(NotSerializable, match="unknown type"):
        loose.message(object())


# ---- options


@pytest.mark.parametrize("delay", [600, 600.0, "10m", timedelta(minutes=10)])
def test_delayed_message_says_when_it_is_due(delay: Any) -> None:
    before = time.time()

    message = welcome.options(delay=delay).message(7)

    assert message.delay == 600
    assert (before + 600) * 1000 - 1 <= message.due <= (time.time() + 600) * 1000
    assert message.ready_at == message.due / 1000


def test_time_of_day_becomes_a_delay() -> None:
    at = datetime.now(UTC) + timedelta(hours=1)

    message = welcome.options(at=at).message(7)

    assert 3590 < message.delay <= 3600
    assert abs(message.due - at.timestamp() * 1000) <= 1


def test_time_of_day_that_has_passed_means_now() -> None:
    message = welcome.options(at=datetime(2020, 1, 1, tzinfo=UTC)).message(7)

    assert (message.delay, message.due) == (0, 0)


def test_prepared_job_counts_the_time_of_day_anew_for_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    prepared = welcome.options(at=datetime.fromtimestamp(now + 100, UTC))

    monkeypatch.setattr(time, "time", lambda: now + 40)

    assert prepared.message(7).delay == pytest.approx(60, abs=0.001)


@pytest.mark.parametrize(("delay", "expires"), [(None, "1h"), (60, 3600), ("10m", timedelta(hours=1))])
def test_expiry_counts_from_when_it_is_due(delay: Any, expires: Any) -> None:
    message = welcome.options(delay=delay, expires=expires).message(7)

    due = message.due or time.time() * 1000
    assert abs(message.not_after - due - 3_600_000) < 5_000


def test_id_headers_and_correlation_are_carried() -> None:
    headers: dict[str, Any] = {"tenant": "shop", "n": -5, "loud": True}

    message = welcome.options(id="order-7", headers=headers, correlation_id="c1").message(7)
    headers["tenant"] = "changed afterwards"

    assert (message.id, message.correlation_id) == ("order-7", "c1")
    assert message.headers == {"tenant": "shop", "n": -5, "loud": True}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"priority": 10}, "priority must be 0 to 9 .*, not 10"),
        ({"priority": -1}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"delay": -1}, "delay must be"),
        ({"delay": "soon"}, "delay must be"),
        ({"delay": 1, "at": datetime.now(UTC)}, "either delay or at"),
        ({"at": datetime(2030, 1, 1)}, "at has no time zone"),
        ({"at": "2030-01-01T00:00:00Z"}, "at must be a datetime"),
        ({"at": 1_900_000_000}, "at must be a datetime"),
        ({"expires": "never"}, "expires must be"),
        ({"expires": -1}, "expires must be"),
        ({"id": ""}, "id must be a text of 1 to 255 bytes"),
        ({"id": "é" * 128}, "id must be"),
        ({"id": 7}, "id must be a text"),
        ({"id": "\ud800"}, "id must be"),
        ({"correlation_id": "x" * 256}, "correlation_id must be"),
        ({"correlation_id": 7}, "correlation_id must be"),
        ({"headers": {"x-retry": 1}}, "x-retry.* is not yours"),
        ({"headers": {"X-Retry": 1}}, "is not yours"),
        ({"headers": {"brokerjobs-attempt": 1}}, "is not yours"),
        ({"headers": {"BrokerJobs-Attempt": 1}}, "is not yours"),
        ({"headers": {"CC": "a"}}, "is not yours"),
        ({"headers": {"": "a"}}, "must be a text of 1 to 128 bytes"),
        ({"headers": {"é" * 65: "a"}}, "must be a text of 1 to 128 bytes"),
        ({"headers": {"\ud800": "a"}}, "must be a text of 1 to 128 bytes"),
        ({"headers": {7: "a"}}, "must be a text"),
        ({"headers": {"n": 2**63}}, "beyond 64 bits"),
        ({"headers": {"n": -(2**63) - 1}}, "beyond 64 bits"),
        ({"headers": {"ratio": 1.5}}, "must be str, int or bool, not float"),
        ({"headers": {"none": None}}, "not NoneType"),
        ({"headers": {"list": [1]}}, "not list"),
        ({"headers": {"raw": b"x"}}, "not bytes"),
        ({"headers": {"text": "\ud800"}}, "text.* cannot be written as UTF-8"),
        ({"headers": {"blob": "x" * 40_000}}, "30,720 bytes"),
        ({"headers": {f"{n}": "x" * 100 for n in range(500)}}, "30,720 bytes"),
    ],
    ids=lambda value: repr(value)[:40].encode("ascii", "replace").decode(),
)
def test_option_out_of_range_is_refused_where_it_is_written(options: Any, complaint: str) -> None:
    with pytest.raises(InvalidArguments, match=complaint):
        welcome.options(**options)


def test_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="prio"):
        welcome.options(prio=9)  # type: ignore[call-arg]


# ---- sending


def test_send_gives_the_handle_of_what_was_sent(recorder: Recorder) -> None:
    handle = welcome.send(7)

    [message] = recorder.sent
    assert (handle.id, handle.job) == (message.id, "mail.welcome")


def test_send_with_options_sends_with_them(recorder: Recorder) -> None:
    handle = welcome.options(priority=9, id="order-7").send(7)

    [message] = recorder.sent
    assert (handle.id, message.priority) == ("order-7", 9)


async def test_asend_sends_on_a_running_loop(recorder: Recorder) -> None:
    await welcome.asend(7)
    await welcome.options(id="order-7").asend(7)

    assert [message.job for message in recorder.sent] == ["mail.welcome"] * 2
    assert recorder.sent[1].id == "order-7"


def test_send_many_sends_in_order(recorder: Recorder) -> None:
    handles = send_many(welcome.message(n) for n in range(5))

    assert [json.loads(message.body)["user_id"] for message in recorder.sent] == [0, 1, 2, 3, 4]
    assert [handle.id for handle in handles] == [message.id for message in recorder.sent]


async def test_asend_many_sends_in_order(recorder: Recorder) -> None:
    await asend_many(welcome.message(n) for n in range(5))

    assert [json.loads(message.body)["user_id"] for message in recorder.sent] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("send", "instead"),
    [
        (lambda: welcome.send(7), r"welcome\.send\(\) would block .*asend\(\)"),
        (lambda: welcome.options(delay=1).send(7), "would block the running event loop"),
        (lambda: send_many([welcome.message(7)]), "await asend_many"),
    ],
)
async def test_blocking_send_on_a_running_loop_says_what_to_use(
    recorder: Recorder, send: Callable[[], object], instead: str
) -> None:
    with pytest.raises(WrongLoop, match=instead):
        send()

    assert recorder.sent == []


async def test_blocking_send_in_a_thread_beside_a_loop_is_fine(recorder: Recorder) -> None:
    await asyncio.to_thread(welcome.send, 7)

    assert len(recorder.sent) == 1


# ---- what cannot be a job


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator])
def test_generator_is_refused_since_calling_it_runs_nothing(function: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError, match="is a generator"):
        Consumer("generators").job()(function)


@pytest.mark.parametrize("priority", [-1, 10, True, "4"])
def test_priority_of_a_job_is_checked_when_it_is_declared(priority: Any) -> None:
    with pytest.raises(ConfigurationError, match="priority must be 0 to 9"):
        Job(len, name="a.b", queue="a", timeout=1, retry=Retry(), priority=priority)


def test_message_above_the_limit_is_refused_with_a_way_out() -> None:
    message = Message(job="a.b", routing_key="a.b", body=b"x" * 2_000_000)

    check_size(message, 2_000_000)
    with pytest.raises(
        MessageTooLarge, match=r"2,000,000 bytes, above the limit of 1,048,576.*MAX_MESSAGE_SIZE"
    ):
        check_size(message, 1024 * 1024)

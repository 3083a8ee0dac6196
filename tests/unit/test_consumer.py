from __future__ import annotations

import functools
from typing import Any

import pytest

from brokerjobs import Consumer, Message, Retry
from brokerjobs.errors import ConfigurationError
from brokerjobs.job import Job


def message(job: str, routing_key: str | None = None) -> Message:
    return Message(job=job, routing_key=job if routing_key is None else routing_key)


def nothing() -> None: ...


# ---- declaring


def test_job_is_named_after_queue_and_function() -> None:
    consumer = Consumer("mail")

    @consumer.job()
    def welcome() -> None: ...

    assert welcome.name == "mail.welcome"
    assert welcome.queue == "mail"
    assert list(consumer.jobs) == ["mail.welcome"]
    assert repr(consumer) == "<Consumer mail: mail.welcome>"


def test_function_name_in_capitals_becomes_a_word() -> None:
    consumer = Consumer("mail")

    @consumer.job()
    def sendWelcome() -> None: ...

    assert sendWelcome.name == "mail.sendwelcome"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("hello", "mail.hello"), ("orders.created", "orders.created"), ("jobs", "mail.jobs")],
)
def test_job_may_have_another_name(name: str, expected: str) -> None:
    assert Consumer("mail").job(name=name)(nothing).name == expected


def test_job_takes_what_its_consumer_says_unless_it_says_otherwise() -> None:
    consumer = Consumer("mail", retry=Retry(3), timeout="30s")
    own = Retry(5)

    plain = consumer.job(name="plain")(nothing)
    special = consumer.job(name="special", retry=own, timeout=5, priority=9)(nothing)

    assert (plain.retry, plain.timeout, plain.priority) == (consumer.retry, 30, 4)
    assert (special.retry, special.timeout, special.priority) == (own, 5, 9)


def test_consumer_has_sensible_defaults() -> None:
    consumer = Consumer("mail")

    assert (consumer.timeout, consumer.retry.max_attempts) == (600, 12)
    assert (consumer.prefetch, consumer.queue_type, consumer.priorities) == (None, None, True)
    assert repr(consumer) == "<Consumer mail: no jobs>"


def test_forgotten_parentheses_are_pointed_out() -> None:
    with pytest.raises(ConfigurationError, match=r"write @consumer\.job\(\) with parentheses"):

        @Consumer("mail").job
        def welcome() -> None: ...


@pytest.mark.parametrize("prefetch", [1, 65_535])
def test_prefetch_may_be_what_amqp_can_say(prefetch: int) -> None:
    assert Consumer("mail", prefetch=prefetch).prefetch == prefetch


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"queue": "Emails"}, "queue 'Emails' must be one word"),
        ({"queue": "mail.new"}, "must be one word"),
        ({"queue": "jobs"}, "reserved"),
        ({"queue": "dead"}, "reserved for dead letter queues"),
        ({"queue": "reader"}, "reserved"),
        ({"queue": ""}, "must be one word"),
        ({"bind": "orders.#"}, r"bind must be a list of patterns: \['orders.#'\]"),
        ({"bind": ["a..b"]}, "binding pattern 'a..b'"),
        ({"prefetch": 0}, "prefetch must be 1 to 65535, not 0"),
        ({"prefetch": 65_536}, "prefetch"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"timeout": "soon"}, "timeout must be"),
        ({"timeout": float("inf")}, "timeout must be a finite"),
        ({"queue_type": "Quorum"}, "queue_type must be auto, classic or quorum, not 'Quorum'"),
    ],
)
def test_consumer_that_cannot_work_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Consumer(**{"queue": "mail", **options})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "Welcome"}, "job name 'Welcome' must be one word"),
        ({"name": "a b"}, "job name"),
        ({"name": "a..b"}, "job name"),
        ({"aliases": ["Old Name"]}, "alias 'Old Name'"),
        ({"match": "a..b"}, "binding pattern"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"priority": 10}, "priority must be 0 to 9"),
        ({"memory_limit": "1 GiB"}, "isolate=True"),
        ({"memory_limit": "much", "isolate": True}, "memory_limit must be bytes or a text such as"),
        ({"memory_limit": 0, "isolate": True}, "memory_limit must be bytes"),
        ({"memory_limit": True, "isolate": True}, "memory_limit must be bytes"),
    ],
)
def test_job_that_cannot_work_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Consumer("mail").job(**options)(nothing)


def test_function_without_a_name_needs_one() -> None:
    consumer = Consumer("mail")
    unnamed = functools.partial(nothing)

    with pytest.raises(ConfigurationError, match="job name ''"):
        consumer.job()(unnamed)

    assert consumer.job(name="named")(unnamed).name == "mail.named"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"name": "a"}, {"name": "a"}),
        ({"name": "a", "aliases": ["b"]}, {"name": "b"}),
        ({"name": "a"}, {"name": "b", "aliases": ["a"]}),
        ({"name": "a", "aliases": ["c"]}, {"name": "b", "aliases": ["mail.c"]}),
    ],
)
def test_two_jobs_cannot_answer_to_one_name(first: dict[str, Any], second: dict[str, Any]) -> None:
    consumer = Consumer("mail")
    consumer.job(**first)(nothing)

    with pytest.raises(ConfigurationError, match=r"two jobs answer to the name 'mail\.[abc]'"):
        consumer.job(**second)(nothing)

    assert list(consumer.jobs) == ["mail.a"]


def test_hooks_are_kept_in_their_order_and_stay_functions() -> None:
    consumer = Consumer("mail")

    @consumer.on_startup
    def open_pool() -> str:
        return "open"

    @consumer.on_shutdown
    async def close_pool() -> None: ...

    @consumer.on_success
    def first() -> None: ...

    @consumer.on_success
    def second() -> None: ...

    assert consumer.startup == [open_pool]
    assert consumer.shutdown == [close_pool]
    assert consumer.hooks.success == [first, second]
    assert open_pool() == "open"


# ---- finding the job of a message


@pytest.fixture
def consumer() -> Consumer:
    consumer = Consumer("audit", bind=["*.created", "orders.#"])
    consumer.job(name="write", aliases=["record", "log.write"])(nothing)
    consumer.job(name="created", match="*.created")(nothing)
    consumer.job(name="orders", match="orders.#")(nothing)
    return consumer


@pytest.mark.parametrize(
    ("job", "routing_key", "found"),
    [
        ("audit.write", "audit.write", "audit.write"),
        ("audit.record", "audit.record", "audit.write"),
        ("log.write", "log.write", "audit.write"),
        ("unheard-of", "audit.write", "audit.write"),
        ("audit.write", "users.created", "audit.write"),
        ("users.created", "users.created", "audit.created"),
        ("unheard-of", "users.created", "audit.created"),
        ("users.created", "somewhere", "audit.created"),
        ("orders.created", "orders.created", "audit.created"),
        ("orders.eu.paid", "orders.eu.paid", "audit.orders"),
        ("orders", "orders", "audit.orders"),
        ("audit.unheard-of", "audit.unheard-of", None),
        ("", "", None),
    ],
)
def test_job_is_found_by_name_then_key_then_first_pattern(
    consumer: Consumer, job: str, routing_key: str, found: str | None
) -> None:
    result = consumer.find(message(job, routing_key))

    assert (result.name if isinstance(result, Job) else None) == found


def test_name_is_stronger_than_any_pattern() -> None:
    consumer = Consumer("audit")
    consumer.job(name="everything", match="#")(nothing)
    consumer.job(name="special")(nothing)

    special, other = consumer.find(message("audit.special")), consumer.find(message("whatever"))

    assert special is not None
    assert other is not None
    assert (special.name, other.name) == ("audit.special", "audit.everything")


@pytest.mark.parametrize(
    ("given", "bytes_"), [("512 MiB", 2**29), ("1GB", 10**9), (4096, 4096), (None, None)]
)
def test_memory_limit_is_bytes_or_a_text(given: int | str | None, bytes_: int | None) -> None:
    job = Consumer("emails").job(name="welcome", isolate=True, memory_limit=given)(nothing)

    assert (job.isolate, job.memory_limit) == (True, bytes_)

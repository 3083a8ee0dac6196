"""brokerjobs.testing runs a message as a worker would, without a broker."""

from __future__ import annotations

import os

import pytest

from brokerjobs import ConfigurationError, Consumer, Message, Reject, Retry, current_job
from brokerjobs.testing import DeadLettered, Retried, Succeeded, arun, drain, recording, run


def test_run_gives_the_result_and_what_was_sent() -> None:
    consumer = Consumer("testing-a")

    @consumer.job()
    def greet(name: str) -> str:
        tell.send(name)
        return f"hello {name}"

    @consumer.job()
    def tell(name: str) -> None: ...

    ran = run(greet.message("Ada"))

    assert ran.outcome == Succeeded("hello Ada")
    assert ran.result == "hello Ada"
    assert [(message.job, message.body) for message in ran.sent] == [("testing-a.tell", b'{"name":"Ada"}')]


def test_run_shows_the_retry_decision() -> None:
    consumer = Consumer("testing-b", retry=Retry(delays=[10, 30]))

    @consumer.job()
    def charge() -> None:
        raise ConnectionError("gateway is away")

    ran = run(charge.message())

    assert isinstance(ran.outcome, Retried)
    assert ran.retry_in == 10
    assert ran.failure is not None
    assert ran.failure.text == "gateway is away"


def test_run_validates_as_a_worker_does() -> None:
    consumer = Consumer("testing-c")

    @consumer.job()
    def count(number: int) -> None: ...

    ran = run(
        Message(job="testing-c.count", routing_key="testing-c.count", body=b'{"number": "x"}'), consumer
    )

    assert isinstance(ran.outcome, DeadLettered)
    assert ran.outcome.reason == "arguments"


async def test_arun_runs_inside_a_loop_and_reports_a_decision_by_hand() -> None:
    consumer = Consumer("testing-d")

    @consumer.job()
    async def decide() -> None:
        current_job().reject("not today")

    ran = await arun(decide.message())

    assert isinstance(ran.outcome, DeadLettered)
    assert ran.outcome.reason == "rejected"


def test_drain_runs_retries_and_followers_to_their_end() -> None:
    consumer = Consumer("testing-e", retry=Retry(delays=[10, 30]))

    @consumer.job()
    def first() -> None:
        if current_job().attempt < 2:
            raise OSError("once")
        second.send()

    @consumer.job()
    def second() -> None:
        raise Reject("no more")

    ended = [
        (ran.message.job, ran.message.attempt, type(ran.outcome).__name__) for ran in drain(first.message())
    ]

    assert ended == [
        ("testing-e.first", 1, "Retried"),
        ("testing-e.first", 2, "Succeeded"),
        ("testing-e.second", 1, "DeadLettered"),
    ]


def test_drain_ends_jobs_that_send_each_other_for_ever() -> None:
    consumer = Consumer("testing-f")

    @consumer.job()
    def again() -> None:
        again.send()

    with pytest.raises(ConfigurationError, match="more than 20 attempts"):
        drain(again.message(), most=20)


def test_recording_publishes_nothing() -> None:
    consumer = Consumer("testing-g")

    @consumer.job()
    def job() -> None: ...

    with recording() as sent:
        handle = job.send()

    assert [message.id for message in sent] == [handle.id]


def test_run_asks_for_the_consumer_when_several_declare_the_job() -> None:
    consumers = [Consumer("testing-h"), Consumer("testing-h")]
    for consumer in consumers:
        consumer.job(name="twin")(lambda: None)

    with pytest.raises(ConfigurationError, match="say which with consumer="):
        run(Message(job="testing-h.twin", routing_key="testing-h.twin"))


def test_run_takes_a_job_for_that_of_its_own_queue_although_others_listen() -> None:
    listener, consumer = Consumer("testing-i", bind=["#"]), Consumer("testing-j")

    @listener.job(match="testing-j.#")
    def heard() -> str:
        return "heard"

    @consumer.job()
    def job() -> str:
        return "run"

    assert run(job.message()).result == "run"
    assert run(job.message(), listener).result == "heard"


def test_isolated_job_runs_here() -> None:
    consumer = Consumer("emails")

    @consumer.job(isolate=True, memory_limit="1 GiB")
    def welcome() -> int:
        return os.getpid()

    ran = run(welcome.message(), consumer)

    assert ran.result == os.getpid()

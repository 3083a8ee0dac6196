"""`brokerjobs jobs`: what the consumers declare. No broker is asked."""

from __future__ import annotations

import pytest

from tests.shell import Shell

EMAILS = '''
from brokerjobs import Consumer, Retry

consumer = Consumer("emails", retry=Retry(max_attempts=8))


@consumer.job(timeout="30s", priority=7, aliases=["greet"])
async def welcome(user_id: int, locale: str = "en") -> None:
    """Greet a new user.

    More words.
    """


@consumer.job(name="import")
def take_in(body: bytes) -> None: ...
'''

AUDIT = '''
from brokerjobs import Consumer

consumer = Consumer("audit", bind=["*.created"])


@consumer.job(match="*.created")
def record(**fields: object) -> None:
    """Keep\ta record of
    everything."""
'''


@pytest.fixture
def shop(offline: Shell) -> Shell:
    offline.write("consumers/emails.py", EMAILS)
    offline.write("consumers/audit.py", AUDIT)
    return offline


def test_json_tells_all_about_each_job(shop: Shell) -> None:
    done = shop.run("jobs", "--json")
    assert (done.code, done.err) == (0, "")
    jobs = {job["name"]: job for job in done.json}
    assert list(jobs) == ["audit.record", "emails.welcome", "emails.import"]
    assert jobs["emails.welcome"] == {
        "name": "emails.welcome",
        "queue": "emails",
        "bind": [],
        "match": None,
        "aliases": ["emails.greet"],
        "signature": "(user_id: int, locale: str = 'en') -> None",
        "raw": False,
        "runs": "loop",
        "timeout": 30.0,
        "max_attempts": 8,
        "priority": 7,
        "description": "Greet a new user.",
    }
    assert jobs["emails.import"]["raw"] is True
    assert jobs["emails.import"]["runs"] == "thread"
    assert (jobs["audit.record"]["bind"], jobs["audit.record"]["match"]) == (["*.created"], "*.created")


def test_columns_are_for_cut_and_awk(shop: Shell) -> None:
    done = shop.run("jobs")
    assert (done.code, done.err) == (0, "")
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert lines[0] == ["job", "queue", "parameters", "runs in", "timeout", "attempts"]
    assert lines[1][:2] == ["audit.record (*.created)", "audit"]
    assert lines[2] == [
        "emails.welcome",
        "emails",
        "(user_id: int, locale: str = 'en') -> None",
        "loop",
        "30s",
        "8",
    ]
    assert {len(line) for line in lines} == {6}


def test_queues_choose_and_order(shop: Shell) -> None:
    def names(*queues: str) -> list[str]:
        return [job["name"] for job in shop.run("jobs", *queues, "--json").json]

    assert names("emails") == ["emails.welcome", "emails.import"]
    assert names("emails", "audit", "emails") == ["emails.welcome", "emails.import", "audit.record"]


def test_queue_that_is_not_declared_is_exit_code_78(shop: Shell) -> None:
    done = shop.run("jobs", "orders")
    assert (done.code, done.out) == (78, "")
    assert "no consumer for queue 'orders' in package 'consumers' (modules: audit, emails)" in done.complaint


def test_two_consumers_of_one_queue_are_refused(shop: Shell) -> None:
    shop.write("consumers/mails.py", EMAILS)
    done = shop.run("jobs")
    assert (done.code, done.out) == (78, "")
    assert "two consumers are declared for queue 'emails'" in done.complaint


def test_another_package_by_option_or_variable(shop: Shell) -> None:
    shop.write("shop/__init__.py", "")
    shop.write("shop/tasks/__init__.py", "")
    shop.write("shop/tasks/audit.py", AUDIT)
    by_option = shop.run("jobs", "--json", "--consumers", "shop.tasks").json
    by_variable = shop.run("jobs", "--json", BROKERJOBS_CONSUMERS="shop.tasks").json
    assert [job["name"] for job in by_option] == ["audit.record"]
    assert by_variable == by_option

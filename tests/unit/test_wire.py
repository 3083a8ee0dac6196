"""The codecs of both clients, without a connection. What travels through them is tested in test_message.py."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import aio_pika
import pika
import pytest
from pamqp import commands

from brokerjobs import Message, Settings
from brokerjobs.amqp.confirm_channel import to_pika
from brokerjobs.amqp.wire import from_pamqp, to_pamqp, url_for_client, why_unwritable
from brokerjobs.transport import Publication

MESSAGE = Message(
    job="emails.welcome",
    routing_key="emails.welcome",
    id="7",
    timestamp=1_700_000_000,
    priority=9,
    correlation_id="c1",
    headers={"tenant": "shop", "n": 2**40, "yes": True},
    attempt=3,
)


def settings(url: str, heartbeat: int = 10) -> Settings:
    return Settings(url=url, heartbeat=heartbeat)  # type: ignore[arg-type]


def test_both_clients_write_the_same_properties() -> None:
    ours = to_pamqp(MESSAGE)
    theirs = commands.Basic.Properties()
    frame = b"".join(to_pika(MESSAGE).encode())  # type: ignore[no-untyped-call]
    theirs.unmarshal(int.from_bytes(frame[:2], "big"), frame[2:])

    assert from_pamqp(ours) == from_pamqp(theirs)


def test_properties_have_the_names_of_amqp() -> None:
    properties = from_pamqp(to_pamqp(MESSAGE))

    assert properties["type"] == "emails.welcome"
    assert properties["message_id"] == "7"
    assert properties["timestamp"] == datetime.fromtimestamp(1_700_000_000, UTC)
    assert properties["delivery_mode"] == 2
    assert properties["headers"]["brokerjobs-attempt"] == 3
    assert properties["user_id"] is None
    assert properties["expiration"] is None


def test_timestamp_does_not_depend_on_the_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = to_pamqp(MESSAGE).marshal()
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert to_pamqp(MESSAGE).marshal() == before
    finally:
        monkeypatch.undo()
        time.tzset()


# ---- the URL as both clients read it


@pytest.mark.parametrize(
    ("url", "vhost"),
    [
        ("amqp://guest:guest@host", "/"),
        ("amqp://guest:guest@host/", "/"),
        ("amqp://guest:guest@host/%2F", "/"),
        ("amqp://guest:guest@host/shop", "shop"),
        ("amqp://guest:guest@host/shop%2Feu", "shop/eu"),
    ],
)
def test_both_clients_reach_the_same_virtual_host(url: str, vhost: str) -> None:
    given = url_for_client(settings(url))

    assert pika.URLParameters(given).virtual_host == vhost
    assert aio_pika.connection.make_url(given).path.lstrip("/") in (vhost, vhost.lstrip("/"))


def test_both_clients_get_user_password_host_and_port() -> None:
    given = url_for_client(settings("amqp://shop%40eu:p%2Fw%3A%23@rabbit:5673/v"))

    parameters = pika.URLParameters(given)
    parsed = aio_pika.connection.make_url(given)

    assert isinstance(parameters.credentials, pika.PlainCredentials)
    assert (parameters.credentials.username, parameters.credentials.password) == ("shop@eu", "p/w:#")
    assert (parsed.user, parsed.password) == ("shop@eu", "p/w:#")
    assert (parameters.host, parameters.port) == (parsed.host, parsed.port) == ("rabbit", 5673)


def test_heartbeat_is_that_of_the_settings() -> None:
    given = url_for_client(settings("amqp://host/?heartbeat=600", heartbeat=7))

    assert parse_qs(urlsplit(given).query)["heartbeat"] == ["7"]
    assert pika.URLParameters(given).heartbeat == 7


def test_query_drops_what_would_change_the_clients() -> None:
    given = url_for_client(settings("amqps://host/?name=x&retry_delay=9&timeout=1"))

    assert set(parse_qs(urlsplit(given).query)) == {"heartbeat"}


# ---- what AMQP cannot carry


def test_message_that_amqp_can_carry_has_nothing_against_it() -> None:
    assert why_unwritable(Publication("jobs", "emails.welcome", MESSAGE)) is None
    assert why_unwritable(Publication("jobs", "k" * 255, MESSAGE)) is None


@pytest.mark.parametrize(
    "publication",
    [
        Publication("jobs", "k" * 256, MESSAGE),
        Publication("jobs", "é" * 128, MESSAGE),
        Publication("jobs", "\ud800", MESSAGE),
        Publication("jobs", "a.b", Message(job="j" * 256, routing_key="a.b")),
        Publication("jobs", "a.b", Message(job="a.b", routing_key="a.b", id="\ud800")),
        Publication("jobs", "a.b", Message(job="a.b", routing_key="a.b", headers={"a": "\ud800"})),
        Publication("jobs", "a.b", Message(job="a.b", routing_key="a.b", priority=256)),
        Publication("jobs", "a.b", Message(job="a.b", routing_key="a.b", timestamp=2**70)),
    ],
    ids=[
        "long key",
        "long key in bytes",
        "odd key",
        "long name",
        "odd id",
        "odd header",
        "priority",
        "timestamp",
    ],
)
def test_message_that_amqp_cannot_carry_is_told_before_it_harms_a_connection(
    publication: Publication,
) -> None:
    assert why_unwritable(publication)

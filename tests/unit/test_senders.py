"""Who sent a job: what is believed, and what a stranger can write without being believed."""

from __future__ import annotations

from typing import Any

import pytest

from brokerjobs import settings
from brokerjobs.errors import ConfigurationError
from brokerjobs.message import Message, decode
from brokerjobs.senders import Senders

HEADER = "brokerjobs-user-id"


def senders(user: str = "worker", **given: Any) -> Senders:
    given = {"send_user_id": True, "trusted_copiers": ("operator", "worker"), **given}
    return Senders.of(settings.load(url=f"amqp://{user}:pw@host/", **given))


def fresh(**given: Any) -> Message:
    return Message(job="emails.welcome", routing_key="emails.welcome", **given)


def delivered(message: Message) -> Message:
    """As it arrives; RabbitMQ has checked user_id."""
    return decode(message.properties(), message.body, routing_key="emails.welcome")


def forged(user_id: str | None, noted: str | None) -> Message:
    """What a stranger may write: any header, and no user_id but their own."""
    headers = {} if noted is None else {HEADER: noted}
    return decode({"headers": headers, "user_id": user_id}, b"", routing_key="emails.welcome")


def test_who_sends_is_known_by_what_rabbitmq_has_checked() -> None:
    sent = delivered(senders("shop").signed(fresh()))

    assert sent.user_id == "shop"
    assert senders().first(sent) == "shop"


def test_first_sender_is_known_through_retries_death_and_replay() -> None:
    message = delivered(senders("shop").signed(fresh()))
    for copier in "worker", "worker", "operator", "worker":
        message = delivered(senders(copier).signed(message.copy()))

        assert message.user_id == copier
        assert senders().first(message) == "shop"


def test_copy_of_what_nobody_vouches_for_does_not_count_as_the_copiers_own() -> None:
    copy = delivered(senders("worker").signed(delivered(fresh()).copy()))

    assert copy.user_id == "worker"
    assert senders().first(copy) == ""
    assert senders().refusal(copy, ["worker", "operator", "shop"])


@pytest.mark.parametrize("user_id", [None, "", "mallory"])
@pytest.mark.parametrize("noted", [None, "", "shop", "worker"])
def test_header_of_a_stranger_proves_nothing_not_even_after_copies(
    user_id: str | None, noted: str | None
) -> None:
    message = forged(user_id, noted)
    assert senders().first(message) == (user_id or "")
    for copier in "worker", "operator", "worker":  # refused, dead, replayed all the same
        message = delivered(senders(copier).signed(message.copy()))
        assert senders().first(message) == (user_id or "")
        assert senders().refusal(message, ["shop", "worker"])


def test_copier_who_is_not_trusted_stands_for_themselves() -> None:
    message = delivered(senders("shop").signed(fresh()))
    message = delivered(senders("reports").signed(message.copy()))

    assert senders().first(message) == "reports"


def test_unsigned_copy_tells_people_who_it_was_and_proves_nothing() -> None:
    message = delivered(senders("shop").signed(fresh()))
    copy = senders(send_user_id=False).signed(message.copy())

    assert copy.properties()["headers"][HEADER] == "shop"
    assert "user_id" not in copy.properties()
    assert senders().first(delivered(copy)) == ""


def test_unsigned_message_is_left_as_it_is() -> None:
    message = fresh()

    assert senders(send_user_id=False).signed(message) is message


def test_refusal_says_who_and_what_is_wanted() -> None:
    assert senders().refusal(forged("mallory", None), ["shop", "web"]) == (
        "it was sent by user 'mallory'; this queue takes jobs of shop, web only (require_user)"
    )
    assert (
        senders()
        .refusal(forged(None, "shop"), ["shop"])
        .startswith("RabbitMQ vouches for nobody who sent it")
    )
    assert not senders().refusal(forged("shop", None), ["shop"])


def test_queue_that_requires_users_needs_signed_copies() -> None:
    with pytest.raises(
        ConfigurationError, match=r"queue 'emails' takes jobs of certain users only .* set send_user_id"
    ):
        senders(send_user_id=False).check("emails", ["shop"])
    senders(send_user_id=False).check("emails", [])
    senders().check("emails", ["shop"])

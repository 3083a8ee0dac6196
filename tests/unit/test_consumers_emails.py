"""The example `emails`: what its mails look like, and which answers of a mail server it tries again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from jinja2 import DictLoader, Environment

from brokerjobs import InvalidArguments
from brokerjobs.demo.mailbox import HOST, Mailbox
from brokerjobs.message import Message
from brokerjobs.node.ports import reserve
from brokerjobs.testing import DeadLettered, Ran, Retried, Succeeded
from brokerjobs.testing import arun as arun_of
from consumers.emails import consumer, receipt, welcome


async def arun(message: Message) -> Ran:
    """Other tests may have imported consumers of the same queue from pages of the documentation."""
    return await arun_of(message, consumer)


@pytest.fixture
async def mailbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mailbox]:
    async with Mailbox(busy={"user4@example.com": 1}, unknown=["user5@example.com"]) as mailbox:
        monkeypatch.setenv("SMTP_HOST", HOST)
        monkeypatch.setenv("SMTP_PORT", str(mailbox.port))
        yield mailbox


def only_mail(mailbox: Mailbox) -> EmailMessage:
    ((_, content),) = mailbox.mails
    mail = message_from_bytes(content, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


def part(mail: EmailMessage, kind: str) -> str:
    body = mail.get_body((kind,))
    assert body is not None
    return str(body.get_content())


async def test_welcome_is_a_plain_function_too(mailbox: Mailbox) -> None:
    await asyncio.to_thread(welcome, 7)

    mail = only_mail(mailbox)
    assert mail["To"] == "user7@example.com"
    assert mail["Subject"] == "Welcome, user 7"
    assert "Your number with us is 7." in part(mail, "plain")
    assert "<strong>7</strong>" in part(mail, "html")


async def test_welcome_speaks_the_users_language(mailbox: Mailbox) -> None:
    ran = await arun(welcome.message(7, locale="de"))

    assert isinstance(ran.outcome, Succeeded)
    assert only_mail(mailbox)["Subject"] == "Willkommen, Nutzer 7"
    assert "Schön" in part(only_mail(mailbox), "plain")


async def test_receipt_lists_what_was_paid_and_escapes_strangers_text(mailbox: Mailbox) -> None:
    await arun(receipt.message("A1", "ada@example.com", {"tea": 2, "<b>cup": 1}, 2190))

    mail = only_mail(mailbox)
    assert mail["To"] == "ada@example.com"
    assert "21.90 EUR" in part(mail, "plain")
    assert "  2 × tea" in part(mail, "plain")
    assert "&lt;b&gt;cup" in part(mail, "html")
    assert "<b>cup" not in part(mail, "html")


def test_receipts_go_before_welcomes() -> None:
    message = receipt.message("A1", "ada@example.com", {"tea": 2}, 900)

    assert (message.priority or 0) > (welcome.message(7).priority or 0)


async def test_each_attempt_of_a_job_has_the_same_message_id(mailbox: Mailbox) -> None:
    message = welcome.message(7)

    await arun(message)
    await arun(message)

    assert mailbox.message_ids == [f"<{message.id}@example.com>"] * 2


async def test_a_later_of_the_server_is_tried_again(mailbox: Mailbox) -> None:
    first = await arun(welcome.message(4))
    second = await arun(welcome.message(4))

    assert isinstance(first.outcome, Retried)
    assert "451" in str(first.failure)
    assert isinstance(second.outcome, Succeeded)
    assert len(mailbox.mails) == 1


async def test_a_never_of_the_server_is_dead_at_once(mailbox: Mailbox) -> None:
    ran = await arun(welcome.message(5))

    assert isinstance(ran.outcome, DeadLettered)
    assert ran.outcome.reason == "rejected"
    assert ran.outcome.failure.text == "SMTP 550: 5.1.1 no such mailbox"


async def test_a_server_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with reserve() as port:  # nobody listens there
        monkeypatch.setenv("SMTP_HOST", HOST)
        monkeypatch.setenv("SMTP_PORT", str(port.number))
        ran = await arun(welcome.message(7))

    assert isinstance(ran.outcome, Retried)
    assert "refused" in str(ran.failure).lower()


async def test_a_missing_template_is_dead_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.emails.templates", Environment(loader=DictLoader({})))
    ran = await arun(welcome.message(7))

    assert isinstance(ran.outcome, DeadLettered)
    assert ran.outcome.reason == "failed"


async def test_attempts_are_bounded(mailbox: Mailbox) -> None:
    message = Message(job="emails.welcome", routing_key="emails.welcome", body=b'{"user_id": 4}', attempt=8)
    ran = await arun(message)

    assert isinstance(ran.outcome, DeadLettered)
    assert ran.outcome.reason == "exhausted"


@pytest.mark.parametrize("email", ["", "nobody", "a@b, c@d", "a@b\nBcc: c@d"])
def test_a_receipt_to_no_address_is_refused_before_it_is_sent(email: str) -> None:
    with pytest.raises(InvalidArguments, match="email"):
        receipt.message("A1", email, {"tea": 1}, 450)


def test_the_queue_is_called_as_the_module() -> None:
    assert consumer.queue == "emails"

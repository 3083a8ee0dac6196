"""Emails: each job renders a template and hands it to an SMTP server.

    brokerjobs consume emails
    brokerjobs publish emails.welcome '{"user_id": 7, "locale": "de"}'

Environment: SMTP_HOST (localhost), SMTP_PORT (25), EMAILS_FROM (shop@example.com).
"""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape
from pydantic import Field

from brokerjobs import Consumer, Reject, Retry, current_job

# Another attempt helps when the server is away, drops the line or says "later": all of that is an OSError,
# smtplib's own errors included. A broken template stays broken (jinja2's TemplateNotFound is an OSError too).
consumer = Consumer(
    "emails",
    retry=Retry(max_attempts=8, on=OSError, never_on=TemplateError),
    timeout="30s",
)

templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(["html"]),  # a name such as <script> must stay a name
    undefined=StrictUndefined,  # better no mail than one that greets nobody
    keep_trailing_newline=True,
)

# Checked when a job is sent and again before it runs: what does not fit never reaches the code below.
Address = Annotated[str, Field(pattern=r"^[^@\s,]+@[^@\s,]+$")]


@consumer.job()
def welcome(user_id: int, locale: Literal["en", "de"] = "en") -> None:
    """Greet a new user."""
    # A plain `def` runs in a thread, so a slow mail server holds up nobody else.
    deliver(address_of(user_id), f"welcome.{locale}", user_id=user_id)


@consumer.job(priority=7)  # whoever has paid is waiting for it; a greeting can come later
def receipt(order_id: str, email: Address, items: dict[str, int], cents: int) -> None:
    """Tell a customer what was paid for."""
    deliver(email, "receipt", order_id=order_id, items=items, total=f"{cents / 100:.2f}")


def address_of(user_id: int) -> str:
    """Where to write to; an application of yours asks its database."""
    return f"user{user_id}@example.com"


def deliver(to: str, template: str, **values: Any) -> None:
    """Render a mail and hand it over.

    Raises:
        Reject: the server refuses it for good (5xx).
        OSError: it could not be handed over now.
    """
    mail = render(to, template, **values)
    host, port = os.environ.get("SMTP_HOST", "localhost"), int(os.environ.get("SMTP_PORT", "25"))
    try:
        with smtplib.SMTP(host, port, timeout=10) as server:  # no wait without a deadline
            server.send_message(mail)
    except smtplib.SMTPException as error:
        code, text = reply(error)
        if code >= 500:  # "no such mailbox" will be as true tomorrow: no retry, a person decides
            raise Reject(text) from error
        raise OSError(text) from error


def render(to: str, template: str, **values: Any) -> EmailMessage:
    """The mail, as text and as HTML; the text template begins with its subject."""
    subject, _, text = templates.get_template(f"{template}.txt").render(values).partition("\n\n")
    mail = EmailMessage()
    mail["From"] = os.environ.get("EMAILS_FROM", "shop@example.com")
    mail["To"] = to
    mail["Subject"] = subject.removeprefix("Subject: ")
    mail["Date"] = formatdate()
    mail["Message-ID"] = message_id()
    mail.set_content(text)
    mail.add_alternative(templates.get_template(f"{template}.html").render(values), subtype="html")
    return mail


def message_id() -> str:
    """The same for each attempt of a job.

    A job runs at least once: if the worker dies between the server's "250 OK" and the ack, the mail goes out
    again. By its Message-ID, mail servers and mail programs recognise the second one.
    """
    try:
        return f"<{current_job().id}@example.com>"
    except LookupError:  # called as a plain function
        return make_msgid(domain="example.com")


def reply(error: smtplib.SMTPException) -> tuple[int, str]:
    """The server's code and what it said; code 0 where it said nothing."""
    said: bytes | str
    if isinstance(error, smtplib.SMTPRecipientsRefused) and error.recipients:
        code, said = next(iter(error.recipients.values()))
    elif isinstance(error, smtplib.SMTPResponseException):
        code, said = error.smtp_code, error.smtp_error
    else:
        return 0, str(error)
    return code, f"SMTP {code}: {said.decode(errors='replace') if isinstance(said, bytes) else said}"

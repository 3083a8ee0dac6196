"""What RabbitMQ's answers are to whoever sends with the asyncio publisher."""

from __future__ import annotations

import aiormq.exceptions

from brokerjobs.amqp.connection import explain_channel_error, reply_text
from brokerjobs.amqp.links import Nacked
from brokerjobs.amqp.unconfirmed import Refused, Returned
from brokerjobs.errors import PublishRefused, PublishUnknown, Unroutable
from brokerjobs.settings import Settings
from brokerjobs.transport import Publication

NACK = "RabbitMQ could not keep it (nack): is the queue full?"


def meaning(
    publication: Publication, error: BaseException, settings: Settings, *, is_alone: bool = False
) -> BaseException:
    """What an outlet's verdict is to a send; `is_alone`, if nothing else can have closed the channel."""
    if isinstance(error, Returned):
        return unroutable(publication, str(error))
    if isinstance(error, Refused):
        return Nacked(NACK)
    if is_alone and isinstance(error, aiormq.exceptions.ChannelClosed):
        return refusal(error, settings)
    return error


def refusal(error: aiormq.exceptions.ChannelClosed, settings: Settings) -> BaseException:
    """Of the one message, or question, for which RabbitMQ has closed a channel."""
    if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
        return Unroutable(
            f"{reply_text(error)}: the topology is not there yet; "
            "start a worker, or run `brokerjobs topology apply`"
        )
    explained = explain_channel_error(error, settings)
    return (
        explained if explained is not error else PublishRefused(f"RabbitMQ refuses it: {reply_text(error)}")
    )


def unroutable(publication: Publication, said: str) -> Unroutable:
    return Unroutable(
        f"no queue is bound to exchange {publication.exchange!r} for {publication.routing_key!r} ({said})"
    )


def unknown(publication: Publication, why: BaseException) -> PublishUnknown:
    message = publication.message
    return PublishUnknown(
        f"RabbitMQ did not confirm {message.job} {message.id}: {why}; "
        "it may be queued, sending it again with the same id is safe",
        id=message.id,
    )


def lost(error: BaseException) -> str:
    return f"the connection was lost ({reply_text(error) or type(error).__name__})"

"""Between our messages and the clients' property objects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from pamqp import commands

from brokerjobs.message import Message
from brokerjobs.settings import Settings
from brokerjobs.transport import Publication

_NAMES = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id", "reply_to",
    "expiration", "message_id", "timestamp", "type", "user_id", "app_id",
)  # fmt: skip


def to_pamqp(message: Message) -> commands.Basic.Properties:
    properties = message.properties()
    if timestamp := properties.get("timestamp"):
        properties["timestamp"] = datetime.fromtimestamp(timestamp, UTC)
    return commands.Basic.Properties(
        **{("message_type" if name == "type" else name): value for name, value in properties.items()}
    )


def why_unwritable(publication: Publication) -> str | None:
    """What of a message AMQP cannot carry, in the client's words; None when nothing stands against it."""
    try:
        publish = commands.Basic.Publish(
            exchange=publication.exchange, routing_key=publication.routing_key, mandatory=True
        )
        publish.marshal()
        to_pamqp(publication.message).marshal()
        if len(publication.routing_key.encode()) > 255:
            return "the routing key is longer than 255 bytes"
    except Exception as error:  # the client raises whatever its encoders happen to meet
        return str(error) or type(error).__name__
    return None


def from_pamqp(properties: Any) -> dict[str, Any]:
    """The properties that are set, by their AMQP names."""
    found = {name: getattr(properties, name, None) for name in _NAMES if name != "type"}
    found["type"] = getattr(properties, "message_type", None)
    return found


def from_wire(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The same, from what `read_content_header` has found."""
    found = dict(properties)
    if "message_type" in found:
        found["type"] = found.pop("message_type")
    return found


def url_for_client(settings: Settings) -> str:
    """The URL as both clients read it, with our heartbeat; what they would take from a query of its own is dropped."""
    parts = urlsplit(settings.amqp_url)
    query = urlencode({"heartbeat": settings.heartbeat})
    # An empty path and "/" both mean the default virtual host, but each client reads them its own way.
    path = parts.path if len(parts.path) > 1 else "/" + quote("/", safe="")
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))

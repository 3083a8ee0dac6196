"""What a worker says at its start of settings that let strangers in."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from brokerjobs.logs import log
from brokerjobs.settings import Settings


def warn(settings: Settings) -> None:
    """Log what is unsafe about the connection; on one's own machine nothing is."""
    if is_loopback(settings.host):
        return
    if not settings.uses_tls:
        log.warning(
            "connection not encrypted",
            broker=settings.address,
            hint="the password and all jobs can be read on their way; use amqps://",
        )
    if settings.user == "guest" or _password(settings) == settings.user:
        log.warning(
            "default password",
            broker=settings.address,
            user=settings.user,
            hint="everybody knows it; delete user guest, and make users by `brokerjobs topology permissions`",
        )


def is_loopback(host: str) -> bool:
    """Whether this host is the machine itself, by its name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _password(settings: Settings) -> str:
    return unquote(urlsplit(settings.amqp_url).password or "guest")

"""Where a RabbitMQ comes from: the first way that works.

    1. the one that BROKERJOBS_URL names
    2. Docker Compose, from a checkout, if its engine answers
    3. an installation on this machine, as a private node
    4. the same, installed first by apt-get or brew

A version or folder asked for by name (or in BROKERJOBS_RABBITMQ) goes before all of them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from brokerjobs.errors import ConfigurationError
from brokerjobs.node import compose, fetch, installation, package_manager
from brokerjobs.node.errors import RabbitMQNotFound, RabbitMQNotInstalled, RabbitMQUnavailable
from brokerjobs.node.installation import Installation
from brokerjobs.node.private import PrivateNode

WAYS = f"""\
Ways to get a RabbitMQ:
  BROKERJOBS_URL=amqp://user:password@host:5672/   one that runs somewhere
  brokerjobs broker start --rabbitmq VERSION       fetched without root, on Debian: {", ".join(fetch.SUITES)}
  brokerjobs broker start --rabbitmq FOLDER        a release unpacked from rabbitmq.com, with Erlang on PATH
  apt-get install rabbitmq-server, brew install rabbitmq
  docker compose -f docker/compose.yaml up --wait"""

_ANSWER_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Broker:
    """A RabbitMQ that answers."""

    url: str
    how: str
    """What it is, for people."""
    management_url: str | None = None
    """The management UI, if it is known where that is."""
    log: Path | None = None
    stop: Callable[[], object] = lambda: None
    """Stops it if it was started for this object; otherwise does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def obtain(
    rabbitmq: str | None = None,
    *,
    yes: bool = False,
    say: Callable[[str], object] = lambda _: None,
    ask: Callable[[str], bool] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Broker:
    """A running RabbitMQ, from the first source that works.

    Args:
        rabbitmq: a version to fetch or the folder of an installation, before all other sources.
        yes: install without asking.
        say: is told about what takes time.
        ask: asks the person a yes-or-no question; on the terminal when None.
        environ: where BROKERJOBS_URL and BROKERJOBS_RABBITMQ are looked up.

    Raises:
        RabbitMQUnavailable: there is none; the message lists the ways to get one.
        ConfigurationError: `rabbitmq` names no version or folder.
    """
    wanted = rabbitmq or environ.get("BROKERJOBS_RABBITMQ")
    if not wanted:
        if url := environ.get("BROKERJOBS_URL"):
            return _at(url)
        if (composed := _from_compose(say)) is not None:
            return composed
    return _private(choose(wanted, yes=yes, say=say, ask=ask), say)


def choose(
    rabbitmq: str | None = None,
    *,
    yes: bool = False,
    say: Callable[[str], object] = lambda _: None,
    ask: Callable[[str], bool] | None = None,
) -> Installation:
    """An installation to run a private node of; arguments and errors as for `obtain`."""
    if rabbitmq:
        folder = Path(rabbitmq).expanduser()
        if "/" in rabbitmq or (folder.is_dir() and rabbitmq not in fetch.SUITES):
            return Installation.at(folder)
        return fetch.fetch(rabbitmq, say=say)
    try:
        return installation.find() or package_manager.install(yes=yes, say=say, ask=ask)
    except (RabbitMQNotFound, RabbitMQNotInstalled) as error:
        raise type(error)(f"{error}\n\n{WAYS}") from None


def _at(url: str) -> Broker:
    host, port = _address(url)
    try:
        socket.create_connection((host, port), _ANSWER_TIMEOUT).close()
    except OSError as error:
        raise RabbitMQUnavailable(
            f"BROKERJOBS_URL names {host}:{port}, where nothing answers ({error.strerror or error}): "
            "start that RabbitMQ, correct the URL, or unset it"
        ) from None
    return Broker(url=url, how=f"the RabbitMQ at {host}:{port} that BROKERJOBS_URL names")


def _address(url: str) -> tuple[str, int]:
    usual_ports = {"amqp": 5672, "amqps": 5671}
    try:
        parts = urlsplit(url)
        return parts.hostname or "localhost", parts.port or usual_ports[parts.scheme]
    except (KeyError, ValueError):  # and it is not repeated here, since it may hold a password
        raise ConfigurationError(
            "BROKERJOBS_URL is not a URL such as amqp://user:password@host:5672/vhost"
        ) from None


def _from_compose(say: Callable[[str], object]) -> Broker | None:
    file = compose.file()
    if file is None or not compose.engine_answers():
        return None
    try:
        started = compose.up(file, say)
    except RabbitMQUnavailable as error:
        say(f"{error}\ngoing on without Docker")
        return None
    return Broker(
        url=compose.URL,
        management_url=compose.MANAGEMENT_URL,
        how=f"RabbitMQ in Docker, from {file}",
        stop=(lambda: compose.down(file)) if started else (lambda: None),
    )


def _private(chosen: Installation, say: Callable[[str], object]) -> Broker:
    say(f"starting a private node of RabbitMQ {chosen.version_text} (a few seconds)")
    node = PrivateNode(chosen)
    try:
        node.start()
    except BaseException:
        node.close()
        raise
    return Broker(
        url=node.url,
        management_url=node.http_url,
        log=node.log,
        how=f"a private node of the RabbitMQ {chosen.version_text} in {chosen.scripts}",
        stop=node.close,
    )

"""`brokerjobs config`: each setting and where it came from; secrets hidden."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
from pydantic import SecretStr

from brokerjobs import settings
from brokerjobs.cli.options import consumers_option, namespace_option, url_option
from brokerjobs.cli.output import json_option, print_json, print_table
from brokerjobs.settings import PREFIX, Settings


@click.command()
@json_option
@consumers_option
@namespace_option
@url_option
def command(as_json: bool, **given: Any) -> None:
    """Every setting: its value, where it came from, and what it does. Passwords are hidden."""
    chosen, sources = settings.load_with_sources(given)
    rows = [
        (name, shown(getattr(chosen, name)), sources[name], field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    if as_json:
        print_json(
            {
                name: {
                    "value": value,
                    "source": source,
                    "variable": PREFIX + name.upper(),
                    "description": about,
                }
                for name, value, source, about in rows
            }
        )
        return
    print_table(["setting", "value", "from", "what it does"], rows)


def shown(value: Any) -> Any:
    """The value with any password in it hidden."""
    if isinstance(value, tuple):
        return " ".join(value)
    if not isinstance(value, SecretStr):
        return value
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("amqp", "amqps", "http", "https"):
        return "***"
    if parts.password is None:
        return urlunsplit(parts)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}", query=""))

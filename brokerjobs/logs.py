"""Log lines: a constant event and fields, coloured on a terminal, JSON elsewhere. No arguments, unless asked for."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TextIO

import structlog
from pydantic_core import to_json

# What each transition of a job may carry; the job's own lines get the first four by context.
FIELDS = ("job", "id", "queue", "attempt", "outcome", "duration")

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("brokerjobs")

_logger = logging.getLogger("brokerjobs")
_shows_arguments = False
_told: list[Callable[[], Mapping[str, Any]]] = []


def configure(
    level: str = "info", format: Literal["auto", "console", "json"] = "auto", *, arguments: bool = False
) -> None:
    """Send log lines to standard error; for programs of ours only: a library must not take over logging.

    Args:
        level: the least severe that is written.
        format: auto is console on a terminal.
        arguments: whether the line of each attempt tells its job's arguments.
    """
    global _shows_arguments
    _shows_arguments = arguments
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_context,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
    ]
    renderers = _renderers(console)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            _Writer(sys.stderr, renderers),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderers,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if level in ("debug", "info") else level.upper())
    logging.getLogger("brokerjobs").setLevel(level.upper())
    logging.getLogger("consumers").setLevel(level.upper())
    # The clients log whole frames, hence payloads; what goes wrong with them, we say ourselves.
    for name in ("aiormq", "aio_pika", "pika"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def hears_info() -> bool:
    """Whether a line about what went well would be written: to ask costs less than to make it in vain."""
    if _logger.isEnabledFor(logging.INFO):
        return True
    processors = structlog.get_config()[
        "processors"
    ]  # where others than `configure` decide, levels may mean nothing
    return bool(processors[:1] != [structlog.stdlib.filter_by_level])


def shows_arguments() -> bool:
    """Whether somebody has asked to see what jobs are called with."""
    return _shows_arguments


def name(**fields: object) -> None:
    """Put these fields into each further log line of this process."""
    structlog.contextvars.bind_contextvars(**fields)


def tell(fields: Callable[[], Mapping[str, Any]]) -> None:
    """Let each line carry what this gives where the line is made, such as the job that runs there."""
    if fields not in _told:
        _told.append(fields)


def add_context(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A processor of structlog: what the line does not say itself of the job that runs here, and of its trace."""
    for fields in _told:
        for name, value in fields().items():
            event.setdefault(name, value)
    return event


class _Writer:
    """Writes a line that no handler need see, which is one for each job; warnings go the long way, through `logging`.

    Args:
        stream: where the handler writes too.
        renderers: those of the handler; the last makes the text.
    """

    def __init__(self, stream: TextIO, renderers: Sequence[structlog.typing.Processor]) -> None:
        self._stream = stream
        self._renderers = renderers

    def __call__(
        self, logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        if method not in ("debug", "info"):
            return event
        line: Any = event
        for render in self._renderers:
            line = render(logger, method, line)
        with suppress(
            ValueError, OSError
        ):  # closed, or nobody reads it: as `logging` does, the program goes on
            self._stream.write(f"{line}\n")
            self._stream.flush()
        raise structlog.DropEvent


def _renderers(console: bool) -> list[structlog.typing.Processor]:
    if console:
        return [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=24,
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]


def _json(line: dict[str, Any], default: Callable[[Any], Any]) -> str:
    """As `json.dumps` does, at a sixth of the cost where all is ASCII; the rest is left to it, which writes only that.

    Standard error need not be UTF-8, and what reads lines may end them at more characters than one.
    """
    with suppress(ValueError):  # half a character, or what holds itself
        written = to_json(line, fallback=default)
        if written.isascii():
            return written.decode()
    return json.dumps(line, default=default)

"""The command line: parse, call, print. One file per verb; each is loaded when it is used."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import click

from brokerjobs import __version__
from brokerjobs.cli.exits import exit_code
from brokerjobs.errors import BrokerJobsError

# verb → module that holds its `command`, and the line that `--help` shows
VERBS = {
    "broker": ("broker", "A private RabbitMQ for daily work: start, stop, status, url."),
    "cancel": ("cancel", "End a job wherever it is: running, queued or waiting."),
    "config": ("config", "Each setting, its value, and where it came from."),
    "consume": ("consume", "Run a worker for one or more queues."),
    "dead": ("dead", "Dead letters: list, show, replay, drop."),
    "health": ("health", "Whether the worker on this machine is ready, or lives."),
    "jobs": ("jobs", "The jobs that the consumers declare."),
    "pause": ("pause", "Let no worker take from a queue, until resume."),
    "publish": ("publish", "Publish one job by its name."),
    "queues": ("queues", "What waits, runs, and died, per queue."),
    "resume": ("resume", "Let workers take from a paused queue again."),
    "top": ("top", "All of it live: queues, workers, the jobs they run, what failed lately."),
    "topology": ("topology", "Exchanges, queues and bindings: show, apply, check, definitions, permissions."),
    "workers": ("workers", "Which workers are there, and who runs what since when."),
}


@contextmanager
def absent(package: str) -> Iterator[None]:
    """What is imported meanwhile finds that this package is not installed, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # which `import` takes for "there is none"
    try:
        yield
    finally:
        del sys.modules[package]


class Verbs(click.Group):
    """A group that imports a verb's module only when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        return command_of(name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(VERBS.items())])


def command_of(verb: str) -> click.Command:
    if verb != "health":  # which logs nothing, and must be quick
        with absent(
            "rich"
        ):  # structlog loads it for tracebacks that no log of ours shows: 5 MiB of each worker
            importlib.import_module("brokerjobs.logs")
    command = importlib.import_module(f"brokerjobs.cli.{VERBS[verb][0]}").command
    assert isinstance(command, click.Command)
    return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="brokerjobs")
def cli() -> None:
    """Background jobs on RabbitMQ."""


def main() -> NoReturn:
    """Run the command line: errors are one line, exit codes are those of docs/cli.md."""
    _replace_closed_streams()
    if "BROKERJOBS_NURSERY" in os.environ:
        _be_nursery()
    try:
        result: Any = cli(standalone_mode=False, prog_name="brokerjobs")
    except click.exceptions.Abort:
        fail("aborted", 130)
    except click.UsageError as error:
        usage = error.ctx.get_usage() + "\n" if error.ctx else ""
        print(usage, end="", file=sys.stderr)
        fail(error.format_message(), 2)
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except BrokerJobsError as error:
        fail(str(error), exit_code(error))
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except BrokenPipeError:  # `brokerjobs queues | head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # or Python tries once more to write what is left, at its end
        fail(f"cannot write: {error.strerror}", 1)
    sys.exit(result if isinstance(result, int) else 0)


def _replace_closed_streams() -> None:
    """Whoever started us may have closed some: `brokerjobs queues >&-`."""
    for name, mode in ("stdin", "r"), ("stdout", "w"), ("stderr", "w"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  (to the end)


def _be_nursery() -> None:
    """Fork workers for a parent; returns in each of them."""

    def load() -> None:
        with suppress(ImportError):
            importlib.import_module("uvloop")
        for name in "client", "worker":
            importlib.import_module(f"brokerjobs.{name}")

    command_of("consume")
    importlib.import_module("brokerjobs.supervisor.nursery").serve(load)


def fail(message: str, code: int) -> NoReturn:
    print(f"brokerjobs: {message}", file=sys.stderr)
    sys.exit(code)

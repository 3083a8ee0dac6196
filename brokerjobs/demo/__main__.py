"""Options, signals and exit codes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

try:
    import click
except ModuleNotFoundError:
    sys.exit(
        "demo: this Python does not have what brokerjobs needs: run `make demo`, which makes one that does"
    )

from brokerjobs import logs
from brokerjobs.errors import BrokerJobsError, BrokerUnreachable, ConfigurationError
from brokerjobs.node.broker import Broker, obtain
from brokerjobs.node.errors import RabbitMQUnavailable

if TYPE_CHECKING:
    from brokerjobs.demo.display import Display

DONE = 0
FAILURE = 1
UNREACHABLE = 69
CONFIGURATION = 78
INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    seed: int
    jobs: int
    ends: bool
    as_json: bool
    keep: bool
    yes: bool


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--seed", type=click.IntRange(0), default=7, show_default=True, help="Decides which jobs fail, and how."
)
@click.option(
    "--jobs", type=click.IntRange(20, 10_000), default=300, show_default=True, help="How many to publish."
)
@click.option("--exit", "ends", is_flag=True, help="End by itself after the summary.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The summary as JSON on standard output; all else on standard error.",
)
@click.option("--keep", is_flag=True, help="Leave the demo's queues and log behind.")
@click.option("--yes", is_flag=True, help="Install RabbitMQ without asking if there is none.")
def command(**given: Any) -> int:
    """See brokerjobs at work: a real RabbitMQ, a worker, a mail server, a shop, and jobs that fail.

    It works in the namespace `brokerjobs-demo` of that RabbitMQ, touches nothing else there, and ends what it started.

    Exit codes: 0 all counts agree, 1 they do not or the demo failed, 2 usage, 69 no RabbitMQ, 78 configuration,
    130 interrupted before the summary.
    """
    options = Options(**given)
    _check_parts()
    from brokerjobs.demo.display import display_on

    display = display_on(sys.stderr if options.as_json else sys.stdout)
    try:
        with obtain(yes=options.yes, say=display.say) as broker:
            display.say(f"using {broker.how}")
            return asyncio.run(_demo(broker, display, options))
    finally:
        display.close()


async def _demo(broker: Broker, display: Display, options: Options) -> int:
    from brokerjobs.demo import plan
    from brokerjobs.demo.guide import guide
    from brokerjobs.demo.performance import Performance
    from brokerjobs.demo.stage import set_up

    _cancel_on_signals(asyncio.current_task(), display)
    chosen, summary = plan.make(options.seed, options.jobs), None
    try:
        async with set_up(broker.url, chosen, seed=options.seed, keep=options.keep, say=display.say) as stage:
            performance = Performance(stage, display, options.seed)
            summary = await performance.play()
            display.sum_up(summary)
            stage.keep_folder |= not summary.agrees
            if stage.keep_folder:
                display.say(f"the worker's log is {stage.worker.log}")
            if options.as_json:
                click.echo(json.dumps(summary.as_dict()))
            if not options.ends:
                for line in guide(broker, stage, performance.refused_mail):
                    display.say(line)
                await performance.stay()
    except asyncio.CancelledError:
        if summary is None:
            raise KeyboardInterrupt from None
    return DONE if summary is not None and summary.agrees else FAILURE


def _cancel_on_signals(demo: asyncio.Task[Any] | None, display: Display) -> None:
    """The first signal takes the demo down in good order, the second at once."""
    assert demo is not None
    told = False

    def end() -> None:
        nonlocal told
        if told:
            os._exit(INTERRUPTED)  # what it started ends with it
        told = True
        display.say("ending what it started; Ctrl-C again ends it at once")
        demo.cancel()

    for number in signal.SIGINT, signal.SIGTERM:
        asyncio.get_running_loop().add_signal_handler(number, end)


def _check_parts() -> None:
    """The demo plays with the example consumers of a checkout, and with what they need."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "consumers" / "orders.py").is_file():
        raise ConfigurationError(
            "the demo runs in a checkout of brokerjobs, where `consumers/` lies beside it"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    missing = [name for name in ("jinja2", "aiosmtpd") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"the demo needs {' and '.join(missing)}: pip install 'brokerjobs[examples]'"
        )


def main() -> NoReturn:
    """Run it; each failure is one clear line and its exit code."""
    logs.configure("error", "console")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also while RabbitMQ is being obtained
    try:
        code = command(standalone_mode=False, prog_name="python -m brokerjobs.demo")
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", INTERRUPTED)
    except (RabbitMQUnavailable, BrokerUnreachable) as error:
        fail(str(error), UNREACHABLE)
    except ConfigurationError as error:
        fail(str(error), CONFIGURATION)
    except (BrokerJobsError, ConnectionError) as error:
        fail(str(error), FAILURE)
    sys.exit(code)


def fail(message: str, code: int) -> NoReturn:
    print(f"demo: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()

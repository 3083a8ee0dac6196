"""RabbitMQ installed by the system's own package manager: apt-get or Homebrew.

Debian's package starts a service on the usual ports, open to the network. Nobody asked for one
here, so under systemd its units are masked while apt works and disabled afterwards; a unit that
was there before is left alone. `systemctl enable --now rabbitmq-server` gives the service.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from brokerjobs.node import installation
from brokerjobs.node.errors import RabbitMQNotInstalled
from brokerjobs.node.installation import Installation

PACKAGE = "rabbitmq-server"

_APT_INSTALL = ("apt-get", "install", "-y", "--no-install-recommends", PACKAGE)
_BREW_INSTALL = ("brew", "install", "rabbitmq")
_UNITS = ("rabbitmq-server.service", "epmd.socket", "epmd.service")
_UNIT_FOLDERS = (Path("/lib/systemd/system"), Path("/etc/systemd/system"))
_SYSTEMD_RUNS = Path("/run/systemd/system")
_TIMEOUT = 1800.0  # seconds: brew may build


def install(
    *,
    yes: bool = False,
    say: Callable[[str], object] = lambda _: None,
    ask: Callable[[str], bool] | None = None,
) -> Installation:
    """Install RabbitMQ for the whole system.

    Args:
        yes: do not ask.
        say: is told about what takes time.
        ask: asks the person a yes-or-no question; on the terminal when None. Without a terminal
            nobody is asked.

    Raises:
        RabbitMQNotInstalled: no package manager, no right to use it, declined, or it failed.
    """
    if shutil.which("apt-get"):
        command = [*_root(), *_APT_INSTALL]
        _ensure_new_enough()
    elif shutil.which("brew"):
        command = list(_BREW_INSTALL)
    else:
        raise RabbitMQNotInstalled("there is neither apt-get nor brew to install RabbitMQ with")
    shown = " ".join(command)
    if not yes and not (ask or _ask)(f"RabbitMQ is not installed. Run `{shown}`?"):
        raise RabbitMQNotInstalled(f"not installed, as you wish; by hand: {shown}")
    say(f"installing RabbitMQ: {shown} (about a minute)")
    if "apt-get" in command:
        _install_by_apt(command)
    else:
        _run(command)
    installed = installation.find()
    if installed is None:
        raise RabbitMQNotInstalled(f"`{shown}` succeeded, yet no rabbitmq-server is to be found")
    return installed


def _install_by_apt(command: Sequence[str]) -> None:
    with _services_kept_down():
        try:
            _run(command)
        except RabbitMQNotInstalled:
            _run([*_root(), "apt-get", "update"])  # the list of packages may be missing or stale
            _run(command)


def _ensure_new_enough() -> None:
    policy = subprocess.run(
        ["apt-cache", "policy", PACKAGE], capture_output=True, text=True, check=False
    ).stdout
    offered = re.search(r"Candidate: (?:\d+:)?(\d+)\.(\d+)", policy)
    if offered and tuple(map(int, offered.groups())) < installation.OLDEST:
        oldest = ".".join(map(str, installation.OLDEST))
        raise RabbitMQNotInstalled(
            f"apt offers RabbitMQ {'.'.join(offered.groups())}, but {oldest} or newer is needed"
        )


def _root() -> list[str]:
    """What to put before a command to run it as root."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        if _succeeds(["sudo", "-n", "true"]):
            return ["sudo", "-n"]
        if sys.stdin.isatty():
            return ["sudo"]
    raise RabbitMQNotInstalled(f"to install RabbitMQ takes root: sudo {' '.join(_APT_INSTALL)}")


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        return True
    print(f"{question} [Y/n] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    return bool(answer) and answer.strip().lower() in ("", "y", "yes")


@contextmanager
def _services_kept_down() -> Iterator[None]:
    units = [unit for unit in _UNITS if not any((folder / unit).exists() for folder in _UNIT_FOLDERS)]
    if not units or not _SYSTEMD_RUNS.is_dir():
        yield
        return
    systemctl = [*_root(), "systemctl", "--quiet"]
    _run([*systemctl, "mask", "--runtime", *units])
    try:
        yield
    finally:
        _run([*systemctl, "unmask", "--runtime", *units])
        for unit in units:
            with contextlib.suppress(RabbitMQNotInstalled):  # not every release has all of them
                _run([*systemctl, "disable", unit])


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str]) -> None:
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "HOMEBREW_NO_ENV_HINTS": "1"},
            stdin=subprocess.DEVNULL,  # sudo asks on the terminal itself
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise RabbitMQNotInstalled(f"`{shown}` took more than {_TIMEOUT / 60:.0f} minutes") from None
    if done.returncode:
        last = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-5:])
        raise RabbitMQNotInstalled(f"`{shown}` failed with exit code {done.returncode}:\n{last}")

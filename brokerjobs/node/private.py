"""A RabbitMQ node of one's own: own name, ports, data, log, cookie and epmd, loopback only.

    with PrivateNode(installation) as node:
        connect(node.url)
        node.kill()             # kill -9, as a crash would
        node.start()            # again, with the data as the crash left it

It dies with this Python process, whatever ends that. (`detached` leaves one running.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from brokerjobs.node import configuration, realm
from brokerjobs.node.command import run
from brokerjobs.node.configuration import Ports
from brokerjobs.node.errors import NodeFailed
from brokerjobs.node.installation import Installation
from brokerjobs.node.log import NodeLog
from brokerjobs.node.ports import listens, reserve
from brokerjobs.node.realm import Realm
from brokerjobs.node.reaper import leave_running
from brokerjobs.node.waiting import wait_until

START_TIMEOUT = 120.0  # seconds; 2 to 6 on an idle machine
STOP_TIMEOUT = 60.0
_SURELY_STARTED = 30.0


class PrivateNode:
    """One node; started by `start` or by entering it as a context manager."""

    def __init__(
        self,
        installation: Installation,
        *,
        conf: str = "",
        advanced: str = "",
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        name: str | None = None,
        ports: Ports | None = None,
        in_realm: Realm | None = None,
    ) -> None:
        """Choose ports and a folder; nothing runs yet but the epmd.

        Args:
            installation: the RabbitMQ to run.
            conf: lines for its rabbitmq.conf, after the project's and after its listeners.
            advanced: text of its advanced.config.
            env: more environment variables. RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS such as
                "+S 1:1" is added to ours, any other replaces ours.
            folder: for data, log and configuration; kept at the end. A temporary one when None.
            name: the node's name, such as "jobs@localhost".
            ports: which are wanted; one that is not free is replaced by another.
            in_realm: with whose epmd and cookie; that of this process when None.

        Raises:
            NodeFailed: no free port, or epmd did not start.
        """
        self.installation = installation
        self.conf = conf
        self.advanced = advanced
        self.env = dict(env or {})
        self._realm = in_realm or realm.of_this_process(installation)
        self._reserved = {key: reserve(port) for key, port in asdict(ports or Ports()).items()}
        self.ports = Ports(**{key: port.number for key, port in self._reserved.items()})
        self.name = name or f"brokerjobs-{self.ports.amqp}@localhost"
        self._temporary = folder is None
        self.folder = (
            Path(tempfile.mkdtemp(prefix=f"node-{self.ports.amqp}-", dir=self._realm.folder))
            if folder is None
            else folder.absolute()
        )
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log = self.folder / "node.log"
        self._log = NodeLog(self.log)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    # ---- what a client needs

    @property
    def url(self) -> str:
        """AMQP URL of its default user and virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.ports.amqp}/%2F"

    @property
    def http_url(self) -> str:
        """The management UI and HTTP API (user guest, password guest)."""
        return f"http://127.0.0.1:{self.ports.management}"

    @property
    def prometheus_url(self) -> str:
        """The broker's own metrics."""
        return f"http://127.0.0.1:{self.ports.prometheus}/metrics"

    @property
    def version(self) -> tuple[int, int, int]:
        """Of the installation."""
        return self.installation.version

    @property
    def pid(self) -> int:
        """Of the Erlang process.

        Raises:
            NodeFailed: it was not started, or was ended by this object.
        """
        return self._started_process().pid

    @property
    def is_running(self) -> bool:
        """True while its process lives."""
        return self._process is not None and self._process.poll() is None

    def ctl(self, *arguments: object, tool: str = "rabbitmqctl", timeout: float = 60) -> str:
        """Run rabbitmqctl against this node; gives what it printed.

        Args:
            arguments: such as "list_queues", "--formatter=json".
            tool: or rabbitmq-diagnostics, rabbitmq-queues, ...
            timeout: in seconds.

        Raises:
            NodeFailed: it ended with an error or took too long.
        """
        text = " ".join([tool, *map(str, arguments)])
        try:
            done = run(
                [self.installation.scripts / tool, "-n", self.name, *map(str, arguments)],
                env=self._environment(),
                cwd=self.folder,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise NodeFailed(f"{text} took more than {timeout:.0f} s") from None
        if done.returncode:
            raise NodeFailed(f"{text}: exit {done.returncode}\n{done.stdout}{done.stderr}".strip())
        return done.stdout

    # ---- life

    def start(
        self,
        *,
        wait: bool = True,
        timeout: float = START_TIMEOUT,
        outlive: bool = False,
        inherit: Sequence[int] = (),
    ) -> Self:
        """Start it, with the data that it left.

        Args:
            wait: until it serves clients; otherwise call `wait_ready`.
            timeout: seconds for that.
            outlive: let it live on when this process ends.
            inherit: file descriptors that it keeps open.

        Raises:
            NodeFailed: it runs already, died, or was not ready in time.
        """
        if self.is_running:
            raise NodeFailed(f"{self.name} runs already, as process {self.pid}")
        self.kill()  # clears up after one that died by itself
        self._write_files()
        self._started = time.monotonic()
        self._log.mark_start()
        self._process = self._realm.reaper.start(
            [self.installation.scripts / "rabbitmq-server"],
            log=self.log,
            cwd=self.folder,
            env=self._environment(),
            holder=outlive,
            inherit=inherit,
        )
        if wait:
            self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until it serves clients on all its ports.

        Args:
            timeout: in seconds.

        Raises:
            NodeFailed: it died or was not ready in time.
        """
        process = self._started_process()
        in_time = wait_until(lambda: self._is_ready() or process.poll() is not None, timeout=timeout)
        if process.returncode is not None:
            raise NodeFailed(f"{self.name} died at its start:\n{self._last_words()}")
        if not in_time:
            raise NodeFailed(f"{self.name} was not ready after {timeout:.0f} s:\n{self._last_words()}")

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop it in good order; the data stays.

        Args:
            timeout: seconds after which it is killed.
        """
        if self.is_running:
            process = self._started_process()
            process.terminate()
            process.send_signal(signal.SIGCONT)  # it may be paused
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End it by kill -9; the data stays as a crash leaves it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._realm.reaper.forget(process.pid)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): it answers nothing, but its connections stay open."""
        self._started_process().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on after `pause`."""
        self._started_process().send_signal(signal.SIGCONT)

    def restart(self, *, kill: bool = False) -> Self:
        """Stop it, or kill it, and start it again."""
        if kill:
            self.kill()
        else:
            self.stop()
        return self.start()

    def close(self) -> None:
        """Kill it, free its ports, and remove its folder if that is a temporary one."""
        self.kill()
        self._free_ports()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def let_go(self) -> None:
        """Leave it running, with its epmd, when this process ends; see `start(outlive=True)`."""
        self._free_ports()
        self._realm.let_go()
        leave_running(self._started_process())

    def __enter__(self) -> Self:
        try:
            return self if self.is_running else self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside

    def _started_process(self) -> subprocess.Popen[bytes]:
        """Which may have died since."""
        if self._process is None:
            raise NodeFailed(f"{self.name} does not run")
        return self._process

    def _free_ports(self) -> None:
        for port in self._reserved.values():
            port.close()

    def _is_ready(self) -> bool:
        # Should a later version say it otherwise: by then any node serves.
        surely = time.monotonic() - self._started > _SURELY_STARTED
        return self._log.says_ready() or (surely and listens(self.ports.amqp))

    def _last_words(self) -> str:
        where = "" if self._temporary else f"\nthe whole log: {self.log}"
        return self._log.last_words() + where

    def _write_files(self) -> None:
        project = configuration.project_conf().read_text()
        files = {
            "rabbitmq.conf": configuration.conf_text(project, self.ports, self.conf),
            "advanced.config": self.advanced or "[].\n",
        }
        for file, text in files.items():
            (self.folder / file).write_text(text)
        plugins = self.folder / "enabled_plugins"
        if not plugins.exists():  # `ctl("enable", ..., tool="rabbitmq-plugins")` adds to it
            plugins.write_text(configuration.ENABLED_PLUGINS)
        cookie = self.folder / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        cookie.touch(mode=0o600)
        cookie.write_text(self._realm.cookie)
        cookie.chmod(0o400)  # Erlang accepts no other mode

    def _environment(self) -> dict[str, str]:
        return configuration.environment(
            os.environ,
            self.installation,
            self.folder,
            name=self.name,
            distribution_port=self.ports.distribution,
            epmd_port=self._realm.epmd_port,
            extra=self.env,
        )

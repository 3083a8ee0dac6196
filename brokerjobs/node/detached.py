"""The node for daily work: it outlives the command that starts it, until it is told to stop.

There is one per user. It takes RabbitMQ's own ports if they are free, so that the default URL
reaches it. Its data stays, one folder for each RabbitMQ series, since no series reads another's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable

from brokerjobs.node import state
from brokerjobs.node.configuration import Ports
from brokerjobs.node.errors import NodeFailed
from brokerjobs.node.installation import Installation
from brokerjobs.node.locks import is_locked, locked
from brokerjobs.node.ports import listens
from brokerjobs.node.private import START_TIMEOUT, STOP_TIMEOUT, PrivateNode
from brokerjobs.node.realm import Realm
from brokerjobs.node.state import State
from brokerjobs.node.waiting import wait_until

NAME = "brokerjobs@localhost"
USUAL_PORTS = Ports(amqp=5672, management=15672, prometheus=15692)

_LOCK_TIMEOUT = 2.0  # nobody but a node holds that lock for longer than it takes to look
_EPMD_TIMEOUT = 10.0


def start(installation: Callable[[], Installation]) -> tuple[State, bool]:
    """Start the node unless it runs; gives its state, and True if it was started now.

    Args:
        installation: gives the RabbitMQ to run; called only if none runs.

    Raises:
        RabbitMQUnavailable: there is none, or it does not start.
    """
    state.home().mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(state.home() / "start.lock", timeout=2 * START_TIMEOUT))
        except TimeoutError as error:
            raise NodeFailed(f"another start of the node does not end: {error}") from None
        running = state.running()
        if running is not None and _comes_to_serve(running):
            return running, False
        return _start(installation()), True


def stop() -> State | None:
    """Stop the node in good order and its epmd with it; gives what ran, or None if none did.

    Raises:
        NodeFailed: it cannot be stopped from here.
    """
    running = state.running()
    if running is None:
        return None
    _ensure_is_the_node(running)
    for number, timeout in (signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, _EPMD_TIMEOUT):
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, number)
        if wait_until(lambda: not is_locked(state.lock_path()), timeout=timeout):
            break
    else:
        raise NodeFailed(f"process {running.pid} does not end; its log: {running.log}")
    wait_until(lambda: not listens(running.epmd_port), timeout=_EPMD_TIMEOUT)
    return running


def _start(installation: Installation) -> State:
    state.clear()  # or, once the lock is held, the last node's would be taken for this one's
    try:
        with locked(state.lock_path(), timeout=_LOCK_TIMEOUT) as lock:
            node, realm, started = _start_with(installation, lock)
    except TimeoutError:
        raise NodeFailed(
            f"a node runs, but its state in {state.home()} is illegible: end the process whose "
            f"command line contains {state.home()}, then start again"
        ) from None
    if not is_locked(state.lock_path()):
        _discard(node, realm)
        raise NodeFailed(
            f"the file system of {state.home()} keeps no locks: set XDG_STATE_HOME to a local one"
        )
    node.let_go()
    return started


def _start_with(installation: Installation, lock: int) -> tuple[PrivateNode, Realm, State]:
    folder = state.home() / f"rabbitmq-{installation.series}"
    folder.mkdir(exist_ok=True, mode=0o700)
    realm = Realm(installation, folder)
    node = PrivateNode(
        installation,
        folder=folder,
        name=NAME,
        ports=USUAL_PORTS,
        in_realm=realm,
    )
    try:
        node.start(wait=False, outlive=True, inherit=[lock])
        started = _state_of(node, realm)
        state.write(started)
        node.wait_ready()
    except BaseException:
        _discard(node, realm)
        raise
    return node, realm, started


def _discard(node: PrivateNode, realm: Realm) -> None:
    node.close()
    realm.close()


def _state_of(node: PrivateNode, realm: Realm) -> State:
    return State(
        url=node.url,
        management_url=node.http_url,
        prometheus_url=node.prometheus_url,
        version=node.installation.version_text,
        pid=node.pid,
        name=node.name,
        folder=str(node.folder),
        log=str(node.log),
        epmd_port=realm.epmd_port,
        started_at=round(time.time(), 3),
    )


def _comes_to_serve(running: State) -> bool:
    """Its first starter may have been killed before it was ready; False if it dies meanwhile."""
    port = int(running.url.rpartition(":")[2].partition("/")[0])
    if not wait_until(lambda: listens(port) or not is_locked(state.lock_path()), timeout=START_TIMEOUT):
        raise NodeFailed(
            f"process {running.pid} runs but serves nobody: see {running.log}, then `brokerjobs broker stop`"
        )
    return is_locked(state.lock_path())


def _ensure_is_the_node(running: State) -> None:
    """A container may share the home folder, but not its process numbers."""
    arguments = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(running.pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    if running.folder not in arguments:
        raise NodeFailed(
            f"the node runs, but process {running.pid} here is another: was it started in a "
            "container, or on another machine with the same home folder? Stop it there."
        )

"""`brokerjobs consume` as a person or a supervisor runs it: what it runs, how it ends, and what it says meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from brokerjobs.node.private import PrivateNode
from tests import amqp
from tests.conftest import management, one_version
from tests.shell import PATIENCE, Running, Shell, children, is_gone
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

stop_signals = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])

# `hold` runs until somebody opens the other end of the pipe `gate`; `stay` until it is ended.
EMAILS = """
import asyncio
from pathlib import Path

from brokerjobs import Consumer

consumer = Consumer("emails")


def note(text):
    with Path("notes").open("a") as notes:
        notes.write(text + "\\n")


@consumer.on_startup
def start():
    note("start-up")


@consumer.on_shutdown
def end():
    note("shut-down")


@consumer.job()
def write(text: str) -> None:
    note(text)


@consumer.job()
def hold(name: str) -> None:
    note(f"{name} began")
    Path("gate").read_bytes()
    note(f"{name} finished")


@consumer.job()
async def stay() -> None:
    note("stay began")
    await asyncio.Event().wait()
"""

PLAIN = """
from pathlib import Path

from brokerjobs import Consumer

consumer = Consumer("{queue}")


@consumer.job()
def write(text: str) -> None:
    with Path("notes").open("a") as notes:
        notes.write("{queue} " + text + "\\n")
"""


@pytest.fixture
def emails(online: Shell) -> Shell:
    """A folder with `consumers/emails.py`, whose broker is the node."""
    online.write("consumers/emails.py", EMAILS)
    os.mkfifo(online.folder / "gate")
    return online


def publish(shell: Shell, job: str, **arguments: object) -> None:
    """Publish as any program does; what `brokerjobs publish` does is tested beside this file."""
    amqp.publish(shell.env["BROKERJOBS_URL"], job, json.dumps(arguments).encode(), message_id=f"id of {job}")


def noted(shell: Shell, line: str) -> None:
    eventually(lambda: line in shell.lines("notes"), timeout=PATIENCE, what=f"a job noted {line!r}")


def open_gate(shell: Shell) -> None:
    (shell.folder / "gate").write_bytes(b"")


def is_ready(url: str, queue: str, count: int = 1) -> None:
    eventually(lambda: amqp.ready(url, queue) == count, timeout=PATIENCE, what=f"{count} wait in {queue}")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def user(node: PrivateNode, vhost: str, **permissions: str) -> Iterator[str]:
    """The URL of a user with these permissions only."""
    management(node, "PUT", f"/api/users/{vhost}", b'{"password": "geheim", "tags": ""}')
    allowed = {"configure": "", "write": "", "read": "", **permissions}
    management(node, "PUT", f"/api/permissions/{vhost}/{vhost}", json.dumps(allowed).encode())
    yield f"amqp://{vhost}:geheim@127.0.0.1:{node.ports.amqp}/{vhost}"
    management(node, "DELETE", f"/api/users/{vhost}")


# -- jobs run


def test_published_job_runs_and_sigterm_ends_the_worker(emails: Shell, node: PrivateNode, url: str) -> None:
    worker = emails.consume("emails")
    said = worker.until("consuming")
    assert said["queues"] == "emails"
    assert said["rabbitmq"] == node.installation.version_text
    assert str(node.ports.amqp) in said["broker"]

    published = emails.run("publish", "emails.write", '{"text": "hello"}')
    assert (published.code, published.err) == (0, "")
    noted(emails, "hello")
    done = worker.until("job succeeded")
    assert (done["job"], done["id"], done["queue"]) == ("emails.write", published.out.strip(), "emails")
    assert (done["attempt"], done["level"]) == (1, "info")

    worker.signal(signal.SIGTERM)
    ended = worker.end()
    assert (ended.code, ended.out) == (0, "")
    assert emails.lines("notes") == ["start-up", "hello", "shut-down"]
    lines = [json.loads(line) for line in ended.err.splitlines()]  # one object per line, and nothing else
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    assert lines[-1]["event"] == "stopped"
    assert "hello" not in ended.err, "arguments are nobody's business"
    assert "guest:guest" not in ended.err
    assert amqp.ready(url, "emails") == 0


@one_version
def test_console_lines_are_for_people(emails: Shell) -> None:
    worker = emails.start("consume", "emails", "--burst", "--log-format", "console", "--log-level", "debug")
    ended = worker.end()
    assert ended.code == 0, ended.err
    assert not worker.log, "no JSON"
    assert any("consuming" in line and "queues=emails" in line for line in ended.err.splitlines())


@one_version
def test_burst_empties_all_queues_of_the_package_and_ends(online: Shell, url: str) -> None:
    for queue in "first", "second":
        online.write(f"consumers/{queue}.py", PLAIN.format(queue=queue))
    assert online.run("topology", "apply").code == 0
    for number in range(3):
        for queue in "first", "second":
            publish(online, f"{queue}.write", text=str(number))

    ended = online.start("consume", "--burst").end()
    assert (ended.code, ended.out) == (0, "")
    assert sorted(online.lines("notes")) == sorted(
        f"{queue} {n}" for queue in ("first", "second") for n in range(3)
    )
    assert [amqp.ready(url, queue) for queue in ("first", "second")] == [0, 0]


def test_strict_runs_a_queue_only_while_those_before_it_are_empty(
    emails: Shell,
) -> None:
    emails.write("consumers/low.py", PLAIN.format(queue="low"))
    worker = emails.consume("emails", "low", "--strict", "--concurrency", "1", "--prefetch", "5")
    publish(emails, "emails.hold", name="first")
    noted(emails, "first began")
    for number in range(3):
        publish(emails, "low.write", text=str(number))
    for number in range(3):
        publish(emails, "emails.write", text=f"emails {number}")
    for queue in "emails", "low":
        is_ready(emails.env["BROKERJOBS_URL"], queue, 0)  # the worker has them all
    open_gate(emails)
    noted(emails, "low 2")
    worker.signal(signal.SIGTERM)
    assert worker.end().code == 0
    assert emails.lines("notes")[1:-1] == [
        "first began",
        "first finished",
        *(f"{queue} {number}" for queue in ("emails", "low") for number in range(3)),
    ]


@one_version
def test_side_by_side_a_slow_queue_does_not_hold_up_another(emails: Shell) -> None:
    emails.write("consumers/other.py", PLAIN.format(queue="other"))
    worker = emails.consume("emails", "other", "--concurrency", "1")
    publish(emails, "emails.hold", name="slow")
    noted(emails, "slow began")
    publish(emails, "other.write", text="runs meanwhile")
    noted(emails, "other runs meanwhile")
    assert "slow finished" not in emails.lines("notes")
    open_gate(emails)
    noted(emails, "slow finished")
    worker.signal(signal.SIGTERM)
    assert worker.end().code == 0


# -- it stops


@stop_signals
@one_version
def test_first_signal_lets_the_running_job_finish_and_gives_back_the_rest(
    emails: Shell, url: str, number: signal.Signals
) -> None:
    worker = emails.consume("emails", "--concurrency", "1", "--prefetch", "5")
    publish(emails, "emails.hold", name="running")
    noted(emails, "running began")
    publish(emails, "emails.write", text="waiting")
    worker.signal(number)
    assert worker.until("draining")["running"] == 1
    open_gate(emails)
    assert worker.end().code == 0
    assert emails.lines("notes") == ["start-up", "running began", "running finished", "shut-down"]
    is_ready(url, "emails")  # the one that had not begun
    (waiting,) = amqp.peek(url, "emails")
    assert waiting.routing_key == "emails.write"


@pytest.mark.parametrize(
    ("job", "arguments"),
    [("stay", {}), ("hold", {"name": "stay"})],
    ids=["on the loop", "in a thread"],
)
@one_version
def test_job_that_outruns_the_drain_goes_back(
    emails: Shell, url: str, job: str, arguments: dict[str, str]
) -> None:
    worker = emails.consume("emails", "--drain-timeout", "200ms")
    publish(emails, f"emails.{job}", **arguments)
    noted(emails, "stay began")
    worker.signal(signal.SIGTERM)
    assert worker.end().code == 75
    assert worker.until("stopped")["returned"] == 1
    is_ready(url, "emails")
    (back,) = amqp.peek(url, "emails")
    assert back.properties.message_id == f"id of emails.{job}"
    assert "stay finished" not in emails.lines("notes")


@pytest.mark.parametrize("job", ["stay", "hold"], ids=["on the loop", "in a thread"])
@stop_signals
@one_version
def test_second_signal_ends_at_once(emails: Shell, url: str, number: signal.Signals, job: str) -> None:
    worker = emails.consume("emails", "--drain-timeout", "1h")
    publish(emails, f"emails.{job}", **({"name": "stay"} if job == "hold" else {}))
    noted(emails, "stay began")
    worker.signal(number)
    worker.until("draining")
    assert worker.process.poll() is None
    worker.signal(number)
    assert worker.end().code == 130
    assert worker.log[-1]["event"] == "ended at once"
    is_ready(url, "emails")


def test_signal_ends_a_worker_that_still_looks_for_its_broker(offline: Shell) -> None:
    offline.write("consumers/emails.py", EMAILS)
    worker = offline.start(
        "consume", "emails", "--start-timeout", "1h", "--url", f"amqp://127.0.0.1:{free_port()}/"
    )
    worker.until("no session yet")
    worker.signal(signal.SIGTERM)
    assert worker.end().code == 0
    assert offline.lines("notes") == ["start-up", "shut-down"]


# -- no broker, or not for us


def test_no_broker_is_exit_code_69_after_the_start_timeout(offline: Shell) -> None:
    offline.write("consumers/emails.py", EMAILS)
    port = free_port()
    url = f"amqp://jane:geheim@127.0.0.1:{port}/"
    ended = offline.run("consume", "emails", "--start-timeout", "500ms", BROKERJOBS_URL=url)
    assert (ended.code, ended.out) == (69, "")
    assert ended.complaint.startswith(f"brokerjobs: RabbitMQ at 127.0.0.1:{port} cannot be reached")
    assert "geheim" not in ended.err
    assert "Traceback" not in ended.err


def test_broker_that_never_answers_is_exit_code_69(offline: Shell) -> None:
    offline.write("consumers/emails.py", EMAILS)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        ended = offline.run(
            "consume",
            "emails",
            "--start-timeout",
            "500ms",
            BROKERJOBS_URL=f"amqp://jane:geheim@127.0.0.1:{port}/",
            BROKERJOBS_CONNECT_TIMEOUT="300ms",
        )
    assert (ended.code, ended.out) == (69, "")
    assert f"127.0.0.1:{port}" in ended.complaint
    assert "no answer within 0.3 s" in ended.complaint
    assert "geheim" not in ended.err


def test_wrong_password_is_exit_code_78_at_once(emails: Shell, node: PrivateNode, url: str) -> None:
    ended = emails.run(
        "consume", "emails", "--start-timeout", "1h", BROKERJOBS_URL=url.replace("guest:guest", "jane:geheim")
    )
    assert (ended.code, ended.out) == (78, "")
    assert f":{node.ports.amqp}" in ended.complaint
    assert "refuses user 'jane': wrong name or password" in ended.complaint
    assert "geheim" not in ended.err
    assert "Traceback" not in ended.err


@one_version
def test_missing_virtual_host_is_exit_code_78_at_once(emails: Shell, url: str) -> None:
    ended = emails.run("consume", "emails", "--start-timeout", "1h", BROKERJOBS_URL=url + "-nowhere")
    assert ended.code == 78
    assert "not into this virtual host: does it exist" in ended.complaint


def test_user_who_may_not_declare_is_exit_code_78_at_once(
    emails: Shell, node: PrivateNode, vhost: str
) -> None:
    with user(node, vhost, read=".*") as url:
        ended = emails.run("consume", "emails", "--start-timeout", "1h", BROKERJOBS_URL=url)
    assert ended.code == 78, ended.err
    assert f"refuses user '{vhost}'" in ended.complaint
    assert "geheim" not in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("topology", "said"), [("check", "missing in RabbitMQ: jobs"), ("none", "there is no queue 'emails'")]
)
@one_version
def test_worker_that_shall_not_declare_says_what_is_missing(emails: Shell, topology: str, said: str) -> None:
    ended = emails.run("consume", "emails", "--topology", topology)
    assert ended.code == 78
    assert said in ended.complaint
    assert "brokerjobs topology apply" in ended.complaint


# -- no consumer, or a broken one


def complaint(shell: Shell, *arguments: str, code: int = 78) -> str:
    """The one line that a command says about what is wrong."""
    ended = shell.run("consume", *arguments)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert ended.err.startswith("brokerjobs: ")
    return ended.complaint


def test_missing_consumer_is_named_with_what_to_write(offline: Shell) -> None:
    offline.write("consumers/orders.py", PLAIN.format(queue="orders"))
    said = complaint(offline, "emails")
    assert "no consumer for queue 'emails'" in said
    assert "modules: orders" in said
    assert "write consumers/emails.py" in said


def test_package_without_consumers_is_said(offline: Shell) -> None:
    assert "package 'consumers' declares no Consumer" in complaint(offline)


def test_missing_package_is_said(offline: Shell) -> None:
    said = complaint(offline, "emails", "--consumers", "shop.background")
    assert "there is no Python package 'shop' here" in said
    assert "--consumers PACKAGE" in said


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def broken(:", "SyntaxError"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("from brokerjobs import Consumer\nConsumer('Two Words')", "must be one word"),
    ],
    ids=["raises", "import", "syntax", "exit", "declaration"],
)
def test_module_that_cannot_be_imported_is_named(offline: Shell, module: str, said: str) -> None:
    path = offline.write("consumers/emails.py", module + "\n")
    line = complaint(offline, "emails")
    assert "consumers.emails" in line
    assert said in line
    if ": " in said:
        assert f"({path}:1)" in line


def test_start_up_hook_that_fails_is_named(offline: Shell) -> None:
    offline.write(
        "consumers/emails.py",
        "from brokerjobs import Consumer\nconsumer = Consumer('emails')\n"
        "@consumer.on_startup\nasync def open_pool():\n    raise ConnectionError('no database')\n",
    )
    ended = offline.run("consume", "emails")
    assert (ended.code, ended.out) == (78, "")
    assert ended.complaint == "brokerjobs: start-up hook open_pool failed: ConnectionError: no database"
    (line,) = [json.loads(line) for line in ended.err.splitlines()[:-1]]
    assert (line["event"], line["hook"]) == ("start-up hook failed", "open_pool")
    assert "consumers/emails.py" in line["exception"]


# -- metrics


@one_version
def test_metrics_are_served_on_the_port_that_the_log_names(emails: Shell) -> None:
    worker = emails.consume("emails", "--metrics-port", "0")
    address = worker.until("serving metrics")["address"]
    publish(emails, "emails.write", text="counted")
    worker.until("job succeeded")
    with urllib.request.urlopen(address, timeout=30) as answer:
        text = answer.read().decode()
    assert (
        'brokerjobs_jobs_finished_total{job_name="emails.write",outcome="succeeded",queue="emails"} 1.0'
        in text.splitlines()
    )
    worker.signal(signal.SIGTERM)
    assert worker.end().code == 0


def test_metrics_port_that_is_taken_is_exit_code_78(offline: Shell) -> None:
    offline.write("consumers/emails.py", EMAILS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = complaint(offline, "emails", "--metrics-port", port)
    assert f"metrics and health cannot be served on 127.0.0.1:{port}: Address already in use" in said
    assert "perhaps by another worker on this machine" in said
    assert "--metrics-port none" in said


# -- reload


def end_with_children(worker: Running, number: signal.Signals, *, to_all: bool = False) -> int:
    """Signal a worker that runs another; gives its exit code once both are gone."""
    started = children(worker.pid)
    assert started
    (worker.signal_group if to_all else worker.signal)(number)
    code = worker.end().code
    assert all(is_gone(child) for child in started), "no child outlives its parent"
    return code


@stop_signals
@one_version
def test_reload_restarts_on_a_change_and_ends_with_its_child(emails: Shell, number: signal.Signals) -> None:
    module = emails.folder / "consumers" / "emails.py"
    worker = emails.consume("emails", "--reload")
    publish(emails, "emails.write", text="before")
    noted(emails, "before")
    module.write_text(EMAILS.replace("    note(text)\n", "    note(text.upper())\n"))
    worker.until("consuming", times=2)
    assert worker.until("reloading")["changed"] == str(module)
    publish(emails, "emails.write", text="after")
    noted(emails, "AFTER")
    assert end_with_children(worker, number) == 0
    assert emails.lines("notes")[-1] == "shut-down"


def test_reload_waits_for_a_broken_module_to_be_mended(offline: Shell) -> None:
    module = offline.write("consumers/emails.py", "def broken(:\n")
    worker = offline.start(
        "consume", "emails", "--reload", "--start-timeout", "1h", "--url", f"amqp://127.0.0.1:{free_port()}/"
    )
    eventually(lambda: "cannot import consumers.emails" in worker.err, timeout=PATIENCE)
    assert worker.process.poll() is None
    module.write_text(EMAILS)
    worker.until("no session yet")
    assert end_with_children(worker, signal.SIGTERM) == 0


@one_version
def test_ctrl_c_on_a_reloading_worker_lets_its_job_finish(emails: Shell) -> None:
    worker = emails.consume("emails", "--reload")
    publish(emails, "emails.hold", name="running")
    noted(emails, "running began")
    worker.signal_group(signal.SIGINT)
    worker.until("draining")
    open_gate(emails)
    assert worker.end().code == 0
    assert emails.lines("notes") == ["start-up", "running began", "running finished", "shut-down"]


@one_version
def test_second_ctrl_c_ends_a_reloading_worker_at_once(emails: Shell, url: str) -> None:
    worker = emails.consume("emails", "--reload", "--drain-timeout", "1h")
    publish(emails, "emails.stay")
    noted(emails, "stay began")
    (child,) = children(worker.pid)
    worker.signal_group(signal.SIGINT)
    worker.until("draining")
    worker.signal_group(signal.SIGINT)
    assert worker.end().code == 130
    assert is_gone(child)
    is_ready(url, "emails")

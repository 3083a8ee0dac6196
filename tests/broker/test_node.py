"""A private node, for real: its life, its death, and what of it can be seen from outside."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pika
import pytest

from brokerjobs.node.broker import obtain
from brokerjobs.node.configuration import Ports
from brokerjobs.node.errors import NodeFailed
from brokerjobs.node.installation import Installation
from brokerjobs.node.ports import listens
from brokerjobs.node.private import PrivateNode
from tests.conftest import VERSIONS, _installation
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

PERSISTENT = pika.BasicProperties(delivery_mode=2)  # type: ignore[no-untyped-call]
ONE_CORE = {"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1"}

OWNER = """
import sys
from pathlib import Path
from brokerjobs.node.installation import Installation
from brokerjobs.node.private import PrivateNode
node = PrivateNode(Installation.at(Path(sys.argv[1])), env={"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1"})
node.start()
print(node.folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module", params=VERSIONS)
def rabbitmq(request: pytest.FixtureRequest) -> Installation:
    """For tests that start nodes of their own; the others share the running `node`."""
    return _installation(request.param)


def connect(node: PrivateNode) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(node.url))


def processes_of(folder: str) -> list[str]:
    """The processes that work in this folder, an epmd and an erl_child_setup among them."""
    lines = subprocess.run(
        ["ps", "-ww", "-A", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True
    )
    return [line for line in lines.stdout.splitlines() if folder in line and line.split()[1][0] != "Z"]


def addresses_of(pid: int) -> set[str]:
    """Where a process listens, as host:port."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(fd)):
            inodes.add(found[1])
    addresses = set()
    for table in "tcp", "tcp6":
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, port = fields[1].split(":")
                addresses.add(f"{host}:{int(port, 16)}")
    return addresses


def test_a_ready_node_serves_amqp_management_and_metrics(node: PrivateNode) -> None:
    connect(node).close()
    assert node.ctl("version", "--silent").strip() == node.installation.version_text
    with urllib.request.urlopen(node.http_url, timeout=10) as page:
        assert b"RabbitMQ Management" in page.read()
    with urllib.request.urlopen(node.prometheus_url, timeout=10) as metrics:
        assert node.name in metrics.read().decode()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_node_listens_on_loopback_only(node: PrivateNode) -> None:
    ports = node.ports
    expected = {ports.amqp, ports.management, ports.prometheus, ports.distribution}
    assert addresses_of(node.pid) == {f"0100007F:{port}" for port in expected}


def test_the_projects_settings_and_plugins_are_in_force(node: PrivateNode) -> None:
    assert node.ctl("eval", "application:get_env(rabbit, heartbeat).").strip() == "{ok,10}"
    assert node.ctl("eval", "application:get_env(rabbit, consumer_timeout).").strip() == "{ok,1800000}"
    enabled = node.ctl("list", "--enabled", "--minimal", "--silent", tool="rabbitmq-plugins").split()
    assert {"rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_consistent_hash_exchange"} <= set(enabled)


def test_a_start_leaves_no_error_in_the_log(node: PrivateNode) -> None:
    start, completed, _ = node.log.read_text().partition("completed with")
    assert completed
    assert "[error]" not in start
    assert "unexpectedly closed" not in start  # as a probe of its port would leave


def test_a_failing_rabbitmqctl_shows_what_it_said(node: PrivateNode) -> None:
    with pytest.raises(NodeFailed, match=r"(?s)rabbitmqctl no_such_command 7: exit 64.*no_such_command"):
        node.ctl("no_such_command", 7)


def test_starting_twice_is_refused(node: PrivateNode) -> None:
    with pytest.raises(NodeFailed, match="runs already"):
        node.start()


def test_a_paused_node_is_silent_until_it_resumes(node: PrivateNode) -> None:
    node.pause()
    try:
        with pytest.raises(NodeFailed, match="took more than"):
            node.ctl("status", timeout=2)
    finally:
        node.resume()
    assert node.ctl("list_users", "--silent").startswith("guest")


def test_data_survives_stop_kill_and_restart(rabbitmq: Installation) -> None:
    with PrivateNode(rabbitmq, env=ONE_CORE) as node:
        url, pid = node.url, node.pid
        connection = connect(node)
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("kept", durable=True)
        channel.basic_publish("", "kept", b"1", PERSISTENT)
        connection.close()
        node.restart()
        assert node.url == url
        assert node.pid != pid
        node.kill()
        assert not node.is_running
        with pytest.raises(NodeFailed, match="does not run"):
            _ = node.pid
        node.start()
        connection = connect(node)
        _, _, body = connection.channel().basic_get("kept", auto_ack=True)
        assert body == b"1"
        connection.close()
        node.pause()
        node.stop(timeout=60)
        assert not node.is_running
        assert not listens(node.ports.amqp)
    assert not node.folder.exists()


def test_nodes_side_by_side_share_an_epmd_and_obey_their_own_conf(node: PrivateNode, tmp_path: Path) -> None:
    with PrivateNode(
        node.installation,
        conf="heartbeat = 7",
        advanced="[{rabbit, [{channel_max, 12}]}].\n",
        env=ONE_CORE,
        folder=tmp_path / "my node",
        ports=Ports(amqp=node.ports.amqp),  # taken
    ) as other:
        assert other.ctl("eval", "erlang:system_info(schedulers).").strip() == "1"
        assert other.ports.amqp != node.ports.amqp
        assert other.ctl("eval", "{application:get_env(rabbit, heartbeat)}.").strip() == "{{ok,7}}"
        assert other.ctl("eval", "application:get_env(rabbit, channel_max).").strip() == "{ok,12}"
        assert other.ctl("eval", f"net_adm:ping('{node.name}').").strip() == "pong"
    assert other.log.exists()  # a folder that was given stays


def test_a_broken_conf_is_reported_with_the_nodes_own_words(rabbitmq: Installation) -> None:
    with (
        pytest.raises(NodeFailed, match=r"(?s)died at its start:.*no_such_setting"),
        PrivateNode(rabbitmq, conf="no_such_setting = 1", env=ONE_CORE),
    ):
        pytest.fail("it started")


def test_node_and_epmd_die_with_their_owner_even_by_kill_9(rabbitmq: Installation) -> None:
    root = rabbitmq.scripts.parents[3] if "usr/lib/rabbitmq" in str(rabbitmq.scripts) else rabbitmq.scripts
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        realm = str(folder.parent)
        assert len(processes_of(realm)) >= 2, "the node, and the reaper that knows the folder"
        epmd = _epmd_port(processes_of(realm))
        assert listens(epmd)
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: not processes_of(realm))
    eventually(lambda: not listens(epmd))
    eventually(lambda: not folder.parent.exists())


def _epmd_port(processes: list[str]) -> int:
    found = re.search(r"-epmd_port (\d+)", "\n".join(processes))
    assert found is not None
    return int(found[1])


def test_obtaining_one_and_stopping_leaves_nothing(
    rabbitmq: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokerjobs.node.installation.find", lambda: rabbitmq)
    monkeypatch.setattr("brokerjobs.node.compose.engine_answers", lambda: False)
    said: list[str] = []
    with obtain(environ={}, say=said.append) as broker:
        pika.BlockingConnection(pika.URLParameters(broker.url)).close()
        assert broker.management_url is not None
        assert broker.log is not None
        assert broker.log.exists()
        assert f"private node of the RabbitMQ {rabbitmq.version_text}" in broker.how
        assert any("starting" in line for line in said)
        folder = str(broker.log.parent)
    assert not processes_of(folder)

"""`brokerjobs topology`: what the consumers need in RabbitMQ, whether it is there, and who may use it."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from brokerjobs.node.private import PrivateNode
from tests import amqp
from tests.conftest import management, one_version
from tests.shell import Shell

pytestmark = pytest.mark.timeout(300)

EMAILS = "from brokerjobs import Consumer\nconsumer = Consumer('emails', bind=['*.created'])\n"
ORDERS = "from brokerjobs import Consumer\nconsumer = Consumer('orders')\n"


def prepare(shell: Shell) -> Shell:
    shell.write("consumers/emails.py", EMAILS)
    shell.write("consumers/orders.py", ORDERS)
    return shell


def show(shell: Shell, *arguments: str) -> list[dict[str, Any]]:
    done = shell.run("topology", "show", "--json", *arguments)
    assert (done.code, done.err) == (0, "")
    parts = done.json
    assert isinstance(parts, list)
    return parts


def queues(parts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {part["name"]: part["arguments"] for part in parts if part["kind"] == "queue"}


# -- show


def test_show_tells_what_each_version_gets(offline: Shell) -> None:
    prepare(offline)
    old, new = (queues(show(offline, "--rabbitmq", version)) for version in ("3.10", "4.3"))
    assert old.keys() == new.keys() >= {"emails", "emails.dead", "orders", "orders.dead", "jobs.unrouted"}
    assert old["emails"]["x-queue-type"] == "classic"
    assert old["emails"]["x-max-priority"] == 9
    assert new["emails"]["x-queue-type"] == "quorum"
    assert "x-max-priority" not in new["emails"], "RabbitMQ 4.3 refuses it"
    assert queues(show(offline)) == new, "the newest is the default"


def test_show_names_bindings_of_chosen_queues_only(offline: Shell) -> None:
    prepare(offline)
    parts = show(offline, "emails")
    assert {name for name in queues(parts) if not name.startswith("jobs.")} == {"emails", "emails.dead"}
    keys = {
        part["key"]
        for part in parts
        if part["kind"] == "binding" and (part["source"], part["destination"]) == ("jobs", "emails")
    }
    assert keys == {"emails.#", "*.created"}


def test_namespace_prefixes_everything(offline: Shell) -> None:
    prepare(offline)
    parts = show(offline, "--namespace", "blue")
    assert all(part["name"].startswith("blue.") for part in parts if part["kind"] != "binding")
    assert all(
        part[end].startswith("blue.")
        for part in parts
        if part["kind"] == "binding"
        for end in ("source", "destination")
    )


def test_columns_are_for_cut_and_awk(offline: Shell) -> None:
    prepare(offline)
    done = offline.run("topology", "show", "emails")
    assert done.code == 0
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert lines[0] == ["kind", "name", "details"]
    assert {len(line) for line in lines} == {3}
    assert ["binding", "emails", "from jobs by 'emails.#'"] in lines


@pytest.mark.parametrize(
    ("version", "said"),
    [("3.9", "too old"), ("latest", "such as 3.10 or 4.3, not 'latest'"), ("9", "not '9'")],
    ids=str,
)
def test_version_that_cannot_be_is_said(offline: Shell, version: str, said: str) -> None:
    prepare(offline)
    done = offline.run("topology", "show", "--rabbitmq", version)
    assert (done.code, done.out) == (78, "")
    assert done.err.count("\n") == 1
    assert said in done.complaint


# -- check and apply


def test_check_says_what_is_missing_until_apply_has_declared_it(
    online: Shell, node: PrivateNode, url: str
) -> None:
    prepare(online)
    before = online.run("topology", "check")
    assert before.code == 78
    assert "missing at 127.0.0.1" in before.out
    assert "emails.dead" in before.out
    assert "run `brokerjobs topology apply`" in before.out

    assert online.run("topology", "apply", "emails").code == 0
    half = online.run("topology", "check", "--json")
    assert half.code == 78
    assert (half.json["complete"], sorted(half.json["missing"])) == (False, ["orders", "orders.dead"])

    applied = online.run("topology", "apply")  # part of it is there by now
    assert (applied.code, applied.err) == (0, "")
    assert applied.out.startswith(f"the topology is in place at 127.0.0.1:{node.ports.amqp}")
    after = online.run("topology", "check")
    assert (after.code, after.err) == (0, "")
    assert after.out.startswith(f"all there at 127.0.0.1:{node.ports.amqp}")
    amqp.publish(url, "users.created", b"{}")  # bound as well, which `check` cannot see
    assert amqp.ready(url, "emails") == 1


@one_version
def test_apply_keeps_a_queue_that_is_there_and_its_messages(online: Shell, url: str) -> None:
    prepare(online)
    with amqp.channel(url) as channel:
        channel.queue_declare("emails", durable=True)  # with none of our arguments
        channel.basic_publish("", "emails", b"{}")
    applied = online.run("topology", "apply")
    assert applied.code == 0
    assert applied.err.startswith("kept: queue 'emails' exists with other arguments")
    assert amqp.ready(url, "emails") == 1
    as_json = online.run("topology", "apply", "--json").json
    assert as_json["applied"] is True
    assert len(as_json["kept"]) == 1


@one_version
def test_queue_of_another_type_than_asked_for_is_exit_code_78(online: Shell, url: str) -> None:
    prepare(online)
    with amqp.channel(url) as channel:
        channel.queue_declare("emails", durable=True)
    done = online.run("topology", "apply", "emails", BROKERJOBS_QUEUE_TYPE="quorum")
    assert (done.code, done.out) == (78, "")
    assert done.err.count("\n") == 1
    assert "queue 'emails' exists with other arguments" in done.complaint
    assert "Arguments of a queue cannot be changed" in done.complaint


def test_definitions_are_what_apply_would_declare(online: Shell, node: PrivateNode, vhost: str) -> None:
    prepare(online)
    version = ".".join(map(str, node.version[:2]))
    printed = online.run("topology", "definitions", "--rabbitmq", version)
    assert (printed.code, printed.err) == (0, "")

    management(node, "POST", "/api/definitions", printed.out.encode())

    def bindings() -> list[Any]:
        listed = json.loads(management(node, "GET", f"/api/bindings/{vhost}"))
        return sorted((one["source"], one["destination"], one["routing_key"]) for one in listed)

    imported = bindings()
    applied = online.run("topology", "apply", "--json", BROKERJOBS_QUEUE_TYPE="auto")
    assert applied.json == {"applied": True, "kept": []}, "a queue was imported with other arguments"
    assert bindings() == imported, "apply has found one missing"
    assert online.run("topology", "check").code == 0


@pytest.mark.parametrize("verb", ["apply", "check"])
def test_no_broker_is_exit_code_69(offline: Shell, verb: str) -> None:
    prepare(offline)
    done = offline.run("topology", verb, BROKERJOBS_URL="amqp://jane:geheim@127.0.0.1:1/")
    assert (done.code, done.out) == (69, "")
    assert done.err.count("\n") == 1
    assert "127.0.0.1:1" in done.err
    assert "geheim" not in done.err


def test_permissions_are_a_script_for_the_declared_queues(offline: Shell) -> None:
    offline.write("consumers/emails.py", 'from brokerjobs import Consumer\nconsumer = Consumer("emails")\n')
    offline.write(
        "consumers/audit.py",
        'from brokerjobs import Consumer\nconsumer = Consumer("audit", bind=["*.created"])\n',
    )
    given = {"BROKERJOBS_URL": "amqp://jane:geheim@rabbit/my%2Fvhost", "BROKERJOBS_NAMESPACE": "shop"}

    script = offline.run("topology", "permissions", **given)
    told = offline.run("topology", "permissions", "--json", **given).json
    narrow = offline.run("topology", "permissions", "emails", "--without-delays", "--json", **given).json

    assert (script.code, script.err) == (0, "")
    assert "geheim" not in script.out
    assert told["vhost"] == "my/vhost"
    for user in told["users"]:
        words = ["--vhost", "my/vhost", user["user"], user["configure"], user["write"], user["read"]]
        assert f"rabbitmqctl set_permissions {shlex.join(words)}\n" in script.out
    publisher = told["users"][-1]
    assert publisher["topics"] == {"shop.jobs": r"^(audit(\..*)?|[^.]*\.created|emails(\..*)?)$"}
    assert narrow["users"][-1]["write"] == r"^(shop\.jobs|shop\.emails)$"

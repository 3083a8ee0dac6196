from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerjobs import permissions, topology
from brokerjobs.capabilities import Capabilities
from brokerjobs.permissions import Role
from brokerjobs.topology import Binding, Names, reader_of

NAMES = [Names(), Names("shop")]
QUEUES = {"emails": (), "orders": ("*.created",)}
WORDS = st.lists(st.sampled_from(["a", "b", "emails", "*", "#"]), min_size=1, max_size=4).map(".".join)
KEYS = st.lists(st.sampled_from(["a", "b", "emails", ""]), min_size=1, max_size=5).map(".".join).filter(bool)


def of(names: Names, who: str, *, delays: bool = True) -> Role:
    (role,) = (
        role for role in permissions.roles(names, QUEUES, delays=delays) if role.user.endswith(f"-{who}")
    )
    return role


def may(pattern: str, *names: str) -> bool:
    return all(re.search(pattern, name) for name in names)


def may_any(pattern: str, *names: str) -> bool:
    return any(re.search(pattern, name) for name in names)


@given(WORDS, KEYS)
def test_pattern_of_keys_matches_what_a_topic_exchange_does(binding: str, key: str) -> None:
    assert bool(re.fullmatch(permissions.key_pattern(binding), key)) is topology.matches(binding, key)


@pytest.mark.parametrize("names", NAMES, ids=str)
def test_deploy_may_make_all_there_is_and_nothing_of_others(names: Names) -> None:
    deploy = of(names, "deploy")
    parts = topology.shared(names)
    for queue, bind in QUEUES.items():
        parts += topology.for_queue(names, queue, Capabilities((4, 3, 0)), bind=bind)
    made = [
        name
        for part in parts
        for name in ([part.source, part.destination] if isinstance(part, Binding) else [part.name])
    ]

    for pattern in deploy.configure, deploy.write, deploy.read:
        assert may(pattern, *made)
        assert not may_any(
            pattern, "", "amq.default", "reports", "emails.x", "xemails", "shopxjobs", "other.jobs"
        )


@pytest.mark.parametrize("names", NAMES, ids=str)
def test_publisher_may_send_and_neither_read_nor_make(names: Names) -> None:
    publisher = of(names, "publisher")

    assert may(publisher.write, names.jobs, names.level(0), names.level(27), names.queue("emails"))
    assert not may_any(
        publisher.write, names.due, names.dead_exchange, names.after(3), names.unrouted, names.dead("emails"), "",
        "amq.default",
    )  # fmt: skip
    assert (publisher.configure, publisher.read) == ("^$", "^$")
    keys = publisher.topics[names.jobs]
    assert may(keys, "emails.welcome", "orders.paid", "anything.created")
    assert not may_any(keys, "reports.daily", "emailsx.welcome", "a.b.created")


def test_publisher_without_delays_reaches_its_topics_only() -> None:
    assert not may_any(of(Names(), "publisher", delays=False).write, *map(Names().level, range(28)))


@pytest.mark.parametrize("names", NAMES, ids=str)
def test_worker_makes_nothing_but_the_readers_mark_and_reads_no_dead_letters(names: Names) -> None:
    worker = of(names, "worker")

    assert may(worker.configure, reader_of(names.unrouted))
    assert may(worker.configure, f"{names.control}.host.example-7-1a2b")
    assert not may_any(
        worker.configure,
        names.unrouted,
        names.jobs,
        names.control,
        names.queue("emails"),
        names.paused("emails"),
    )
    assert not may_any(worker.write, names.paused("emails"))
    assert may(worker.write, names.jobs, names.due, names.level(5), names.dead_exchange, names.dead("emails"))
    assert not may_any(worker.write, names.queue("emails"), names.unrouted, "amq.default")
    assert may(worker.read, names.queue("emails"), names.queue("orders"), names.unrouted)
    assert not may_any(worker.read, names.dead("emails"), names.queue("reports"), names.jobs)


@pytest.mark.parametrize("names", NAMES, ids=str)
def test_operator_reads_dead_letters_and_sends_them_back(names: Names) -> None:
    operator = of(names, "operator")

    assert may(operator.configure, reader_of(names.dead("emails")))
    assert may(operator.write, names.due, names.level(9))
    assert not may_any(operator.write, names.jobs, names.dead_exchange, "amq.default")
    assert may(operator.read, names.dead("emails"))
    assert not may_any(operator.read, names.queue("emails"), names.unrouted)
    assert may(operator.configure, names.paused("emails"))
    assert not may_any(operator.configure, names.control, names.cancelled, names.dead("emails"))


def test_commands_are_a_shell_script_without_a_password() -> None:
    lines = list(permissions.commands(permissions.roles(Names("shop"), QUEUES), "my vhost"))

    told = [shlex.split(line, comments=True) for line in lines if line.startswith("rabbitmqctl")]
    assert ["rabbitmqctl", "add_user", "shop-worker", "<", "shop-worker.password"] in told
    (worker,) = (words for words in told if words[1] == "set_permissions" and words[4] == "shop-worker")
    assert worker[2:4] == ["--vhost", "my vhost"]
    role = of(Names("shop"), "worker")
    assert worker[5:] == [role.configure, role.write, role.read]
    # With other than two arguments rabbitmqctl 4.3 does not read the password from its input.
    assert {len(words) for words in told if words[1] == "add_user"} == {3 + 2}

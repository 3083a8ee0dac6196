"""Who may do what in RabbitMQ: one user for each kind of program, with no more than it needs. Pure.

RabbitMQ checks each operation against three patterns of names: configure (make and delete), write (publish to an
exchange; bind a queue), read (consume and purge a queue; bind to an exchange). From 4.3 even the question whether
something exists needs one of the three. Where only that question is asked, write is what is given: alone it does
nothing to a queue, because to bind one also takes read on the exchange.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from brokerjobs.topology import Names, reader_of

NOTHING = "^$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What one kind of program may do.

    Args:
        user: a name for its user.
        purpose: what it does.
        configure: pattern of names.
        write: likewise.
        read: likewise.
        topics: for a topic exchange the routing keys that may be published to it; others may get any.
        tags: of the management API.
    """

    user: str
    purpose: str
    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING
    topics: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


def roles(names: Names, bindings: Mapping[str, Sequence[str]], *, delays: bool = True) -> tuple[Role, ...]:
    """The users that some queues need, in the order in which they can be made.

    Args:
        names: of the namespace.
        bindings: each queue, as users say it, with the patterns of routing keys that it is bound to besides its own.
        delays: whether publishers may send with a delay. The delay levels look at no routing key, so whoever may
            write to them reaches every queue of the namespace.
    """
    user = (names.namespace or "jobs") + "-{}"
    jobs, unrouted = _plain(names.jobs), _plain(names.unrouted)
    work = [_plain(names.queue(queue)) for queue in bindings]
    dead = [_plain(names.dead(queue)) for queue in bindings]
    levels = _plain(names.level(0)).removesuffix("00") + r"\d\d"
    control, cancelled = _plain(names.control), _plain(names.cancelled)
    own = rf"{control}\..+"  # the exclusive queue in which a program hears the others
    paused = [_plain(names.paused(queue)) for queue in bindings]
    everything = _any(jobs, rf"{jobs}\..+", *work, *dead, *paused)
    return (
        Role(
            user=user.format("deploy"),
            purpose="brokerjobs topology apply, or workers with topology = declare",
            configure=everything,
            write=everything,
            read=everything,
        ),
        Role(
            user=user.format("worker"),
            purpose="brokerjobs consume, with topology = check",
            configure=_any(_plain(reader_of(names.unrouted)), own),
            write=_any(jobs, rf"{jobs}\.(dead|v1\..+)", *dead, control, own),
            read=_any(*work, unrouted, control, own, cancelled, *paused),
        ),
        Role(
            user=user.format("operator"),
            purpose="brokerjobs dead, queues, top, workers, cancel, pause, resume",
            configure=_any(*(_plain(reader_of(names.dead(queue))) for queue in bindings), own, *paused),
            write=_any(_plain(names.due), levels, unrouted, *work, control, own, *paused),
            read=_any(*dead, control, own, *paused),
            tags=("management",),
        ),
        Role(
            user=user.format("publisher"),
            purpose="sends jobs" if delays else "sends jobs without a delay",
            write=_any(jobs, *([levels] if delays else []), *work),
            topics={names.jobs: _any(*_keys(bindings))},
        ),
    )


def commands(given: Sequence[Role], vhost: str) -> Iterator[str]:
    """The lines of a shell script that makes the users; passwords come from files, and are seen in no argument."""
    users = " ".join(role.user for role in given)
    yield f"for user in {users}; do"
    yield "  [ -e $user.password ] || (umask 077; openssl rand -hex 24 > $user.password)"
    yield "done"
    for role in given:
        yield ""
        yield f"# {role.user}: {role.purpose}"
        yield f"rabbitmqctl add_user {role.user} < {role.user}.password"
        yield _line("set_permissions", vhost, role.user, role.configure, role.write, role.read)
        for exchange, keys in role.topics.items():
            yield f"# from RabbitMQ 4.3 the exchange must be there: first let {given[0].user} apply the topology"
            yield _line("set_topic_permissions", vhost, role.user, exchange, keys, NOTHING)
        if role.tags:
            yield f"rabbitmqctl set_user_tags {role.user} {' '.join(role.tags)}"


def _line(command: str, vhost: str, *arguments: str) -> str:
    return shlex.join(["rabbitmqctl", command, "--vhost", vhost, *arguments])


def _keys(bindings: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Patterns of the routing keys that lead to these queues."""
    for queue, patterns in bindings.items():
        for pattern in dict.fromkeys([f"{queue}.#", *patterns]):
            yield key_pattern(pattern)


def key_pattern(binding: str) -> str:
    """The regular expression for what a topic exchange's binding pattern matches."""
    words = binding.split(".")
    first = next((place for place, word in enumerate(words) if word != "#"), len(words))
    if first == len(words):
        return ".*"
    fragments = {"#": r"(\..*)?", "*": r"\.[^.]*"}
    found = "".join(fragments.get(word, rf"\.{_plain(word)}") for word in words[first:])
    return (r"(.*\.)?" if first else "") + found.removeprefix(r"\.")


def _any(*patterns: str) -> str:
    """One of these and nothing else; nothing at all for none."""
    if not patterns:
        return NOTHING
    return f"^{patterns[0]}$" if len(patterns) == 1 else f"^({'|'.join(patterns)})$"


def _plain(name: str) -> str:
    """A pattern for this name alone."""
    return re.sub(r"[^\w-]", lambda found: re.escape(found[0]), name)

from __future__ import annotations

from typing import Any

import pytest

from brokerjobs.capabilities import SINCE, Capabilities
from brokerjobs.errors import ConfigurationError


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.10.8", (3, 10, 8)),
        (b"4.0.5", (4, 0, 5)),
        ("4.3.0-rc.1", (4, 3, 0)),
        ("4.3", (4, 3, 0)),
        ("3.13.7+2.gabc", (3, 13, 7)),
    ],
)
def test_capabilities_come_from_the_handshake(version: str | bytes, expected: tuple[int, int, int]) -> None:
    capabilities = Capabilities.of({"product": b"RabbitMQ", "version": version, "platform": "Erlang"})

    assert capabilities.version == expected
    assert str(capabilities) == ".".join(map(str, expected))


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({"product": "RabbitMQ", "version": "3.9.29"}, "3.9.29 is too old: brokerjobs needs 3.10"),
        ({"product": "RabbitMQ", "version": "2.8.7"}, "too old"),
        ({"product": "qpid-cpp", "version": "1.39.0"}, "the broker is qpid-cpp 1.39.0, not RabbitMQ"),
        ({"product": "RabbitMQ", "version": "next"}, "not RabbitMQ"),
        ({"product": "RabbitMQ"}, "not RabbitMQ"),
        ({"product": b"\xff\xfe", "version": None}, "not RabbitMQ"),
        ({}, "the broker is unknown"),
    ],
)
def test_what_cannot_serve_is_refused_with_its_version(properties: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Capabilities.of(properties)


@pytest.mark.parametrize(
    ("version", "able"), [((4, 2, 9), False), ((4, 3, 0), True), ((4, 10, 0), True), ((5, 0, 0), True)]
)
def test_ability_begins_with_its_version(version: tuple[int, int, int], able: bool) -> None:
    assert Capabilities(version).has("quorum_priorities") is able


def test_unknown_ability_is_a_defect_not_a_no() -> None:
    assert "telepathy" not in SINCE
    with pytest.raises(KeyError):
        Capabilities((4, 3, 0)).has("telepathy")

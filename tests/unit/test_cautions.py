from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import structlog.testing

from brokerjobs import cautions, settings

PLAIN, KNOWN = "connection not encrypted", "default password"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://guest:guest@localhost/", []),
        ("amqp://guest:guest@127.0.0.53/", []),
        ("amqp://guest:guest@[::1]:5673/", []),
        ("amqp://guest:guest@rabbit.localhost/", []),
        ("amqp://jane:geheim@rabbit/", [PLAIN]),
        ("amqp://jane:geheim@192.168.0.7/", [PLAIN]),
        ("amqp://jane:geheim@localhost.example/", [PLAIN]),
        ("amqps://jane:geheim@rabbit/", []),
        ("amqps://guest:geheim@rabbit/", [KNOWN]),
        ("amqps://admin:admin@rabbit/", [KNOWN]),
        ("amqp://rabbit/", [PLAIN, KNOWN]),
    ],
)
def test_what_lets_strangers_in_is_said_at_the_start(url: str, said: list[str]) -> None:
    with structlog.testing.capture_logs() as lines:
        cautions.warn(settings.load(url=url))

    assert [line["event"] for line in lines] == said
    assert "geheim" not in str(lines)


def test_clients_do_not_log_frames_unless_a_program_asks_for_it() -> None:
    program = """
import logging
logging.getLogger("pika").setLevel(logging.DEBUG)
logging.basicConfig(level=logging.DEBUG)
import brokerjobs
brokerjobs.Client("amqp://localhost/")
print([logging.getLogger(name).getEffectiveLevel() for name in ("aiormq", "aio_pika", "pika")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == f"{[logging.WARNING, logging.WARNING, logging.DEBUG]}\n"

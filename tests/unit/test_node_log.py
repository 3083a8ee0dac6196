from pathlib import Path

import pytest

from brokerjobs.node.log import NodeLog

STARTING = """\
2026-11-22 01:41:49.922048+00:00 [info] <0.223.0>  Starting RabbitMQ 3.10.8 on Erlang 25.2.3 [jit]

  Starting broker...2026-11-22 01:41:49.923523+00:00 [info] <0.223.0> node: n@localhost
"""
READY = STARTING + " completed with 5 plugins.\n"
DYING = """\
2026-11-22 02:08:02.661785+00:00 [error] <0.132.0>
2026-11-22 02:08:02.661785+00:00 [error] <0.132.0> You've tried to set x, but there is no setting with that name.
2026-11-22 02:08:02.661785+00:00 [notice] <0.44.0> Application rabbit exited
Kernel pid terminated
"""


@pytest.fixture
def log(tmp_path: Path) -> NodeLog:
    log = NodeLog(tmp_path / "node.log")
    log.mark_start()
    log.path.touch()
    return log


def test_a_node_is_ready_when_it_says_so(log: NodeLog) -> None:
    log.path.write_text(STARTING)
    assert not log.says_ready()
    log.path.write_text(READY)
    assert log.says_ready()


def test_what_an_earlier_start_said_does_not_count(log: NodeLog) -> None:
    log.path.write_text(READY + DYING)
    log.mark_start()
    assert not log.says_ready()
    assert log.last_words() == ""
    with log.path.open("a") as file:
        file.write(READY)
    assert log.says_ready()


def test_the_first_error_names_the_cause(log: NodeLog) -> None:
    log.path.write_text(STARTING + DYING)
    assert log.last_words() == "You've tried to set x, but there is no setting with that name."


def test_without_an_error_the_end_of_the_log_is_shown(log: NodeLog) -> None:
    log.path.write_text("".join(f"line {n}\n" for n in range(100)))
    assert log.last_words().splitlines()[-1] == "line 99"
    assert len(log.last_words().splitlines()) == 12


def test_a_log_that_is_no_text_is_read_all_the_same(log: NodeLog) -> None:
    log.path.write_bytes(b"\xff\xfe [error] <0.1.0> \xff bad\n")
    assert log.last_words() == "\ufffd bad"

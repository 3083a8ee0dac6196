"""A reader does what each page says, with a real RabbitMQ, and sees what it says."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from brokerjobs.node.ports import reserve
from brokerjobs.node.private import PrivateNode
from tests import foreign
from tests.pages import PAGES, ROOT, Reader, named


@pytest.fixture
def reader(node: PrivateNode, url: str, environment: Mapping[str, str], tmp_path: Path) -> Iterator[Reader]:
    """Somebody in an empty folder, with brokerjobs and other AMQP clients installed."""
    commands, folder = tmp_path / "bin", tmp_path / "folder"
    for made in commands, folder:
        made.mkdir()
    tool = foreign.amqp_publish()
    variables = [f"{name}={value}" for name, value in tool.env.items()]
    (commands / "amqp-publish").write_text(
        f'#!/bin/sh\nexec env {shlex.join([*variables, *tool.command])} "$@"\n'
    )
    (commands / "amqp-publish").chmod(0o755)
    with reserve() as metrics_port:
        yield Reader(
            folder,
            {
                **environment,
                **foreign.amqplib().env,
                "PATH": f"{commands}:{Path(sys.executable).parent}:{environment['PATH']}",
                "HOME": str(tmp_path),
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "BROKERJOBS_MANAGEMENT_URL": node.http_url,
                "BROKERJOBS_METRICS_PORT": str(metrics_port.number),
            },
            {  # what pages say of the reader's own RabbitMQ
                "amqp://guest:guest@127.0.0.1:5672/%2F": url,
                "http://127.0.0.1:15672/api/exchanges/%2F/": f"{node.http_url}/api/exchanges/{url.rpartition('/')[2]}/",
                "broker=127.0.0.1:5672": "broker=…",
                "9464": str(metrics_port.number),
            },
        )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", named(PAGES, "run", "worker", "log"))
def test_page_keeps_its_word(page: str, reader: Reader) -> None:
    reader.follow(ROOT / page)

"""A shell without a broker, and one with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokerjobs.settings import OTHER_URL_VARIABLES
from tests.shell import Shell


def _bare(env: dict[str, str], folder: Path) -> dict[str, str]:
    """Without the developer's own settings, and without a private node that may run here."""
    kept = {
        name: value
        for name, value in env.items()
        if not name.startswith(("BROKERJOBS_", "_BROKERJOBS_")) and name not in OTHER_URL_VARIABLES
    }
    ours = {
        "XDG_STATE_HOME": str(folder / "state"),
        "COLUMNS": "110",
        "BROKERJOBS_METRICS_PORT": "none",  # there are many workers on this machine
    }
    return {**kept, **ours}


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Shell]:
    """A shell that knows no broker."""
    shell = Shell(tmp_path, _bare(dict(os.environ), tmp_path))
    yield shell
    shell.close()


@pytest.fixture
def online(tmp_path: Path, environment: dict[str, str]) -> Iterator[Shell]:
    """A shell whose broker is the node, in a fresh virtual host."""
    ours = {name: value for name, value in environment.items() if name.startswith("BROKERJOBS_")}
    shell = Shell(tmp_path, {**_bare(environment, tmp_path), **ours})
    yield shell
    shell.close()

"""What a process is called, on a host and in a container upon the network of its host."""

from __future__ import annotations

import os
import socket

import pytest

from brokerjobs import process_name as module
from brokerjobs.process_name import HOST, process_name


@pytest.mark.parametrize(("namespace", "mark"), [(HOST, ""), (0xF00002D7, "-2d7"), (0xF00002D8, "-2d8")])
def test_workers_with_the_same_number_in_two_containers_have_two_names(
    namespace: int, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_namespace", lambda: namespace)
    assert process_name() == f"{socket.gethostname()}:{os.getpid()}{mark}"


def test_name_is_had_where_no_namespaces_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMESPACE", "/no/such/file")
    assert process_name() == f"{socket.gethostname()}:{os.getpid()}"

"""What a worker, or the parent of several, does for those who watch it: answers on its port, and tells systemd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from brokerjobs.logs import log
from brokerjobs.serving import Server, Source
from brokerjobs.settings import Settings
from brokerjobs.supervisor.child import GRACE
from brokerjobs.systemd import Systemd
from brokerjobs.vitals import Vitals


@contextmanager
def answering(chosen: Settings, vitals: Vitals, metrics: Source) -> Iterator[None]:
    """Do so within the block, on the running loop.

    Raises:
        ConfigurationError: the port is taken or not ours to use.
    """
    with ExitStack() as stack:
        if chosen.metrics_port is not None:
            server = Server(chosen.metrics_host, chosen.metrics_port, metrics, vitals)
            stack.enter_context(closing(server))
            log.info("serving metrics", address=f"{server.address}/metrics")
        systemd = stack.enter_context(closing(Systemd(vitals, chosen.drain_timeout + GRACE)))
        vitals.begin(systemd.tell, systemd.every)
        stack.callback(vitals.end)
        yield

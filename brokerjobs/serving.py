"""The one port of a process: `/metrics` for Prometheus, probes, and a status for people.

Threads answer, so there is an answer while a job blocks the event loop, too. Nobody who is slow, or says nothing, holds
up another: each question has a deadline, and of too many at once the oldest is cut off.
"""

from __future__ import annotations

import errno
import io
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, Metric, make_wsgi_app
from prometheus_client.registry import Collector

from brokerjobs.errors import ConfigurationError
from brokerjobs.health import LAST_PORT
from brokerjobs.logs import log
from brokerjobs.vitals import Vitals

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MOST = 64  # questions at once
DEADLINE = 10.0  # seconds for a question and its answer
LOOK = 0.1  # seconds between looks whether it shall end

Answer = tuple[str, str]  # status and text
Source = Collector  # of metrics
Headers = list[tuple[str, str]]
PLAIN = ("Content-Type", "text/plain; charset=utf-8")
JSON = ("Content-Type", "application/json")


class Server:
    """Serves from now until `close`.

    Args:
        host: the address to listen at.
        port: 0 is a free one.
        metrics: what `/metrics` shows.
        vitals: what all else shows.

    Raises:
        ConfigurationError: the port is taken or not ours to use.
    """

    def __init__(self, host: str, port: int, metrics: Source, vitals: Vitals) -> None:
        try:
            self._server = _Server(host, port)
        except OSError as error:
            raise ConfigurationError(_refusal(host, port, error)) from None
        self._server.set_app(_Site(metrics, vitals))
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self._server.server_port}"
        threading.Thread(target=self._serve, name="brokerjobs-http", daemon=True).start()

    def _serve(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the main thread
        self._server.serve_forever(LOOK)

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Shown(CollectorRegistry):
    """Metrics without when each was made: in Prometheus' format these would be gauges more, which nobody asks for.

    Args:
        inner: all of them.
        names: of those that were asked for, None for all; what there is may change, so nobody knows them before.
    """

    def __init__(self, inner: Source, names: Container[str] | None = None) -> None:
        super().__init__()
        self._inner = inner
        self._names = names

    def collect(self) -> Iterator[Metric]:
        for family in self._inner.collect():
            family.samples = [sample for sample in family.samples if self._shows(sample.name)]
            if family.samples or self._names is None:
                yield family

    def restricted_registry(self, names: Iterable[str]) -> _Shown:  # type: ignore[override]
        return _Shown(self._inner, frozenset(names))

    def _shows(self, name: str) -> bool:
        return not name.endswith("_created") and (self._names is None or name in self._names)


class _Site:
    """The answers."""

    def __init__(self, metrics: Source, vitals: Vitals) -> None:
        self._metrics = make_wsgi_app(_Shown(metrics))
        self._vitals = vitals
        self._routes: dict[str, Callable[[], Answer]] = {
            "/livez": lambda: _verdict("live", vitals.not_live, []),
            "/readyz": lambda: _verdict("ready", vitals.not_ready, vitals.health().remarks),
            "/status": lambda: ("200 OK", json.dumps(vitals.status, indent=2)),
        }

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        try:
            status, headers, body = self._answer(environ)
        except Exception as error:
            log.error("question not answered", path=environ["PATH_INFO"], exc_info=error)
            status, headers, body = "500 Internal Server Error", [], b""
        start(status, [*headers, ("Content-Length", str(len(body))), ("Cache-Control", "no-store")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: WSGIEnvironment) -> tuple[str, Headers, bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", [("Allow", "GET, HEAD"), PLAIN], b"only GET and HEAD\n"
        if path == "/metrics":
            return self._page_of_metrics(environ)
        if path not in self._routes:
            return "404 Not Found", [PLAIN], "\n".join(["there are:", "/metrics", *self._routes, ""]).encode()
        status, text = self._routes[path]()
        return status, [JSON if path == "/status" else PLAIN], (text + "\n").encode(errors="replace")

    def _page_of_metrics(self, environ: WSGIEnvironment) -> tuple[str, Headers, bytes]:
        started: list[tuple[str, Headers]] = []
        body = self._metrics(
            {**environ, "REQUEST_METHOD": "GET"}, lambda status, headers: started.append((status, headers))
        )
        return *started[0], b"".join(body)


def _verdict(good: str, reasons: list[str], remarks: list[str]) -> Answer:
    """The reasons one a line, or that all is good."""
    lines = [" ".join(line.split()) for line in reasons or [good, *remarks]]
    return "503 Service Unavailable" if reasons else "200 OK", "\n".join(lines)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST

    def __init__(self, host: str, port: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}  # the oldest first
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """As it is done above, but without asking anybody for our name, which may take long."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = time.monotonic()
        self._cut_off()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        self._cut_off()

    def _cut_off(self) -> None:
        """End what takes too long: whoever reads or writes there goes on at once, with an error."""
        with self._lock:
            for position, (request, began) in enumerate(list(self._open.items())):
                if len(self._open) - position > MOST or time.monotonic() - began > DEADLINE:
                    with suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(error := sys.exception(), OSError):  # who hung up, or was cut off
            log.error("question not answered", exc_info=error)


class _Handler(WSGIRequestHandler):
    timeout = DEADLINE

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come each few seconds: no line for each."""

    def get_stderr(self) -> Any:
        return io.StringIO()  # where the standard library would put the traceback of whoever hung up


def _refusal(host: str, port: int, error: OSError) -> str:
    why = f"metrics and health cannot be served on {host}:{port}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{why}, perhaps by another worker on this machine; give this one a port of its own with "
            f"--metrics-port {port + 1 if port < LAST_PORT else port - 1}, a free one with --metrics-port 0, "
            "or none with --metrics-port none"
        )
    return f"{why}; choose another --metrics-port or BROKERJOBS_METRICS_HOST, or --metrics-port none"

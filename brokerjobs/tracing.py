"""Whether to trace: where the application has set up OpenTelemetry. Elsewhere nothing of it is even loaded."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from sys import modules
from typing import TYPE_CHECKING

from brokerjobs import logs
from brokerjobs.settings import Settings

if TYPE_CHECKING:
    from brokerjobs.spans import Spans

API = "opentelemetry.trace"  # who sets a tracer provider has loaded it
AUTOMATIC = "opentelemetry.instrumentation.auto_instrumentation"  # what `opentelemetry-instrument` runs
INSTRUMENT = "BROKERJOBS_INSTRUMENT"  # says to a process of ours that who started it was instrumented so


class Tracing:
    """Gives one client or worker what makes its spans.

    Args:
        settings: may turn it off.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spans: Spans | None = None
        self._is_off = settings.tracing == "off" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        if not self._is_off and os.environ.get("OTEL_PYTHON_TRACER_PROVIDER"):  # which the API itself loads
            with suppress(Exception):  # which it has logged, where there is one
                importlib.import_module(API).get_tracer_provider()

    @property
    def spans(self) -> Spans | None:
        """None as long as nobody has set a tracer provider: asked each time, since that may be done late."""
        if self._spans is None:
            api = modules.get(API)
            # Its own function looks into the environment each time. Should it keep the provider elsewhere one day, it
            # is asked after all.
            if api is not None and getattr(api, "_TRACER_PROVIDER", api) is not None and not self._is_off:
                try:
                    self._spans = _look(self._settings)
                except Exception as error:  # of a provider, or of an API that is too old: jobs run untraced
                    self._is_off = True
                    logs.log.error("tracing failed", exc_info=error)
        return self._spans


def _look(settings: Settings) -> Spans | None:
    from opentelemetry import trace

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    from brokerjobs import spans

    logs.tell(spans.ids)
    return spans.Spans(trace.get_tracer("brokerjobs", modules["brokerjobs"].__version__), settings)


# -- other processes of ours


def carried() -> dict[str, str]:
    """The context that is current here, for another process; empty where nobody traces."""
    if API not in modules:
        return {}
    from brokerjobs import spans

    return spans.carried()


@contextmanager
def continued(carrier: Mapping[str, str]) -> Iterator[None]:
    """Within the block the context is what another process has `carried` here."""
    if not carrier or API not in modules:
        yield
        return
    from brokerjobs import spans

    logs.tell(spans.ids)
    with spans.continued(carrier):
        yield


def instrument() -> None:
    """Let `opentelemetry-instrument` hold for all processes of ours: in each, after it was forked."""
    if AUTOMATIC in modules:
        os.environ[INSTRUMENT] = "yes"
    elif INSTRUMENT in os.environ:
        with suppress(ImportError):
            importlib.import_module(AUTOMATIC).initialize()


def uninstrumented(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that will fork workers: there it would start threads, which no fork has."""
    places = getattr(modules.get(AUTOMATIC), "__path__", [])
    path = [place for place in environ.get("PYTHONPATH", "").split(os.pathsep) if place not in places]
    return {**environ, "PYTHONPATH": os.pathsep.join(path)} if places else dict(environ)

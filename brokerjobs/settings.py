"""Settings: read once, at the edge, and handed down.

What wins: arguments, then `BROKERJOBS_…` in the environment, then `[tool.brokerjobs]` in the `pyproject.toml`
of the working folder, then the defaults. Other tools' variables for the URL are honoured too, and a private
node started by `brokerjobs broker start` is found by itself.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from brokerjobs.durations import seconds
from brokerjobs.errors import ConfigurationError
from brokerjobs.health import DEFAULT_HOST, DEFAULT_PORT, port_of
from brokerjobs.node.state import running_url

PREFIX = "BROKERJOBS_"
DEFAULT_URL = "amqp://guest:guest@localhost:5672/"
_UNREADABLE_URL = (
    "cannot be read as a URL; in its user and password write / as %2F, ? as %3F, # as %23, @ as %40"
)
# What other programs read from a URL's query, and what to do here. There is no way to turn verification off.
_VERIFIED = "certificates are always verified, with TLS 1.2 or later"
_TLS_IN_URL = {
    **dict.fromkeys(("cacertfile", "cafile", "capath", "cadata", "ca_certs"), "set tls_ca"),
    "certfile": "set tls_certificate",
    "keyfile": "set tls_key",
    **dict.fromkeys(("auth", "auth_mechanism"), "authentication is by name and password"),
    **dict.fromkeys(
        ("no_verify_ssl", "verify", "verify_ssl", "cert_reqs", "ssl", "ssl_options", "ssl_version",
         "server_name_indication", "check_hostname"),
        _VERIFIED,
    ),
}  # fmt: skip
OTHER_URL_VARIABLES = ("RABBITMQ_URL", "AMQP_URL", "CLOUDAMQP_URL")


def _seconds(value: Any) -> float:
    try:
        return seconds(value)
    except ConfigurationError as error:
        raise ValueError(str(error).removeprefix("duration ")) from None


Seconds = Annotated[float, BeforeValidator(_seconds)]


def _port(value: Any) -> int | None:
    return None if value is None else port_of(value)


def _words(value: Any) -> Any:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


class Settings(BaseModel):
    """All settings. Durations are seconds, or texts such as "10m"."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)

    url: SecretStr = Field(
        default=SecretStr(DEFAULT_URL),
        description="where RabbitMQ is: amqp://user:password@host:port/vhost",
    )
    management_url: SecretStr | None = Field(
        default=None,
        description="RabbitMQ's management API; when unset the same host and user, and the port of url plus 10000",
    )
    tls_ca: str | None = Field(
        default=None,
        description="authorities that may sign RabbitMQ's certificate: a PEM file or a folder; the system's when unset",
    )
    tls_certificate: str | None = Field(
        default=None, description="PEM file with the client certificate, for a RabbitMQ that asks for one"
    )
    tls_key: str | None = Field(
        default=None, description="PEM file with its key; that of the certificate when unset"
    )
    tls_key_password: SecretStr | None = Field(default=None, description="password of an encrypted key")
    send_user_id: bool = Field(
        default=False,
        description="put the user's name into each message, for RabbitMQ to verify and consumers to require",
    )
    trusted_copiers: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(
        default=(),
        description="users besides one's own, such as workers and operators, whose copies may name the first sender",
    )
    namespace: str = Field(
        default="", description="prefix of all exchanges and queues, for several deployments in one vhost"
    )
    consumers: str = Field(
        default="consumers", description="Python package that holds the consumers, one module a queue"
    )
    queue_type: Literal["auto", "classic", "quorum"] = Field(
        default="auto", description="auto is quorum from RabbitMQ 4.3, classic before"
    )
    topology: Literal["declare", "check", "none"] = Field(
        default="declare",
        description="what a worker does about queues at its start: declare, only check, or nothing",
    )
    processes: int = Field(
        default=1, ge=1, le=1_000, description="worker processes; more than 1 run under a parent"
    )
    recycle_jobs: int | None = Field(
        default=None, ge=1, description="replace a worker process after so many attempts"
    )
    recycle_memory: ByteSize | None = Field(
        default=None, ge=1, description="replace a worker process that occupies so much memory, say 512MiB"
    )
    recycle_threads: int | None = Field(
        default=None, ge=1, description="replace a worker process that has left so many threads behind"
    )
    fast_lane: bool = Field(
        default=True,
        description="let deliveries and sends pass by the client libraries, which take more CPU",
    )
    ack_together: bool = Field(
        default=True, description="acknowledge an unbroken row of deliveries with one frame, in the fast lane"
    )
    concurrency: int = Field(
        default=10, ge=1, le=10_000, description="jobs that run at once per queue and process"
    )
    prefetch: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="unacknowledged deliveries per queue; as many as run at once when unset",
    )
    drain_timeout: Seconds = Field(
        default=25.0, description="how long a stopping worker lets running jobs finish"
    )
    connect_timeout: Seconds = Field(default=10.0, gt=0, description="deadline for one attempt to connect")
    publish_timeout: Seconds = Field(
        default=10.0, gt=0, description="deadline for one publish, its confirm included"
    )
    heartbeat: int = Field(
        default=10, ge=2, le=600, description="seconds; a frozen peer is noticed after about three"
    )
    consumer_timeout: Seconds | None = Field(
        default=None,
        ge=0,
        description="how long RabbitMQ waits for an acknowledgement, where you changed that there; 0 is for ever; "
        "30 minutes when unset",
    )
    max_message_size: int = Field(
        default=1024 * 1024,
        ge=1,
        description="bytes of body, refused above when sending and when receiving",
    )
    unknown_job_delay: Seconds = Field(
        default=30.0, description="wait before a job that no worker knows is looked at again"
    )
    unknown_job_tries: int = Field(default=3, ge=0, description="how often it waits so before it is dead")
    max_crashes: int = Field(
        default=3, ge=1, description="deaths of its process after which a job is dead, reason `crashed`"
    )
    sweep_interval: Seconds = Field(
        default=60.0, gt=0, description="how often a worker looks for unrouted jobs that it could take"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe log lines to print"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto is console on a terminal, JSON otherwise"
    )
    log_arguments: bool = Field(
        default=False,
        description="let a worker's line of each attempt show the job's arguments, secrets included",
    )
    metrics_port: Annotated[int | None, BeforeValidator(_port)] = Field(
        default=DEFAULT_PORT,
        description="serve metrics and health on this port; 0 is a free one, none serves nothing",
    )
    metrics_host: str = Field(default=DEFAULT_HOST, description="address at which they are served")

    tracing: Literal["auto", "off"] = Field(
        default="auto",
        description="auto makes spans where the application, or OTEL_… in the environment, has set up OpenTelemetry",
    )
    trace_context: Literal["link", "parent"] = Field(
        default="link",
        description="how an attempt relates to its send: a trace of its own that links to it, or its child",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr) -> SecretStr:
        parts = _split(url)
        if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
            raise ValueError("must look like amqp://user:password@host:5672/vhost")
        for name, _ in parse_qsl(parts.query, keep_blank_values=True):
            if instead := _TLS_IN_URL.get(name.lower()):
                raise ValueError(f"takes no {name}=…: {instead}")
        return url

    @field_validator("management_url")
    @classmethod
    def _check_management_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        parts = _split(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must look like http://user:password@host:15672")
        return url

    @model_validator(mode="after")
    def _check_tls(self) -> Settings:
        """What is set for TLS must not be of no effect: somebody believes that the connection is encrypted."""
        given = [name for name in ("tls_ca", "tls_certificate", "tls_key") if getattr(self, name) is not None]
        management = self.management_url.get_secret_value() if self.management_url else ""
        if given and not (self.uses_tls or management.startswith("https:")):
            raise ValueError(f"{given[0]} is set, but the URL is not encrypted: write amqps:// in it")
        if "tls_key" in given and "tls_certificate" not in given:
            raise ValueError("tls_key is set without tls_certificate")
        return self

    @property
    def uses_tls(self) -> bool:
        return urlsplit(self.amqp_url).scheme == "amqps"

    @property
    def host(self) -> str:
        return urlsplit(self.amqp_url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.amqp_url).port or (5671 if self.uses_tls else 5672)

    @property
    def user(self) -> str:
        """The name by which RabbitMQ knows us."""
        return unquote(urlsplit(self.amqp_url).username or "guest")

    @property
    def amqp_url(self) -> str:
        """The URL with its password: for the clients only, never for people."""
        return self.url.get_secret_value()

    @property
    def address(self) -> str:
        """Host, port and virtual host, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + (f" (vhost {self.vhost})" if self.vhost != "/" else "")

    @property
    def vhost(self) -> str:
        return unquote(urlsplit(self.amqp_url).path[1:]) or "/"


SECRETS = tuple(
    name
    for name, field in Settings.model_fields.items()
    if SecretStr in (field.annotation, *get_args(field.annotation))
)
"""Settings that may also come from a file: `BROKERJOBS_URL_FILE` names one that holds the URL."""


def _split(url: SecretStr) -> SplitResult:
    try:
        parts = urlsplit(url.get_secret_value())
        _ = parts.port
    except ValueError:  # whose text may quote the password
        raise ValueError(_UNREADABLE_URL) from None
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(_UNREADABLE_URL)
    return parts


Sources = dict[str, str]


def load(**given: Any) -> Settings:
    """The settings, from all sources.

    Args:
        given: values that win over all; None means not given.

    Raises:
        ConfigurationError: naming each value that cannot be used, and where it came from.
    """
    return load_with_sources(given)[0]


def load_with_sources(
    given: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> tuple[Settings, Sources]:
    """The settings, and for each field where its value came from."""
    values: dict[str, Any] = {}
    sources: Sources = dict.fromkeys(Settings.model_fields, "default")
    for source, found in (
        *_url_elsewhere(environ),
        *_pyproject((folder or Path.cwd()) / "pyproject.toml"),
        *_environment(environ),
        *(
            (f"--{name.replace('_', '-')}", {name: value})
            for name, value in given.items()
            if value is not None
        ),
    ):
        values |= found
        sources |= dict.fromkeys(found, source)
    try:
        return Settings(**values), sources
    except ValidationError as error:
        raise ConfigurationError(_explain(error, sources)) from None


def _url_elsewhere(environ: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """The weaker sources of the URL, weakest first."""
    found: list[tuple[str, dict[str, Any]]] = []
    if not any(environ.get(name) for name in (PREFIX + "URL", PREFIX + "URL_FILE", *OTHER_URL_VARIABLES)):
        running = running_url()
        if running:
            found.append(("brokerjobs broker start", {"url": running}))
    found += [(name, {"url": environ[name]}) for name in reversed(OTHER_URL_VARIABLES) if environ.get(name)]
    return found


def _pyproject(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        tools = tomllib.loads(path.read_text()).get("tool", {})
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path.name}: {error}") from None
    table = tools.get("brokerjobs", {}) if isinstance(tools, dict) else None
    if not isinstance(table, dict):
        raise ConfigurationError("[tool.brokerjobs] in pyproject.toml must be a table")
    return [("pyproject.toml", {name.replace("-", "_"): value for name, value in table.items()})]


def _environment(environ: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for name in SECRETS:
        variable = f"{PREFIX}{name.upper()}_FILE"
        if path := environ.get(variable):
            found.append((variable, {name: _secret_in(path, variable)}))
    found += [
        (PREFIX + name.upper(), {name: environ[PREFIX + name.upper()]})
        for name in Settings.model_fields
        if environ.get(PREFIX + name.upper())
    ]
    return found


def _secret_in(path: str, variable: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"{variable}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{variable}: cannot read {path}: it is not UTF-8") from None


def _explain(error: ValidationError, sources: Sources) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        message = item["msg"].removeprefix("Value error, ")
        if not item["loc"]:  # it is about several settings, and names them
            lines.append(message)
            continue
        name = str(item["loc"][0])
        if item["type"] == "extra_forbidden":
            message = f"is no setting; there are: {', '.join(Settings.model_fields)}"
        lines.append(f"{name} ({sources.get(name, '?')}): {message}")
    return "; ".join(lines)

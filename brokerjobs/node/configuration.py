"""What a private node is told: its rabbitmq.conf and its environment. Pure text in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brokerjobs.node.errors import NodeFailed
from brokerjobs.node.installation import Installation

ENABLED_PLUGINS = "[rabbitmq_management,rabbitmq_prometheus,rabbitmq_consistent_hash_exchange].\n"

_PACKAGE = Path(__file__).resolve().parents[1]
_ERL_ARGS = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """Where a node listens, on 127.0.0.1 only; 0 is "any free one" where ports are asked for."""

    amqp: int = 0
    management: int = 0
    prometheus: int = 0
    distribution: int = 0


def project_conf() -> Path:
    """The project's rabbitmq.conf: beside the package in a checkout, inside it in a wheel."""
    for folder in _PACKAGE.parent, _PACKAGE:
        path = folder / "rabbitmq.conf"
        if path.is_file() and (folder == _PACKAGE or (folder / "pyproject.toml").is_file()):
            return path
    raise NodeFailed(f"rabbitmq.conf is missing in {_PACKAGE}: install brokerjobs again")


def conf_text(project: str, ports: Ports, extra: str = "") -> str:
    """A node's rabbitmq.conf. Of two lines for one key RabbitMQ takes the last."""
    return f"""\
{project.rstrip()}

# ---- what makes this node a private one
listeners.tcp.default = 127.0.0.1:{ports.amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {ports.management}
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {ports.prometheus}

# ---- what its owner added
{extra.strip()}
"""


def environment(
    inherited: Mapping[str, str],
    installation: Installation,
    folder: Path,
    *,
    name: str,
    distribution_port: int,
    epmd_port: int,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """A node's environment: nothing of the system's RabbitMQ or of the user's home reaches it.

    Args:
        inherited: the surrounding environment; its RABBITMQ_* and ERL_* are left out.
        installation: whose scripts will run.
        folder: the node's own; becomes its HOME.
        name: the node's name.
        distribution_port: for nodes and rabbitmqctl to talk to it.
        epmd_port: where the epmd listens.
        extra: more variables; RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS is added to ours.
    """
    extra = dict(extra or {})
    erl_args = [
        "-start_epmd false",
        "-kernel inet_dist_use_interface {127,0,0,1}",
        extra.pop(_ERL_ARGS, ""),
    ]
    kept = {
        key: value
        for key, value in inherited.items()
        if not key.startswith(("RABBITMQ_", "ERL_")) and key != "NOTIFY_SOCKET"
    }
    return {
        **kept,
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node, so that its pid is ours
        "PATH": f"{installation.erlang}:{kept.get('PATH', '/usr/bin:/bin')}",
        "HOME": str(folder),  # the cookie lies there
        "LC_ALL": "C.UTF-8",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
        _ERL_ARGS: " ".join(filter(None, erl_args)),
        # Several nodes share the cores, so their threads must not be bound to the same ones.
        "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
        # rabbitmqctl is a short-lived node itself: any port, but loopback only.
        "RABBITMQ_CTL_ERL_ARGS": " ".join(erl_args[:2]),
        "RABBITMQ_CTL_DIST_PORT_MIN": "0",
        "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_DIST_PORT": str(distribution_port),
        # Where nothing is set, RabbitMQ would read /etc/rabbitmq and write to /var/lib/rabbitmq.
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        **extra,
    }

"""What a run is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brokerjobs.errors import ConfigurationError

OK_SHARE = 0.95


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run of chaos.

    Args:
        seed: of faults and orders.
        jobs: confirmed sends, at least.
        minutes: of faults, at least.
        rounds: how often each kind of fault, at least.
        rabbitmq: the version to run.
        faults: kinds; all when empty, none when `none`.
        cluster: three nodes instead of one.
        calm: seconds of full load before the first fault.
        pause: seconds between two faults, at least and at most.
        quiet: seconds without a sign of life until queues are taken as silent.
        heartbeat: seconds; short ones find frozen peers sooner.
        is_small: fewer workers, for a test that takes seconds.
    """

    seed: int
    jobs: int = 30_000
    minutes: float = 10.0
    rounds: int = 3
    rabbitmq: str = "4.3"
    faults: tuple[str, ...] = ()
    cluster: bool = False
    calm: float = 15.0
    pause: tuple[float, float] = (1.0, 4.0)
    quiet: float = 5.0
    heartbeat: int = 5
    is_small: bool = False

    @property
    def is_control(self) -> bool:
        return self.faults == ("none",)

    @property
    def rate(self) -> float:
        """Sends a second."""
        return self.jobs / (self.minutes * 60)


def from_environment(env: Mapping[str, str], seed: int) -> Plan:
    """The plan that SEED, MINUTES, JOBS, RABBITMQ, FAULTS and CLUSTER ask for.

    Raises:
        ConfigurationError: one of them cannot be read.
    """
    try:
        return Plan(
            seed=int(env.get("SEED") or seed),
            jobs=int(env.get("JOBS") or Plan.jobs),
            minutes=float(env.get("MINUTES") or Plan.minutes),
            rabbitmq=(env.get("RABBITMQ") or Plan.rabbitmq).split()[0],
            faults=tuple(env.get("FAULTS", "").replace(",", " ").split()),
            cluster=env.get("CLUSTER", "") not in ("", "0"),
        )
    except ValueError as error:
        raise ConfigurationError(f"SEED, JOBS and MINUTES must be numbers: {error}") from None

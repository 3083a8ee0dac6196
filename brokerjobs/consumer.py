"""A consumer: one queue, the jobs that its messages run, and the options of both."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

from pydantic import ByteSize, TypeAdapter, ValidationError

from brokerjobs.breaker import Breaker
from brokerjobs.durations import Duration, seconds
from brokerjobs.errors import ConfigurationError
from brokerjobs.job import Hook, Hooked, HookT, Job
from brokerjobs.message import NORMAL_PRIORITY, Message
from brokerjobs.middleware import Middleware
from brokerjobs.retry import Retry
from brokerjobs.topology import check_pattern, check_word, matches

_SIZE = TypeAdapter(ByteSize)

P = ParamSpec("P")
R = TypeVar("R")


class Consumer(Hooked):
    """The jobs of one queue.

        consumer = Consumer("emails", retry=Retry(max_attempts=8))

        @consumer.job(timeout="30s")
        async def welcome(user_id: int) -> None: ...

    Args:
        queue: its name, one word; also the first word of its jobs' names.
        bind: patterns of routing keys that it receives besides `<queue>.#`, such as ["*.created", "orders.#"].
        retry: the policy for jobs without their own; 12 attempts with doubling waits by default.
        timeout: how long one attempt may take, for jobs without their own; 10 minutes by default.
        prefetch: unacknowledged deliveries a worker may hold; by default as many as it runs at once.
        queue_type: `auto` (quorum from RabbitMQ 4.3, classic before), `classic` or `quorum`;
            None takes the setting.
        priorities: False for a classic queue without priorities, which is about twice as fast.
        middleware: code around every run, outermost first.
        breaker: when to rest because jobs fail one after another; never, by default.
        require_user: run only jobs that these RabbitMQ users have sent; others are dead, reason `unverified`.

    Raises:
        ConfigurationError: for values that cannot work.
    """

    def __init__(  # noqa: PLR0913  (each is an option that users name)
        self,
        queue: str,
        *,
        bind: Sequence[str] = (),
        retry: Retry | None = None,
        timeout: Duration = "10m",
        prefetch: int | None = None,
        queue_type: Literal["auto", "classic", "quorum"] | None = None,
        priorities: bool = True,
        middleware: Sequence[Middleware] = (),
        breaker: Breaker | None = None,
        require_user: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if isinstance(bind, str):
            raise ConfigurationError(f"bind must be a list of patterns: [{bind!r}]")
        if isinstance(require_user, str):
            raise ConfigurationError(f"require_user must be a list of users: [{require_user!r}]")
        if prefetch is not None and not 1 <= prefetch <= 65535:
            raise ConfigurationError(f"prefetch must be 1 to 65535, not {prefetch}")
        if queue_type not in (None, "auto", "classic", "quorum"):
            raise ConfigurationError(f"queue_type must be auto, classic or quorum, not {queue_type!r}")
        self.queue = check_word(queue, "queue")
        self.bind = tuple(map(check_pattern, bind))
        self.retry = retry or Retry()
        self.timeout = _timeout(timeout)
        self.prefetch = prefetch
        self.queue_type = queue_type
        self.priorities = priorities
        self.middleware = tuple(middleware)
        self.breaker = breaker
        self.require_user = tuple(require_user)
        self.startup: list[Hook] = []
        self.shutdown: list[Hook] = []
        self.jobs: dict[str, Job[..., Any]] = {}
        self._by_name: dict[str, Job[..., Any]] = {}
        _living.add(self)

    def __repr__(self) -> str:
        return f"<Consumer {self.queue}: {', '.join(self.jobs) or 'no jobs'}>"

    def job(
        self,
        *misuse: Any,
        name: str | None = None,
        timeout: Duration | None = None,
        retry: Retry | None = None,
        priority: int = NORMAL_PRIORITY,
        aliases: Sequence[str] = (),
        match: str | None = None,
        isolate: bool = False,
        memory_limit: int | str | None = None,
    ) -> Callable[[Callable[P, R]], Job[P, R]]:
        """Make a function a job of this queue; the function stays callable as it is.

        Args:
            name: its last word, by default the function's name: `welcome` becomes `emails.welcome`.
            timeout: how long one attempt may take.
            retry: its own policy.
            priority: 0 to 9, higher first, for its messages unless options say otherwise.
            aliases: former names under which queued messages may still come: a last word, or a full name.
            match: pattern of routing keys that it takes too, such as "orders.*"; see also `bind`.
            isolate: run it in a process of its own, which is killed when it outruns its timeout.
            memory_limit: of that process, in bytes or such as "512 MiB": on Linux all memory that it may write to,
                what it holds before the job included.

        Raises:
            ConfigurationError: for values that cannot work, or a name that is taken.
        """
        if misuse:
            raise ConfigurationError("write @consumer.job() with parentheses")

        def declare(function: Callable[P, R]) -> Job[P, R]:
            word = name or getattr(function, "__name__", "").lower()
            job: Job[P, R] = Job(
                function,
                name=self._full(word, "job name"),
                queue=self.queue,
                timeout=self.timeout if timeout is None else _timeout(timeout),
                retry=retry or self.retry,
                priority=priority,
                aliases=tuple(self._full(alias, "alias") for alias in aliases),
                match=check_pattern(match) if match else None,
                isolate=isolate,
                memory_limit=_memory_limit(memory_limit, isolate),
            )
            self._register(job)
            return job

        return declare

    def on_startup(self, hook: HookT) -> HookT:
        """Register a function, plain or async, that a worker calls before it consumes this queue."""
        self.startup.append(hook)
        return hook

    def on_shutdown(self, hook: HookT) -> HookT:
        """Register a function that a worker calls after its last job of this queue."""
        self.shutdown.append(hook)
        return hook

    def find(self, message: Message) -> Job[..., Any] | None:
        """The job for a message: by its name, else by its routing key, else by the first pattern that matches."""
        job = self._by_name.get(message.job) or self._by_name.get(message.routing_key)
        if job is not None:
            return job
        for candidate in self.jobs.values():
            if candidate.match and (
                matches(candidate.match, message.routing_key) or matches(candidate.match, message.job)
            ):
                return candidate
        return None

    def _full(self, name: str, what: str) -> str:
        words = name.split(".")
        for word in words:
            if word != "jobs":
                check_word(word, what)
        return name if len(words) > 1 else f"{self.queue}.{name}"

    def _register(self, job: Job[..., Any]) -> None:
        for name in (job.name, *job.aliases):
            if name in self._by_name:
                raise ConfigurationError(f"{self.queue}: two jobs answer to the name {name!r}")
        for name in (job.name, *job.aliases):
            self._by_name[name] = job
        self.jobs[job.name] = job


_living: weakref.WeakSet[Consumer] = weakref.WeakSet()


def living() -> list[Consumer]:
    """The consumers declared in this process; for tests, which name a job and not its consumer."""
    return list(_living)


def _memory_limit(value: int | str | None, isolate: bool) -> int | None:
    if value is None:
        return None
    if not isolate:
        raise ConfigurationError("memory_limit bounds a process of the job's own: give isolate=True too")
    try:
        limit = int(_SIZE.validate_python(value))
    except ValidationError:
        limit = 0
    if limit <= 0 or isinstance(value, bool):
        raise ConfigurationError(f'memory_limit must be bytes or a text such as "512 MiB", not {value!r}')
    return limit


def _timeout(value: Duration) -> float:
    timeout = seconds(value, name="timeout")
    if timeout == 0:
        raise ConfigurationError("timeout must be more than 0")
    return timeout

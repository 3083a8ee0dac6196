"""A job: a typed function that can be called here, or sent to run elsewhere."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack

from brokerjobs import payload, transport
from brokerjobs.durations import Duration, seconds
from brokerjobs.errors import ConfigurationError, InvalidArguments, MessageTooLarge, WrongLoop
from brokerjobs.message import HEADERS_LIMIT, NORMAL_PRIORITY, PREFIX, Message, new_id, portable
from brokerjobs.retry import Retry
from brokerjobs.signature import ArgumentError, Signature
from brokerjobs.topology import HIGHEST_PRIORITY, check_routing_key
from brokerjobs.transport import JobHandle

P = ParamSpec("P")
R = TypeVar("R")
Hook = Callable[..., Any]
HookT = TypeVar("HookT", bound=Hook)


@dataclass(slots=True)
class Hooks:
    """Functions, plain or async, that are told how attempts end. An error in one is logged and changes nothing."""

    success: list[Hook] = field(default_factory=list)
    failure: list[Hook] = field(default_factory=list)
    exhausted: list[Hook] = field(default_factory=list)


class Hooked:
    """The decorators that register hooks; jobs and consumers have them."""

    def __init__(self) -> None:
        self.hooks = Hooks()

    def on_success(self, hook: HookT) -> HookT:
        """Register `hook(context, result)`, called after an attempt that returned."""
        self.hooks.success.append(hook)
        return hook

    def on_failure(self, hook: HookT) -> HookT:
        """Register `hook(context, error)`, called after each attempt that raised."""
        self.hooks.failure.append(hook)
        return hook

    def on_exhausted(self, hook: HookT) -> HookT:
        """Register `hook(context, error)`, called when a job goes to the dead letter queue after a run."""
        self.hooks.exhausted.append(hook)
        return hook


class Job(Hooked, Generic[P, R]):
    """A function that runs as a job; made by `@consumer.job()`. Calling it just runs the function.

    Args:
        function: `async def` runs on the worker's loop, plain `def` in a thread.
        name: `emails.welcome`; also the routing key.
        queue: the queue that its consumer reads.
        timeout: seconds that one attempt may take.
        retry: the policy for failed attempts.
        priority: 0 to 9 for its messages unless options say otherwise.
        aliases: former names under which it still answers.
        match: binding pattern of routing keys that it takes besides its own name.
        isolate: whether it runs in a process of its own.
        memory_limit: of that process, in bytes.
    """

    def __init__(  # noqa: PLR0913  (a job is its options)
        self,
        function: Callable[P, R],
        *,
        name: str,
        queue: str,
        timeout: float,
        retry: Retry,
        priority: int = NORMAL_PRIORITY,
        aliases: tuple[str, ...] = (),
        match: str | None = None,
        isolate: bool = False,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__()
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"{name} is a generator: to call it runs nothing of it")
        self.function = function
        self.name = name
        self.queue = queue
        self.timeout = timeout
        self.retry = retry
        self.priority = check_priority(priority)
        self._options = SendOptions(priority=priority)
        self.aliases = aliases
        self.match = match
        self.isolate = isolate
        self.memory_limit = memory_limit
        self.signature = Signature(function)
        self.is_async = inspect.iscoroutinefunction(function)
        self.can_be_stopped = self.is_async or isolate  # a thread cannot
        # Without the function's attributes: other decorators keep things there, such as tenacity its `retry`.
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Job {self.name}{self.signature}>"

    def message(self, *args: P.args, **kwargs: P.kwargs) -> Message:
        """The message that would run this job, not yet sent.

        Raises:
            InvalidArguments: if they do not fit the signature.
            NotSerializable: if they cannot be written as JSON.
        """
        return self._message(args, kwargs, self._options)

    def send(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        """Publish from ordinary code; returns once the broker has confirmed and kept it.

        Raises:
            PublishRefused: surely not queued.
            PublishUnknown: may be queued.
            WrongLoop: on a running event loop, which it would block.
        """
        return _send(self.message(*args, **kwargs), self.name)

    async def asend(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        """Publish from async code; raises as `send` does."""
        return await transport.sender().asend_message(self.message(*args, **kwargs))

    def options(self, **options: Unpack[SendArguments]) -> PreparedJob[P]:
        """The job with options for this send; see `SendArguments`.

        Raises:
            InvalidArguments: for values out of range.
        """
        return PreparedJob(self, SendOptions.of(options, self.priority))

    def _message(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: SendOptions) -> Message:
        try:
            arguments = self.signature.bind(args, kwargs)
        except ArgumentError as error:
            raise InvalidArguments(str(error)) from None
        if self.signature.is_raw:
            return options.message(self.name, arguments["body"], "application/octet-stream")
        return options.message(self.name, payload.encode(arguments))


class PreparedJob(Generic[P]):
    """A job with options; offers the same `send`, `asend` and `message`."""

    def __init__(self, job: Job[P, Any], options: SendOptions) -> None:
        self._job = job
        self._options = options

    def message(self, *args: P.args, **kwargs: P.kwargs) -> Message:
        return self._job._message(args, kwargs, self._options)

    def send(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        return _send(self.message(*args, **kwargs), self._job.name)

    async def asend(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        return await transport.sender().asend_message(self.message(*args, **kwargs))


class SendArguments(TypedDict, total=False):
    """What may be said about one send.

    Args:
        priority: 0 to 9, higher first.
        delay: run after this long; rounded up to 125 ms.
        at: run at this time, which must have a time zone.
        expires: do not start later than this after it was due; then it is dead, reason `expired`.
        id: your own job id instead of a new one.
        headers: str, int and bool values for the job to read.
        correlation_id: AMQP's, carried along.
    """

    priority: int
    delay: Duration | None
    at: datetime | None
    expires: Duration | None
    id: str | None
    headers: Mapping[str, Any] | None
    correlation_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """SendArguments, checked."""

    priority: int = NORMAL_PRIORITY
    delay: Duration | None = None
    at: datetime | None = None
    expires: Duration | None = None
    id: str | None = None
    headers: Mapping[str, Any] | None = None
    correlation_id: str | None = None

    @classmethod
    def of(cls, arguments: SendArguments, priority: int = NORMAL_PRIORITY) -> SendOptions:
        """Raises InvalidArguments for values out of range."""
        options = cls(**{"priority": priority, **arguments})  # type: ignore[arg-type]
        options.check()
        return options

    def check(self) -> None:
        """Raises InvalidArguments for values out of range."""
        try:
            check_priority(self.priority)
            self._wait(time.time())
            if self.expires is not None:
                seconds(self.expires, name="expires")
        except ConfigurationError as error:
            raise InvalidArguments(str(error)) from None
        for name, text in ("id", self.id), ("correlation_id", self.correlation_id):
            if text is not None and not (
                isinstance(text, str) and _is_utf8(text) and 0 < len(text.encode()) <= 255
            ):
                raise InvalidArguments(f"{name} must be a text of 1 to 255 bytes, not {text!r}")
        headers = self.headers or {}
        for name, value in headers.items():
            check_header(name, value)
        if len(portable(headers)) < len(headers):
            raise InvalidArguments(
                f"the headers are together above {HEADERS_LIMIT // 2:,} bytes; use arguments"
            )

    def message(self, job: str, body: bytes, content_type: str = payload.JSON) -> Message:
        check_routing_key(job)
        now = time.time()
        wait = self._wait(now)
        due = int((now + wait) * 1000) if wait else 0
        expires = 0.0 if self.expires is None else seconds(self.expires, name="expires")
        return Message(
            job=job,
            routing_key=job,
            body=body,
            content_type=content_type,
            id=self.id or new_id(),
            priority=self.priority,
            timestamp=int(now),
            correlation_id=self.correlation_id,
            headers=dict(self.headers or {}),
            due=due,
            not_after=int((now + wait + expires) * 1000) if self.expires is not None else 0,
            delay=wait,
        )

    def _wait(self, now: float) -> float:
        if self.delay is not None and self.at is not None:
            raise InvalidArguments("give either delay or at, not both")
        if self.at is not None:
            if not isinstance(self.at, datetime):
                raise InvalidArguments(f"at must be a datetime, not {self.at!r}")
            if self.at.tzinfo is None:
                raise InvalidArguments("at has no time zone: use datetime.now(UTC), or .astimezone()")
            return max(0.0, self.at.timestamp() - now)
        return 0.0 if self.delay is None else seconds(self.delay, name="delay")


def send_many(messages: Iterable[Message]) -> list[JobHandle]:
    """Publish many messages made by `job.message(…)`, without waiting for one confirm before sending the next.

    Raises:
        SendManyError: some were not confirmed; its `results` tell which.
        WrongLoop: on a running event loop.
    """
    refuse_on_loop("send_many()", "await asend_many(…)")
    return transport.sender().send_many(messages)


async def asend_many(messages: Iterable[Message]) -> list[JobHandle]:
    """Publish many messages from async code; see `send_many`."""
    return await transport.sender().asend_many(messages)


def _send(message: Message, name: str) -> JobHandle:
    refuse_on_loop(f"{name.rpartition('.')[2]}.send()", "await … .asend()")
    return transport.sender().send_message(message)


def refuse_on_loop(call: str, instead: str) -> None:
    """Raises WrongLoop when called on a running event loop, which a blocking call would freeze."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WrongLoop(f"{call} would block the running event loop: use {instead}")


def check_priority(priority: int) -> int:
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= HIGHEST_PRIORITY:
        raise ConfigurationError(f"priority must be 0 to {HIGHEST_PRIORITY} (higher first), not {priority!r}")
    return priority


def check_header(name: str, value: Any) -> None:
    if not (isinstance(name, str) and _is_utf8(name) and 0 < len(name.encode()) <= 128):
        raise InvalidArguments(f"header name {name!r} must be a text of 1 to 128 bytes")
    if name.lower().startswith(("x-", PREFIX)) or name in ("CC", "BCC"):
        raise InvalidArguments(f"header {name!r} is not yours: x-…, {PREFIX}…, CC and BCC are reserved")
    if isinstance(value, str) and not _is_utf8(value):
        raise InvalidArguments(f"header {name!r} cannot be written as UTF-8: it holds a lone surrogate")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidArguments(f"header {name!r} is beyond 64 bits")
    if not isinstance(value, (str, int, bool)):
        raise InvalidArguments(
            f"header {name!r} must be str, int or bool, not {type(value).__name__}: "
            "other kinds break some AMQP clients"
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_size(message: Message, limit: int) -> None:
    """Raises MessageTooLarge when the body is above `limit` bytes."""
    if len(message.body) > limit:
        raise MessageTooLarge(
            f"{message.job}: the body is {len(message.body):,} bytes, above the limit of {limit:,}; "
            "store it elsewhere and send where it is, or raise BROKERJOBS_MAX_MESSAGE_SIZE"
        )

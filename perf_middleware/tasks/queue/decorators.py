"""A decorated function: it is called as before, and enqueued where that is asked for.

@queue.task(priority="low", retries=3)
async def send(address): ...

await send("a@b")                                 runs here and now
await send.enqueue("a@b")                         a Job, run by a worker
await send.options(delay_s=60).enqueue("a@b")     the same, a minute later
"""

from __future__ import annotations

import inspect
import sys
import time
import warnings
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

from perf_middleware.tasks.queue.options import (
    AS_SET,
    AsSet,
    checked_key,
    checked_retries,
    microseconds,
    rank_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from perf_middleware.tasks.queue.options import Plan
    from perf_middleware.tasks.queue.runtime.engine import Engine
    from perf_middleware.tasks.queue.runtime.job import Job

P = ParamSpec("P")
C = TypeVar("C")  # what a call gives: for async functions a coroutine
R = TypeVar("R")  # what its job gives


class Task(Generic[P, C, R]):
    """A function and how its jobs are run.

    A method works too: `thing.method.enqueue(...)` enqueues the call on `thing`, and one `of_class`
    that on its class.
    """

    def __init__(
        self, call: Callable[P, C], plan: Plan, engine: Engine, *, of_class: bool = False
    ) -> None:
        update_wrapper(self, call, updated=())  # an object's attributes would hide our own
        self._call = call
        self._engine = engine
        self._of_class = of_class
        self.plan = plan

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        return self._call(*args, **kwargs)

    def __get__(self, thing: Any, kind: type | None = None) -> Any:
        if self._of_class:
            thing = type(thing) if kind is None else kind
        elif thing is None:
            return self
        call: Any = self._call
        bound = partial(call, thing)
        return type(self)(bound, replace(self.plan, call=bound), self._engine)

    def __repr__(self) -> str:
        return f"<task {self.plan.name}>"

    def around(self, call: Callable[..., Any]) -> Self:
        """The same task, whose jobs run `call`: async where its own function is."""
        return type(self)(call, replace(self.plan, call=call), self._engine)

    @property
    def name(self) -> str:
        """What its jobs and figures go by."""
        return self.plan.name

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """The job that will run this call, as soon as it is accepted.

        Raises QueueFullError where there is no room in time, QueueClosedError where the queue takes
        no jobs.
        """
        plan, engine = self.plan, self._engine
        if not engine.backlog.room:
            job = engine.accept(
                plan, args, kwargs, plan.rank, plan.retries, plan.timeout_us, 0, None
            )
            if job is not None:
                return job
        return await engine.accept_in_time(
            plan, args, kwargs, plan.rank, plan.retries, plan.timeout_us, 0, None, None
        )

    def options(
        self,
        *,
        priority: str | None = None,
        retries: int | None = None,
        timeout_s: float | AsSet | None = AS_SET,
        delay_s: float | None = None,
        at: datetime | None = None,
        unique_key: str | None = None,
        wait_s: float | None = None,
    ) -> Prepared[P, R]:
        """The same task for some calls, with what is given here instead of its own.

        delay_s, at: begin no sooner; `at` with its time zone, one that is over is now.
        unique_key: where a job with this key waits or runs, it is the one that `enqueue` gives.
        wait_s: how long to wait for room, 0 not at all.
        Raises ValueError for what cannot be.
        """
        if delay_s is not None and at is not None:
            raise ValueError("give delay_s or at, not both")
        plan = self.plan
        if at is not None:
            delay_s = seconds_until(at)
        delay_us = microseconds("delay_s", delay_s, least_us=0) or 0
        return Prepared(
            self._engine,
            plan,
            rank=plan.rank if priority is None else rank_of(priority),
            retries=plan.retries if retries is None else checked_retries(retries),
            timeout_us=plan.timeout_us
            if isinstance(timeout_s, AsSet)
            else microseconds("timeout_s", timeout_s),
            delay_us=delay_us,
            unique_key=checked_key(unique_key),
            wait_us=microseconds("wait_s", wait_s, least_us=0),
        )


class AsyncTask(Task[P, Coroutine[Any, Any, R], R]):
    """The same of an async function: whoever asks whether it is one hears yes."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        value: R = await self._call(*args, **kwargs)
        return value


class Prepared(Generic[P, R]):
    """A task with options of some calls."""

    __slots__ = (
        "_delay_us", "_engine", "_plan", "_rank", "_retries", "_timeout_us", "_unique_key",
        "_wait_us",
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        *,
        rank: int,
        retries: int,
        timeout_us: int | None,
        delay_us: int,
        unique_key: str | None,
        wait_us: int | None,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._rank = rank
        self._retries = retries
        self._timeout_us = timeout_us
        self._delay_us = delay_us
        self._unique_key = unique_key
        self._wait_us = wait_us

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """As `Task.enqueue`."""
        return await self._engine.accept_in_time(
            self._plan, args, kwargs, self._rank, self._retries, self._timeout_us,
            self._delay_us, self._unique_key, self._wait_us,
        )  # fmt: skip


def seconds_until(at: datetime) -> float:
    """From now to `at`, 0 where it is over.  Raises ValueError for one without a time zone."""
    if getattr(at, "tzinfo", None) is None:
        raise ValueError("at needs a time zone: datetime.now(UTC) + timedelta(hours=1), say")
    return max(0.0, at.timestamp() - time.time())


def is_async(call: Callable[..., Any]) -> bool:
    """Whether `call` gives a coroutine, as far as one can see without calling it."""
    while isinstance(call, partial):
        call = call.func
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
        getattr(call, "__call__", None)  # noqa: B004 - not whether it is callable, but how
    )


def yields(call: Callable[..., Any]) -> bool:
    """Whether `call` gives a generator, which does nothing until somebody iterates over it."""
    while isinstance(call, partial):
        call = call.func
    return inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call)


def function_in(given: Any) -> Callable[..., Any]:
    """What is decorated: the function itself, or that of a classmethod or staticmethod.

    Warns of one that most likely gets a classmethod above it, which no decorator can see.  From
    Python 3.13 on that gives a bound method, which calls the task with the class and enqueues it
    without.
    """
    if isinstance(given, staticmethod | classmethod):
        return given.__func__
    if sys.version_info >= (3, 13) and _wants_class(given):
        warnings.warn(
            f"{name_of(given)}: on a class method @task stands above @classmethod; below it, it is "
            "enqueued without its class",
            RuntimeWarning,
            stacklevel=4,
        )
    function: Callable[..., Any] = given
    return function


def _wants_class(given: Any) -> bool:
    """By the name that everybody gives the first argument of a class method."""
    code = getattr(given, "__code__", None)
    around = getattr(given, "__qualname__", "").rpartition(".")[0]
    is_of_class = bool(around) and not around.endswith("<locals>")
    return is_of_class and code is not None and code.co_varnames[: code.co_argcount][:1] == ("cls",)


def name_of(call: Callable[..., Any]) -> str:
    """`package.module.function`, or what is nearest to it."""
    while isinstance(call, partial):
        call = call.func
    kind = type(call)
    qualname = getattr(call, "__qualname__", None) or kind.__qualname__
    module = getattr(call, "__module__", None) or kind.__module__
    return f"{module}.{qualname}".replace(".<locals>", "")

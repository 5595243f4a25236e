"""Time a callable without changing what it is.

A coroutine function stays one, a generator keeps `send`, `throw` and `close`, the signature stays
what frameworks read.  A generator is charged for its own steps, not for the time its consumer
keeps it waiting.  A timer inside another counts in both, and so do timers that run at once: the
parts of a request may add up to more than the request.

Source: PEP 380 (what `yield from` forwards), PEP 525 (asynchronous generators).
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from perf_middleware.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    ClockNs: TypeAlias = Callable[[], int]

P = ParamSpec("P")
R = TypeVar("R")


class Series(Protocol):
    """Takes what one run cost."""

    def begin_bytes(self) -> int:
        """What `end` shall get as `begin_bytes`."""

    def end(self, elapsed_ns: int, begin_bytes: int, error: type[BaseException] | None) -> None:
        """Record one run and the class of what ended it, None for a good end."""


def keep_nature(series: Series, clock: ClockNs, function: Callable[P, R]) -> Callable[P, R]:
    """`function`, each run of it told to `series`; `clock` counts nanoseconds.

    Raises ConfigurationError for what is no function: a class would become something else.
    """
    return cast("Callable[P, R]", _timed(series, clock, function))


def _timed(series: Series, clock: ClockNs, function: Any) -> Any:
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(_timed(series, clock, function.__func__))
    if isinstance(function, type) or not callable(function):
        raise ConfigurationError(f"only functions can be tracked, not {function!r}")
    if inspect.isasyncgenfunction(function):
        return _async_generator(series, clock, function)
    if inspect.isgeneratorfunction(function):
        return _generator(series, clock, function)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
    ):
        return _async_function(series, clock, function)
    return _function(series, clock, function)


def _function(series: Series, clock: ClockNs, function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        begin_bytes = series.begin_bytes()
        began_ns = clock()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            series.end(clock() - began_ns, begin_bytes, type(error))
            raise
        series.end(clock() - began_ns, begin_bytes, None)
        return result

    return wrapper


def _async_function(
    series: Series, clock: ClockNs, function: Callable[P, Awaitable[R]]
) -> Callable[P, Awaitable[R]]:
    @functools.wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        begin_bytes = series.begin_bytes()
        began_ns = clock()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            series.end(clock() - began_ns, begin_bytes, type(error))
            raise
        series.end(clock() - began_ns, begin_bytes, None)
        return result

    return wrapper


def _generator(
    series: Series, clock: ClockNs, function: Callable[P, Generator[Any, Any, R]]
) -> Callable[P, Generator[Any, Any, R]]:
    # `yield from`, step by step (PEP 380), with the clock stopped while the consumer works.
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
        begin_bytes = series.begin_bytes()
        elapsed_ns = 0
        began_ns = clock()
        outcome: type[BaseException] | None = None
        steps = function(*args, **kwargs)
        advance: Callable[[], Any] = functools.partial(next, steps)
        try:
            while True:
                try:
                    item = advance()
                except StopIteration as stop:
                    return cast("R", stop.value)
                elapsed_ns += clock() - began_ns
                try:
                    sent = yield item
                except GeneratorExit:
                    began_ns = clock()
                    steps.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the consumer
                    advance = functools.partial(steps.throw, error)
                else:
                    advance = functools.partial(steps.send, sent)
                began_ns = clock()
        except BaseException as error:
            outcome = type(error)
            raise
        finally:
            series.end(elapsed_ns + clock() - began_ns, begin_bytes, outcome)

    return wrapper


def _first_step(steps: AsyncGenerator[R, Any]) -> Awaitable[R]:
    """Start `steps` unseen by the event loop, which would close it beside its wrapper.

    A loop that ends closes all asynchronous generators at once, and the second `aclose` of one
    that is closing raises.  The wrapper, which the loop does see, always closes it.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return steps.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _async_generator(
    series: Series, clock: ClockNs, function: Callable[P, AsyncGenerator[Any, Any]]
) -> Callable[P, AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
        begin_bytes = series.begin_bytes()
        elapsed_ns = 0
        began_ns = clock()
        outcome: type[BaseException] | None = None
        steps = function(*args, **kwargs)
        try:
            advance: Callable[[], Awaitable[Any]] = functools.partial(_first_step, steps)
            while True:
                try:
                    item = await advance()
                except StopAsyncIteration:
                    return
                elapsed_ns += clock() - began_ns
                try:
                    sent = yield item
                except GeneratorExit:
                    began_ns = clock()
                    await steps.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the consumer
                    advance = functools.partial(steps.athrow, error)
                else:
                    advance = functools.partial(steps.asend, sent)
                began_ns = clock()
        except BaseException as error:
            outcome = type(error)
            raise
        finally:
            series.end(elapsed_ns + clock() - began_ns, begin_bytes, outcome)

    return wrapper

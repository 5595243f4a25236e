"""`perf.cache.warmer`: the app's own functions that warm, and runs that it asks for."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

if TYPE_CHECKING:
    from perf_middleware.caching.warming.figures import Run
    from perf_middleware.caching.warming.runtime import Warming

W = TypeVar("W", bound=Callable[[], Any])


class Warmer:
    """A decorator; what it stands on is called in each run."""

    def __init__(self) -> None:
        self.functions: list[Callable[[], Any]] = []
        self.on_first: Callable[[], object] | None = None
        self.warming: Warming | None = None

    def __call__(self, function: W) -> W:
        """Call `function` in each run: what it returns or yields are URLs to ask for.

        An async generator function, or a function that returns URLs or an awaitable of them; None
        where it has warmed values itself.  A plain `def` is called in a thread.  Raises TypeError
        for what cannot be called.
        """
        if not callable(function):
            raise TypeError(f"a warmer is a function, not {function!r}")
        self.functions.append(function)
        if self.on_first is not None:
            on_first, self.on_first = self.on_first, None
            on_first()
        return function

    async def run(self) -> Run:
        """Warm everything now, behind the run that is under way; what came of it.

        Raises RuntimeError where warming is off, and before the app has started.
        """
        if self.warming is None:
            raise RuntimeError("warming is off: it takes install() and warming.enabled")
        return await self.warming.run()


async def urls_of(
    function: Callable[[], Any], *, urls_max: int, threads: anyio.CapacityLimiter
) -> AsyncGenerator[str, None]:
    """The URLs that a decorated function names, in whichever way; raises what it raises.

    A plain `def` is called in a thread, as Starlette does it: it may wait for a database.  Of what
    it yields `urls_max` are taken, and one that never returns is left behind where the caller is
    cancelled.
    """

    def call() -> Any:
        given = function()
        is_endless = isinstance(given, Iterator)  # perhaps
        return list(islice(given, urls_max)) if is_endless else given

    if _is_async(function):
        given = function()
    else:
        given = await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=threads)
    if inspect.isawaitable(given):
        given = await given
    if isinstance(given, AsyncGenerator):
        async with aclosing(given):
            async for url in given:
                yield url
    elif hasattr(given, "__aiter__"):
        async for url in given:
            yield url
    elif isinstance(given, str):
        yield given
    elif given is not None:
        for url in given:
            yield url


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (function, getattr(type(function), "__call__", None))  # noqa: B004
    )

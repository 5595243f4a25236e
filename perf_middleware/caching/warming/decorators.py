"""`perf.cache.warmer`: the app's own functions that warm, and runs that it asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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
        where it has warmed values itself.  Raises TypeError for what cannot be called.
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


async def urls_of(function: Callable[[], Any]) -> AsyncIterator[str]:
    """The URLs that a decorated function names, in whichever way; raises what it raises."""
    given = function()
    if inspect.isawaitable(given):
        given = await given
    if hasattr(given, "__aiter__"):
        async for url in given:
            yield url
    elif isinstance(given, str):
        yield given
    elif given is not None:
        for url in given:
            yield url

"""One run at work: what is known is asked for, while the app's functions still name more.

    your URLs ------------------.
    function --> URL, URL ------+--> agenda --> `concurrency` at once --> the app
    function --> (hangs) -------'
    the last run's hottest --- when there is nothing else ---^

No source waits for another: one that hangs or fails takes nothing from the rest.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from perf_middleware.caching.warming.decorators import urls_of
from perf_middleware.caching.warming.plan import Agenda, ask_of
from perf_middleware.cancellation import ENDING, is_being_cancelled
from perf_middleware.error_text import told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from perf_middleware.caching.warming.figures import Run
    from perf_middleware.caching.warming.plan import Ask, Base, Fields

NAMED_AT_ONCE: Final = 100  # URLs, by a function that waits for nothing: below a millisecond


class Round:
    """`ask` asks and counts; `stand_aside` waits while clients keep the app busy."""

    def __init__(
        self,
        run: Run,
        *,
        ask: Callable[[Ask], Awaitable[None]],
        stand_aside: Callable[[], Awaitable[None]],
        goes_on: Callable[[], bool],
        base: Base | None,
        variants: Sequence[Fields],
        asks_max: int,
    ) -> None:
        self._run = run
        self._ask = ask
        self._stand_aside = stand_aside
        self._goes_on = goes_on
        self._base = base
        self._variants = variants
        self._asks_max = asks_max
        self._agenda = Agenda(asks_max)
        self.failures = 0
        """Of functions, and of what they named."""
        self._naming = 0
        self._news = anyio.Event()

    @property
    def planned(self) -> int:
        """How many there were to ask for, what cannot be asked for too."""
        return self._agenda.planned + self.failures

    async def ask_for(
        self,
        asks: Iterable[Ask],
        functions: Sequence[tuple[Callable[[], Any], anyio.CapacityLimiter]],
        hottest: Callable[[], Awaitable[Iterable[Ask]]] | None,
        *,
        concurrency: int,
    ) -> None:
        """Ask for all of it; cancelled where there is no more time."""
        self._agenda.add(asks)
        async with anyio.create_task_group() as tasks:
            for function, threads in functions:
                self._naming += 1
                tasks.start_soon(self._name, function, threads)
            if hottest is not None:
                self._naming += 1
                tasks.start_soon(self._recall, hottest)
            for _ in range(concurrency):
                tasks.start_soon(self._work)

    async def _work(self) -> None:
        while self._goes_on():
            # An app that waits for nothing gives nobody a turn, and no deadline a chance.
            await anyio.lowlevel.checkpoint()
            await self._stand_aside()
            ask = self._agenda.take()
            if ask is not None:
                await self._ask(ask)
            elif self._naming and not self._agenda.is_full:
                await self._news.wait()
            else:
                return

    def _tell_news(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def _recall(self, hottest: Callable[[], Awaitable[Iterable[Ask]]]) -> None:
        self._agenda.add(await hottest(), last=True)
        self._naming -= 1
        self._tell_news()

    # --- the app's functions --------------------------------------------------------------------

    async def _name(self, function: Callable[[], Any], threads: anyio.CapacityLimiter) -> None:
        """Take what `function` names; one that fails is told, the others count."""
        try:
            await self._stand_aside()
            urls = urls_of(function, urls_max=self._asks_max + 1, threads=threads)
            async with aclosing(urls):
                named = 0
                async for url in urls:
                    self._take(function, url)
                    named += 1
                    if named % NAMED_AT_ONCE == 0:
                        await anyio.lowlevel.checkpoint()
                    if self._agenda.is_full or named > self._asks_max:
                        break
        except ENDING:
            raise
        except anyio.get_cancelled_exc_class():
            if is_being_cancelled():
                if self._goes_on():
                    self._failed(function, "was not over when the run was")
                raise
            self._failed(function, "what it waited for was cancelled")
        except BaseException as error:  # noqa: BLE001 - the app's own function
            self._failed(function, told(error))
        finally:
            self._naming -= 1
            self._tell_news()

    def _take(self, function: Callable[[], Any], url: Any) -> None:
        if not isinstance(url, str):
            self._failed(function, f"{url!r:.100} is no URL")
            return
        try:
            self._agenda.add([ask_of(url, each, base=self._base) for each in self._variants])
        except ValueError as error:
            self._failed(function, str(error))
        else:
            self._tell_news()

    def _failed(self, function: Callable[[], Any], why: str) -> None:
        self.failures += 1
        self._run.count("failed")
        self._run.tell(f"{getattr(function, '__qualname__', repr(function))}: {why}")

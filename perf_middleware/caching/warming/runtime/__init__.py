"""Runs of warming: at the start, from time to time, after purges; always behind clients.

    started -> first run ----.--> every `interval_s` -> run
       |                     '--> purge of what was warmed -> quiet -> run of that
       '-- readiness waits for the first run, at most `wait_s`

A failure is counted and told, one line for each run; no run and no start fails by it.
"""

from __future__ import annotations

import logging
import random
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from perf_middleware.caching.warming.decorators import urls_of
from perf_middleware.caching.warming.figures import Run, WarmingFigures
from perf_middleware.caching.warming.plan import Ask, ask_of, in_order, spread_s
from perf_middleware.caching.warming.runtime.asking import ask_app
from perf_middleware.caching.warming.runtime.hot import Hot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from perf_middleware.asgi import ASGIApp
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.stored import StoredResponse
    from perf_middleware.caching.warming.asked import Asked
    from perf_middleware.caching.warming.figures import Cause
    from perf_middleware.caching.warming.plan import Base, Fields
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.caching")

TURN_EVERY_S: Final = 5.0  # a third of what it is taken for
SAVE_S: Final = 60.0
PAUSE_S: Final = 0.25  # between looks at whether clients still keep the app busy
PROBLEMS_TOLD_MAX: Final = 5
LOOK_S: Final = 10.0  # from look to look at who is hot
LOOK_SHARE: Final = 0.002  # of the time at most: 50,000 responses take 0.15 s to look at
NO_FIELDS: Final[tuple[Fields, ...]] = ((),)


class Turn(Protocol):
    """Which of the processes that share a cache is the one that warms it."""

    async def take(self) -> bool:
        """Whether it is this one, for a while; asked again in time it stays so."""

    async def give_back(self) -> None:
        """Let another process have it."""


class Hottest(Protocol):
    """What was asked for most, from one run of the app to the next; fails open."""

    async def load(self) -> list[Ask]:
        """The hottest first."""

    async def save(self, asks: Sequence[tuple[Ask, float]], *, forget: bool) -> None:
        """Add these scores to those that are there; `forget`: to the half of them."""


class Warming:
    """Asks the app for what clients will ask for; a resource of the lifespan plugin.

    `app` is where its requests enter, below what counts and refuses clients.  `is_busy()` says that
    clients need all there is.
    """

    name = "warming"
    required = False

    def __init__(
        self,
        cache: ResponseCache,
        *,
        asks: Sequence[Ask] = (),
        base: Base | None = None,
        variants: Sequence[Fields] = NO_FIELDS,
        wait_s: float = 10.0,
        run_s: float = 60.0,
        request_s: float = 30.0,
        interval_s: float | None = None,
        after_purge_s: float | None = 1.0,
        concurrency: int = 2,
        asks_max: int = 1_000,
        refresh_hottest: int = 0,
        refresh_ahead_s: float = 5.0,
        remember: int = 0,
        hottest: Hottest | None = None,
        turn: Turn | None = None,
        is_busy: Callable[[], bool] = lambda: False,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.cache = cache
        self.app: ASGIApp | None = None
        self.figures = WarmingFigures()
        self._asks = tuple(asks)
        self._base = base
        self._variants = tuple(variants)
        self._wait_s = wait_s
        self._run_s = run_s
        self._request_s = request_s
        self._interval_s = interval_s
        self._after_purge_s = after_purge_s
        self._concurrency = concurrency
        self._asks_max = asks_max
        self.is_busy = is_busy
        self._draw = draw
        self._refresh_hottest = refresh_hottest
        self.hot = Hot(cache, keys_max=max(1, refresh_hottest, remember), ahead_s=refresh_ahead_s)
        self._remember = remember
        self._hottest = hottest
        self._turn = turn
        self._is_mine = True
        self._state: Mapping[str, Any] = {}
        self._warmed: dict[bytes, set[Ask]] = {}  # by primary key: what to ask for after a purge
        self._purged: dict[Ask, None] = {}
        self._background: Background | None = None
        self._closing = False
        if after_purge_s is not None:
            cache.on("invalidate", self._note_purge)

    @property
    def has_work(self) -> bool:
        return bool(self._has_runs or self._refresh_hottest)

    @property
    def _has_runs(self) -> bool:
        return bool(self._asks or self.cache.warmer.functions or self._hottest)

    # --- its life -------------------------------------------------------------------------------

    async def open(self, background: Background) -> None:
        """Nothing is asked before the app itself has started: `begin` is called then."""
        self._background = background
        self._closing = False
        self._one_run = anyio.Lock()
        self._purge_heard = anyio.Event()
        self._turn_came = anyio.Event()

    async def begin(self, state: Mapping[str, Any]) -> None:
        """The app has started: begin, and wait for the first run, at most `wait_s`."""
        background, self._state = self._background, state
        if background is None or not self.has_work:
            return
        if self._refresh_hottest or self._hottest is not None:
            background.start("warming of the hottest", self._keep_hot)
        if not self._has_runs:
            return
        if self._turn is not None:
            await self._take_turn(self._turn)
            background.start("warming in turn", partial(self._hold_turn, self._turn))
        first_run = anyio.Event()
        background.start("warming", partial(self._keep_warm, first_run))
        if self._after_purge_s is not None:
            background.start("warming after purges", self._follow_purges)
        if self._wait_s and self._is_mine:
            with anyio.move_on_after(self._wait_s) as waiting:
                await first_run.wait()
            if waiting.cancelled_caught:
                logger.info("warming goes on behind the start, which has waited for its %g s",
                            self._wait_s)  # fmt: skip

    async def stop(self) -> None:
        """The server stops, the app is still whole: from here on nothing is asked of it."""
        self._closing = True

    async def close(self) -> None:
        """Keep what was asked for most; what still runs is cancelled after every resource."""
        self._closing = True
        if self._background is None:
            return
        self._background = None
        if self._hottest is not None:
            await self.hot.look()
            await self._save(self._hottest)
        if self._turn is not None:
            await self._turn.give_back()

    def status(self) -> dict[str, Any]:
        return {"turn": self._is_mine} | self.figures.status()

    async def _keep_warm(self, first_run: anyio.Event) -> None:
        cause: Cause = "start"
        while not self._closing:
            try:
                if self._is_mine:
                    await self._run(cause, self._everything)
            finally:
                first_run.set()
            if self._interval_s is None and self._turn is None:
                return
            cause = "turn"
            pause_s = inf if self._interval_s is None else spread_s(self._interval_s, self._draw())
            with anyio.move_on_after(pause_s) as waiting:
                await self._turn_came.wait()
            if waiting.cancelled_caught:
                cause = "interval"
            self._turn_came = anyio.Event()

    async def _hold_turn(self, turn: Turn) -> None:
        while not self._closing:
            await anyio.sleep(TURN_EVERY_S)
            if await self._take_turn(turn):
                self._turn_came.set()

    async def _take_turn(self, turn: Turn) -> bool:
        """Ask whose turn it is; whether it is this process's, and was not before."""
        was_mine, self._is_mine = self._is_mine, await turn.take()
        return self._is_mine and not was_mine

    async def _save(self, hottest: Hottest) -> None:
        await hottest.save(self.hot.asks()[: self._remember], forget=self._is_mine)

    # --- after purges ---------------------------------------------------------------------------

    def _note_purge(self, stored: StoredResponse) -> None:
        """A hook of every purge: a look-up for each response that it takes."""
        asks = self._warmed.get(stored.primary)
        if asks and self._background is not None:
            self._purged |= dict.fromkeys(asks)
            self._purge_heard.set()

    async def _follow_purges(self) -> None:
        assert self._after_purge_s is not None  # noqa: S101 - else this is not begun
        while not self._closing:
            await self._purge_heard.wait()
            seen = -1
            while seen != len(self._purged):  # one purge is often the first of several
                seen = len(self._purged)
                await anyio.sleep(self._after_purge_s)
            purged, self._purged = self._purged, {}
            self._purge_heard = anyio.Event()
            if self._is_mine:
                await self._run("purge", partial(_these, purged))

    # --- before their end -----------------------------------------------------------------------

    async def _keep_hot(self) -> None:
        """Look who is hot every LOOK_S, and renew those whose end is near in time for it."""
        pause_s = min(1.0, max(0.05, self.hot.ahead_us / 4e6))
        saved_us = self.cache.clock()
        while not self._closing:
            began_us = self.cache.clock()
            await self.hot.look()
            if self._hottest is not None and began_us - saved_us >= SAVE_S * 1e6:
                saved_us = began_us
                await self._save(self._hottest)
            took_s = (self.cache.clock() - began_us) / 1e6
            for _ in range(max(1, round(max(LOOK_S, took_s / LOOK_SHARE) / pause_s))):
                await anyio.sleep(pause_s)
                await self.refresh_due()

    async def refresh_due(self) -> int:
        """Renew the hottest whose end is near, unless clients keep the app busy; how many."""
        if self.is_busy() or self._closing:
            return 0
        pending = self.hot.due(self._refresh_hottest)[::-1]
        before = self.figures.refreshed
        async with anyio.create_task_group() as tasks:
            for _ in range(min(self._concurrency, len(pending))):
                tasks.start_soon(self._refresh_on, pending)
        return self.figures.refreshed - before

    async def _refresh_on(self, pending: list[tuple[bytes, Ask]]) -> None:
        while pending and not self.is_busy():
            key, ask = pending.pop()
            asked = await self.ask(ask, margin_us=self.hot.margin_us(key))
            if asked.outcome == "warmed":
                self.figures.refreshed += 1
            elif asked.outcome != "fresh":
                self.hot.leave(key)

    # --- runs -----------------------------------------------------------------------------------

    async def run(self) -> Run:
        """Warm everything now, as at the start; what came of it.

        Raises RuntimeError while the app does not run.
        """
        if self._background is None or self._closing:
            raise RuntimeError("warming asks the app, which has not started or has stopped")
        return await self._run("request", self._everything)

    async def _run(
        self, cause: Cause, gather: Callable[[Run], Awaitable[Iterable[Iterable[Ask]]]]
    ) -> Run:
        """One run at a time; it takes `run_s` at most, and raises nothing of the app's."""
        async with self._one_run:
            run = Run(cause)
            began_us = self.cache.clock()
            pending: list[Ask] = []
            with anyio.move_on_after(self._run_s):
                asks, over = in_order(*await gather(run), asks_max=self._asks_max)
                run.planned += len(asks) + over
                run.left = over
                pending = asks[::-1]
                async with anyio.create_task_group() as tasks:
                    for _ in range(min(self._concurrency, len(pending))):
                        tasks.start_soon(self._ask_on, pending, run)
            run.left = run.planned - run.warmed - run.fresh - run.unstored - run.failed
            run.left = max(run.left, 0)
            run.seconds = (self.cache.clock() - began_us) / 1e6
            run.ended_unix_s = self.cache.wall_s()
            self._note(run)
            return run

    async def _ask_on(self, pending: list[Ask], run: Run) -> None:
        while pending and not self._closing:
            await self._stand_aside()
            if pending:
                ask = pending.pop()
                asked = await self.ask(ask)
                self._count(run, ask, asked)

    async def ask(self, ask: Ask, *, margin_us: int = 0) -> Asked:
        """One request; what is fresh for longer than `margin_us` stays as it is."""
        app = self.app
        assert app is not None  # noqa: S101 - known before an app can have started
        asked = await ask_app(
            app, ask, state=self._state, timeout_s=self._request_s, margin_us=margin_us
        )
        assert asked.outcome is not None  # noqa: S101 - ask_app sets it
        self.figures.outcomes[asked.outcome] += 1
        return asked

    async def _stand_aside(self) -> None:
        """Wait while clients keep the app busy."""
        while self.is_busy() and not self._closing:
            await anyio.sleep(PAUSE_S)
            self.figures.paused_s += PAUSE_S

    def _count(self, run: Run, ask: Ask, asked: Asked) -> None:
        assert asked.outcome is not None  # noqa: S101 - as above
        run.count(asked.outcome)
        if asked.outcome in {"warmed", "fresh"} and asked.primary:
            if len(self._warmed) < self._asks_max or asked.primary in self._warmed:
                self._warmed.setdefault(asked.primary, set()).add(ask)
        elif len(run.problems) < PROBLEMS_TOLD_MAX:
            run.problems.append(f"{ask.url}: {asked.outcome}, {asked.why}")

    def _note(self, run: Run) -> None:
        figures = self.figures
        figures.last = run
        figures.runs += 1
        figures.seconds += run.seconds
        figures.left += run.left
        tell = logger.warning if run.failed or run.unstored or run.problems else logger.info
        tell(
            "warming (%s): %d of %d warmed, %d fresh already, %d not stored, %d failed, %d left, "
            "in %.2f s%s",
            run.cause, run.warmed, run.planned, run.fresh, run.unstored, run.failed, run.left,
            run.seconds, "".join(f"; {problem}" for problem in run.problems),
        )  # fmt: skip

    # --- what to ask ----------------------------------------------------------------------------

    async def _everything(self, run: Run) -> list[Iterable[Ask]]:
        sources: list[Iterable[Ask]] = [self._asks, await self._of_functions(run)]
        if self._hottest is not None and run.cause != "interval":
            sources.append(await self._hottest.load())
        return sources

    async def _of_functions(self, run: Run) -> list[Ask]:
        """What the app's functions name; one that fails is told, the others count."""
        asks: list[Ask] = []
        for function in tuple(self.cache.warmer.functions):
            try:
                async for url in urls_of(function):
                    asks += [ask_of(url, fields, base=self._base) for fields in self._variants]
                    if len(asks) > self._asks_max:
                        break
            except Exception as error:  # noqa: BLE001 - the app's own function
                run.planned += 1
                run.count("failed")
                self.figures.outcomes["failed"] += 1
                name = getattr(function, "__qualname__", repr(function))
                run.problems.append(f"{name}: {type(error).__name__}: {error}"[:300])
        return asks


async def _these(asks: Iterable[Ask], _run: Run) -> list[Iterable[Ask]]:
    return [asks]

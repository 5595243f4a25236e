"""Runs of warming: at the start, from time to time, after purges; always behind clients.

    started -> first run ----.--> every `interval_s` -> run
       |                     '--> purge of what was warmed -> quiet -> run of that
       '-- readiness waits for the first run, at most `wait_s`

A failure is counted and told, one line for each run; no run and no start fails by it.
"""

from __future__ import annotations

import logging
import random
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from perf_middleware.caching.warming.figures import Run, WarmingFigures
from perf_middleware.caching.warming.plan import spread_s
from perf_middleware.caching.warming.runtime.asking import ask_app
from perf_middleware.caching.warming.runtime.hot import Hot
from perf_middleware.caching.warming.runtime.purged import Purged
from perf_middleware.caching.warming.runtime.rounds import Round

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from perf_middleware.asgi import ASGIApp
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.warming.asked import Asked
    from perf_middleware.caching.warming.figures import Cause
    from perf_middleware.caching.warming.plan import Ask, Base, Fields
    from perf_middleware.caching.warming.runtime.ports import Hottest, Renewals, Turn
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.caching")

TURN_EVERY_S: Final = 5.0  # a third of what it is taken for
SAVE_S: Final = 60.0
PAUSE_S: Final = 0.25  # between looks at whether clients still keep the app busy
STOP_S: Final = 1.0  # what is under way is cancelled; a thread of the app's cannot be
LOOK_S: Final = 10.0  # from look to look at who is hot
LOOK_SHARE: Final = 0.002  # of the time at most: 50,000 responses take 0.15 s to look at
NO_FIELDS: Final[tuple[Fields, ...]] = ((),)


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
        renewals: Renewals | None = None,
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
        self._concurrency = concurrency
        self._asks_max = asks_max
        self.is_busy = is_busy
        self._draw = draw
        self._refresh_hottest = refresh_hottest
        self.hot = Hot(cache, keys_max=max(1, refresh_hottest, remember), ahead_s=refresh_ahead_s)
        self._remember = remember
        self._hottest = hottest
        self._turn = turn
        self._renewals = renewals
        self._is_mine = True
        self._state: Mapping[str, Any] = {}
        self._purged: Purged | None = None
        if after_purge_s is not None:
            self._purged = Purged(keys_max=asks_max, quiet_s=after_purge_s)
        self._background: Background | None = None
        self._closing = False
        self._scopes: set[anyio.CancelScope] = set()  # of what is under way
        self._hears_purges = False

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
        self._turn_came = anyio.Event()
        self._nothing_under_way = anyio.Event()
        self._threads: dict[int, anyio.CapacityLimiter] = {}  # by id: not all that is called hashes

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
        if self._purged is not None:
            self._purged.begin()
            if not self._hears_purges:
                self._hears_purges = True
                self.cache.on("invalidate", self._purged.note_purge)
            background.start("warming after purges", partial(self._follow, self._purged))
        if self._wait_s and self._is_mine:
            with anyio.move_on_after(self._wait_s) as waiting:
                await first_run.wait()
            if waiting.cancelled_caught:
                logger.info("warming goes on behind the start, which has waited for its %g s",
                            self._wait_s)  # fmt: skip

    async def stop(self) -> None:
        """The server stops, the app is still whole: what is asked of it ends, and nothing more is.

        Its own end, which comes next, finds no request of warming's in the middle of its work.
        """
        self._closing = True
        for scope in self._scopes:
            scope.cancel()
        if self._scopes:
            with anyio.move_on_after(STOP_S):
                await self._nothing_under_way.wait()

    async def close(self) -> None:
        """Keep what was asked for most; what still runs is cancelled after every resource."""
        self._closing = True
        if self._background is None:
            return
        self._background = None
        if self._purged is not None:
            self._purged.end()
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
                    await self._run_all(cause)
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

    async def _follow(self, purged: Purged) -> None:
        while not self._closing:
            asks = await purged.gathered()
            if self._is_mine:
                await self._run("purge", asks)

    async def _hold_turn(self, turn: Turn) -> None:
        while True:
            await anyio.sleep(TURN_EVERY_S)
            if self._closing:
                return  # it may have been given back
            if await self._take_turn(turn):
                self._turn_came.set()

    async def _take_turn(self, turn: Turn) -> bool:
        """Ask whose turn it is; whether it is this process's, and was not before."""
        was_mine, self._is_mine = self._is_mine, await turn.take()
        return self._is_mine and not was_mine

    async def _save(self, hottest: Hottest) -> None:
        asks = self.hot.asks()[: self._remember]
        if asks:  # a quiet night, or a start that fails again and again, makes nothing forgotten
            await hottest.save(asks, forget=self._is_mine)

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
        with self._under_way(inf):
            async with anyio.create_task_group() as tasks:
                for _ in range(min(self._concurrency, len(pending))):
                    tasks.start_soon(self._refresh_on, pending)
        return self.figures.refreshed - before

    async def _refresh_on(self, pending: list[tuple[bytes, Ask]]) -> None:
        while pending and not self.is_busy() and not self._closing:
            key, ask = pending.pop()
            if self._renewals is not None and not await self._renewals.take(key):
                continue  # another process asks the app for it just now
            await anyio.lowlevel.checkpoint()  # an app that waits for nothing gives nobody a turn
            asked = await self.ask(ask, margin_us=self.hot.margin_us(key))
            if self._renewals is not None:
                await self._renewals.give_back(key)
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
        return await self._run_all("request")

    async def _run_all(self, cause: Cause) -> Run:
        functions = [
            (each, self._threads.setdefault(id(each), anyio.CapacityLimiter(1)))
            for each in self.cache.warmer.functions
        ]
        hottest = self._recalled if self._hottest is not None and cause != "interval" else None
        return await self._run(cause, self._asks, functions, hottest)

    async def _run(
        self,
        cause: Cause,
        asks: Iterable[Ask],
        functions: Sequence[tuple[Callable[[], Any], anyio.CapacityLimiter]] = (),
        hottest: Callable[[], Awaitable[Iterable[Ask]]] | None = None,
    ) -> Run:
        """One run at a time; it takes `run_s` at most, and raises nothing of the app's."""
        async with self._one_run:
            run = Run(cause)
            began_us = self.cache.clock()
            at_work = Round(
                run,
                ask=partial(self._ask_in, run),
                stand_aside=self._stand_aside,
                # By another's turn it is warmed there: two would ask for the same.
                goes_on=lambda: not self._closing and (self._is_mine or cause == "request"),
                base=self._base,
                variants=self._variants,
                asks_max=self._asks_max,
            )
            with self._under_way(self._run_s):
                if not self._closing:
                    await at_work.ask_for(asks, functions, hottest, concurrency=self._concurrency)
            run.planned = at_work.planned
            self.figures.outcomes["failed"] += at_work.failures
            run.left = run.planned - run.warmed - run.fresh - run.unstored - run.failed
            run.seconds = (self.cache.clock() - began_us) / 1e6
            run.ended_unix_s = self.cache.wall_s()
            self._note(run)
            return run

    @contextmanager
    def _under_way(self, seconds: float) -> Iterator[None]:
        """For so long at most, and no longer than until the server stops."""
        with anyio.move_on_after(seconds) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
                if self._closing and not self._scopes:
                    self._nothing_under_way.set()

    async def _ask_in(self, run: Run, ask: Ask) -> None:
        self._count(run, ask, await self.ask(ask))

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
        if asked.outcome not in {"warmed", "fresh"}:
            run.tell(f"{ask.url}: {asked.outcome}, {asked.why}")
        if self._purged is not None:
            if asked.was_overtaken:
                self._purged.note_overtaken(ask)
            elif asked.outcome in {"warmed", "fresh"} and asked.primary:
                self._purged.note_warmed(asked.primary, ask)

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

    async def _recalled(self) -> list[Ask]:
        """The last run's hottest, without what says by now who asks."""
        assert self._hottest is not None  # noqa: S101 - asked for only then
        credentials = self.cache.options.credentials
        return [
            ask
            for ask in await self._hottest.load()
            if not any(name in credentials for name, _ in ask.fields)
        ]

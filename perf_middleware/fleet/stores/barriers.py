"""Waiting until all others have heard: one question at a time, for as many callers as there are.

caller ---.                    .-- caller      those who come while a question is open share
caller ----+-- question 1     +-- caller       the next one: theirs may be younger than what
              |<-- open -->|  question 2       the open one names
"""

from __future__ import annotations

import asyncio
import logging
import os
from bisect import bisect_left
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.families import (
    NO_LABELS,
    Distribution,
    Family,
    LabelSet,
    Value,
    counter,
    gauge,
)
from perf_middleware.fleet.hearing import RESOLUTION_US, out_at_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perf_middleware.clock import Clock
    from perf_middleware.fleet.stores.listeners import Listeners

logger = logging.getLogger("perf_middleware.redis")

LOOK_AGAIN_S: Final = 0.02  # whether Redis is back
# Beyond the leases: who was without a processor has its link by then, and what this process had
# announced is purged by others (announcing.KEPT_MS).
BACK_US: Final = 5_000_000
BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Barriers:
    """`is_ready()` says whether all that is to be told was told, and more can be."""

    def __init__(
        self,
        listeners: Listeners,
        *,
        lease_s: float,
        clock: Clock,
        is_ready: Callable[[], bool],
    ) -> None:
        self._listeners = listeners
        self._lease_us = round(lease_s * 1e6)
        self._clock = clock
        self._is_ready = is_ready
        self._next: asyncio.Future[bool] | None = None
        self._running: asyncio.Task[None] | None = None
        self._token = b""
        self._answered: set[bytes] = set()
        self._left: set[bytes] = set()
        self._came: asyncio.Event | None = None
        self._away_since_us: int | None = clock()
        self.results = {"heard": 0, "unknown": 0}
        self.waited_out = 0
        """Leases that were waited for to end."""
        self._took = [0] * (len(BOUNDS_S) + 1)
        self._took_s = 0.0

    # --- what comes -----------------------------------------------------------------------------

    def begin(self) -> None:
        """It is being connected for the first time; since when Redis is away nobody knows."""
        self._away_since_us = self._clock()

    def connected(self) -> None:
        self._away_since_us = None

    def lose(self) -> None:
        if self._away_since_us is None:
            self._away_since_us = self._clock()

    def hear(self, token: bytes, listener: bytes) -> None:
        """An answer of one."""
        if token == self._token:
            self._answered.add(listener)
            if self._came is not None:
                self._came.set()

    def hear_left(self, listener: bytes) -> None:
        """It answers nothing out of memory any more, and nobody has to wait for it."""
        self.hear(self._token, listener)

    # --- waiting --------------------------------------------------------------------------------

    async def passed(self) -> bool:
        """Whether all others are known to have heard what was told before this call."""
        loop = asyncio.get_running_loop()
        if self._running is not None and self._running.get_loop() is not loop:
            self._running = self._next = None  # left behind by a loop that was closed under it
        if self._next is None:
            self._next = loop.create_future()
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="perf_middleware: purges heard")
        return await asyncio.shield(self._next)  # others wait for it too

    async def end(self) -> None:
        """Whoever waits is told that it is not known."""
        running = self._running
        if running is not None and running.get_loop() is asyncio.get_running_loop():
            running.cancel()
            await asyncio.wait([running])

    async def _run(self) -> None:
        mine: asyncio.Future[bool] | None = None
        try:
            while self._next is not None:
                mine, self._next = self._next, None
                began_us = self._clock()
                try:
                    is_heard = await self._pass()
                except Exception:
                    logger.exception("it is not known whether all have heard of a purge")
                    is_heard = False
                self._note((self._clock() - began_us) / 1e6, is_heard)
                if not mine.done():
                    mine.set_result(is_heard)
        finally:
            self._running = None
            for waiting in (mine, self._next):
                if waiting is not None and not waiting.done():
                    waiting.set_result(False)
            self._next = None

    async def _pass(self) -> bool:
        began_us = self._clock()
        while True:
            if self._is_ready():
                with suppress(StoreUnavailableError, StoreRefusedError):
                    await self._ask_all()
                    return True
            # Whoever could renew its lease until then has lost it, if it is Redis that is away.  If
            # it is only this process that cannot reach it, all others go on: time to come back.
            since_us = began_us if self._away_since_us is None else self._away_since_us
            left_us = since_us + self._lease_us + RESOLUTION_US + BACK_US - self._clock()
            if left_us <= 0:
                return False
            await asyncio.sleep(min(left_us / 1e6, LOOK_AGAIN_S))

    async def _ask_all(self) -> None:
        """Returns when all have answered or are out."""
        came = self._came = asyncio.Event()
        self._answered.clear()
        try:
            await self._listeners.take_part()
            self._token = os.urandom(8).hex().encode()
            asked = await self._listeners.ask(self._token)
            read_us = self._clock()
            out_us = {
                name: out_at_us(read_us, until_ms=until_ms, now_ms=asked.now_ms)
                for name, until_ms in asked.others.items()
            }
            # Who listened before the set was lost is not in it, and has its lease still.
            known_ms = asked.since_ms + self._lease_us // 1_000
            known_us = out_at_us(read_us, until_ms=known_ms, now_ms=asked.now_ms)
            if known_ms > asked.now_ms:
                await asyncio.sleep((known_us - read_us) / 1e6)
            while missing := out_us.keys() - self._answered:
                left_us = max(out_us[name] for name in missing) - self._clock()
                if left_us <= 0:
                    self.waited_out += len(missing)
                    return
                came.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(left_us / 1e6):
                        await came.wait()
        finally:
            self._token, self._came = b"", None

    # --- what operators see ---------------------------------------------------------------------

    def _note(self, seconds: float, is_heard: bool) -> None:
        self.results["heard" if is_heard else "unknown"] += 1
        self._took[bisect_left(BOUNDS_S, seconds)] += 1
        self._took_s += seconds

    def families(self) -> Iterator[Family]:
        yield counter(
            "perf_redis_barriers", "Times that all others were asked whether they have heard.",
            tuple(Value(LabelSet([("result", name)]), n) for name, n in self.results.items()),
        )  # fmt: skip
        yield Family(
            name="perf_redis_barrier_seconds", kind="histogram", unit="seconds", bounds=BOUNDS_S,
            help="How long it took until they had.",
            points=(Distribution(NO_LABELS, tuple(accumulate(self._took)), self._took_s),),
        )  # fmt: skip
        yield counter(
            "perf_redis_leases_waited_out", "Processes that answered nothing until their leases "
            "were over.", (Value(NO_LABELS, self.waited_out),),
        )  # fmt: skip
        yield gauge(
            "perf_redis_listeners", "Other processes that a purge of this one waits for.",
            (Value(NO_LABELS, self._listeners.count),), across="max",
        )  # fmt: skip

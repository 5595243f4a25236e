"""The announced writes of a namespace in Redis: this process's own, and those that are overdue.

{app:fleet:0}w   stage, name and tags -> the server's ms until which it is kept; stage 0 as it was
                 announced, 1 once it was purged in its writer's place
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.families import NO_LABELS, Value, counter
from perf_middleware.fleet.announcing import (
    AGAIN,
    AGAIN_MS,
    FIRST,
    GOOD_FOR_US,
    KEPT_MS,
    NAME_BYTES,
    OPEN_MAX,
    OPEN_US_MAX,
    RENEWALS,
    Announced,
    kept_until_ms,
    tags_in,
    token_of,
)
from perf_middleware.fleet.drivers.port import STORE
from perf_middleware.fleet.stores.script import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.fleet.announcing import Overdue
    from perf_middleware.fleet.drivers.port import Link

_ANNOUNCE, _SETTLE = map(Script, ("announce", "settle"))
AWAY = (StoreUnavailableError, StoreRefusedError)


class Announcements:
    """`all_tags` name all that is ever announced.  `is_ready()` says whether all that is to be told
    was told, and more can be.
    """

    def __init__(
        self,
        link: Callable[[], Link],
        *,
        namespace: str,
        clock: Clock,
        is_ready: Callable[[], bool],
    ) -> None:
        self._link = link
        self.key = b"{%s:fleet:0}w" % namespace.encode()
        self._clock = clock
        self._is_ready = is_ready
        self._open: dict[bytes, int] = {}
        self._server_ms = self._read_us = 0
        self.all_tags: tuple[str, ...] = ()
        self.purged_for_others = 0

    async def announce(self, tags: Iterable[str]) -> Announced:
        """To be awaited before COMMIT; raises StoreUnavailableError and StoreRefusedError.

        Whoever is cancelled in it has announced nothing, or what others will purge.
        """
        if len(self._open) >= OPEN_MAX:
            raise StoreRefusedError(STORE, f"{OPEN_MAX} announced writes are open")
        token = token_of(os.urandom(NAME_BYTES), tags, all_tags=self.all_tags)
        asked_us = self._clock()
        self._read(await self._link().run(_ANNOUNCE, (self.key,), (KEPT_MS, 0, FIRST + token)))
        self._open[token] = asked_us
        return Announced(token, asked_us + GOOD_FOR_US)

    async def lift(self, announced: Collection[Announced]) -> None:
        """What they name is purged, or was never committed.  While that is owed only, others do it
        in time.
        """
        for one in announced:
            self._open.pop(one.token, None)
        if self._is_ready():
            members = (stage + one.token for one in announced for stage in (FIRST, AGAIN))
            with suppress(*AWAY):
                await self._link().command("ZREM", self.key, *members)

    def let_go(self, announced: Announced) -> None:
        """Nobody knows what becomes of it: it is purged when it is overdue; from any thread."""
        self._open.pop(announced.token, None)

    async def run(self) -> None:
        """Keep what is open, until cancelled."""
        every_us = KEPT_MS * 1_000 // RENEWALS
        while True:
            await asyncio.sleep(every_us / 1e6)
            now_us = self._clock()
            for token, since_us in list(self._open.items()):
                if now_us - since_us > OPEN_US_MAX:
                    self._open.pop(token, None)
            opened = list(self._open.items())
            due = [FIRST + token for token, since_us in opened if now_us - since_us >= every_us]
            if due and self._link().is_up:
                with suppress(*AWAY):
                    await self._renew(due)

    async def _renew(self, members: list[bytes]) -> None:
        until_ms = kept_until_ms(self._server_ms, read_us=self._read_us, now_us=self._clock())
        self._read(
            await self._link().run(_ANNOUNCE, (self.key,), (KEPT_MS, until_ms, *members))
        )  # fmt: skip

    def _read(self, server_ms: int) -> None:
        self._server_ms, self._read_us = server_ms, self._clock()

    # --- in the place of others -------------------------------------------------------------------

    def tags_of(self, overdue: Overdue) -> frozenset[str]:
        """All that these name."""
        several = (tags_in(member, all_tags=self.all_tags) for member, _ in overdue)
        return frozenset[str]().union(*several)

    async def settle(self, overdue: Overdue) -> None:
        """What these name is purged; raises as `announce`, also where that is owed only."""
        if not self._is_ready():
            raise StoreUnavailableError(STORE, "what was purged could not be told yet")
        words = (word for one in overdue for word in one)
        self.purged_for_others += await self._link().run(_SETTLE, (self.key,), (AGAIN_MS, *words))

    def families(self) -> Iterator[Family]:
        yield counter(
            "perf_redis_announced_purged", "Announced writes that were purged in the place of "
            "their writer: it was killed, stopped, or cut off.",
            (Value(NO_LABELS, self.purged_for_others),),
        )  # fmt: skip

"""One call of the app for all processes: leases on what is missing, and waiting for each other's.

A lease runs out by itself, soon after its holder has died; a living one holds it on, but not beyond
its own bound.  Who waits is told when it is given back, and looks again.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Final

from perf_middleware.errors import StoreRefusedError, StoreUnavailableError

if TYPE_CHECKING:
    from perf_middleware.fleet.stores.outbox import Outbox
    from perf_middleware.fleet.stores.records import Records

LEASE_MS: Final = 1_500  # nobody waits longer for a holder that has died
HELD_EVERY_S: Final = 0.5
SLACK_S: Final = 0.05  # behind the end of a lease: clocks of two machines
LANDED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to make one response, for all processes, while it is held."""

    place: bytes
    key: bytes
    token: bytes
    until_s: float


class Leases:
    """The leases that this process holds, and those that it waits for."""

    def __init__(self, records: Records, outbox: Outbox) -> None:
        self._records = records
        self._outbox = outbox
        self._held: dict[bytes, Lease] = {}
        self._landings: dict[bytes, asyncio.Event] = {}
        self._landed: dict[bytes, float] = {}
        self._process = os.urandom(8).hex().encode()
        self._numbers = count()
        self.waited = 0
        records.on_landed = self._hear_of_landing

    def __len__(self) -> int:
        return len(self._held)

    def token(self) -> bytes:
        """A new one, of a fixed length."""
        return b"%b%012x" % (self._process, next(self._numbers))

    def held(self, place: bytes, key: bytes, token: bytes, *, seconds: float) -> Lease:
        """A lease that this process was given, to be held for at most so long."""
        lease = self._held[token] = Lease(place, key, token, monotonic() + seconds)
        return lease

    def over(self, lease: Lease) -> None:
        """Give it back, behind what was stored under it."""
        if self._held.pop(lease.token, None) is None:
            return

        async def release() -> None:
            await self._records.release(lease.place, lease.key, lease.token, landed=lease.key)

        self._outbox.put(release)

    async def wait(self, key: bytes, *, asked_s: float, seconds: float) -> None:
        """Until the lease on `key` is given back, at most `seconds`.

        `asked_s` is when it was asked for: it may be back already.
        """
        if self._landed.get(key, 0.0) >= asked_s:
            return
        self.waited += 1
        landing = self._landings.setdefault(key, asyncio.Event())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await landing.wait()
        finally:
            if self._landings.get(key) is landing:
                del self._landings[key]
                landing.set()  # others wait for the same: they look again with this one

    def let_go(self) -> None:
        """Nobody can be told any more: whoever waits goes on."""
        landings, self._landings = self._landings, {}
        for landing in landings.values():
            landing.set()

    def _hear_of_landing(self, key: bytes) -> None:
        if len(self._landed) >= LANDED_MAX:
            self._landed.clear()
        self._landed[key] = monotonic()
        landing = self._landings.pop(key, None)
        if landing is not None:
            landing.set()

    async def run(self) -> None:
        """Hold on what is held, until cancelled."""
        while True:
            await asyncio.sleep(HELD_EVERY_S)
            now_s = monotonic()
            for token, lease in list(self._held.items()):
                if lease.until_s <= now_s:
                    self._held.pop(token, None)  # it runs out by itself
                    continue
                try:
                    await self._records.hold(lease.place, lease.key, token, lease_ms=LEASE_MS)
                except (StoreUnavailableError, StoreRefusedError):
                    break

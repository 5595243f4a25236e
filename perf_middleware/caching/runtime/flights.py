"""One call of the app for many requests of one key: who leads, who waits, how they are released.

A flight is open from the leader's look-up until its answer is stored or known not to be storable.
Nobody waits longer than a bound, and nobody but the leader depends on the leader's client.

For most nobody ever waits: who leads `alone` leaves no more than the scope of its request, of which
a flight is made when somebody asks for it.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Final, Literal

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from perf_middleware.asgi import Scope
    from perf_middleware.caching.stores.shared.leases import Lease

Outcome: TypeAlias = "Literal['stored', 'unstorable', 'failed', 'gone', 'late', 'full']"

# failed: the app did; gone: the leader is, without an answer that would say anything
ATTEMPTS_MAX: Final = 2  # leaders that a request waits for before it goes alone


class Flight:
    """The open call of the app for one key."""

    __slots__ = ("_landed", "key", "lease", "on_alone", "outcome", "scope", "waiting")

    def __init__(self, key: bytes, scope: Scope) -> None:
        self.key = key
        self.scope = scope
        self.outcome: Outcome | None = None
        self.waiting = 0
        self._landed: anyio.Event | None = None
        self.lease: Lease | None = None
        """That no other process makes the same meanwhile."""
        self.on_alone: Callable[[], None] | None = None
        """Called when nobody waits for it any more."""

    def land(self, outcome: Outcome) -> None:
        """Release everybody who waits; the first outcome counts."""
        if self.outcome is None:
            self.outcome = outcome
            if self._landed is not None:
                self._landed.set()
            if self.on_alone is not None:
                self.on_alone()

    async def landed(self) -> None:
        """Wait until there is an outcome."""
        if self.outcome is not None:
            return
        if self._landed is None:
            self._landed = anyio.Event()
        await self._landed.wait()


class Flights:
    """The open flights of one cache, at most `waiting_max` requests waiting for all of them.

    Nobody waits for a leader in another event loop, which cannot wake him: several run at once
    where an app's tests ask it from threads.
    """

    def __init__(self, *, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self.open: dict[bytes, Flight | Scope] = {}
        self.waiting = 0
        self._home = get_ident()
        self._away: dict[bytes, int] = {}  # of those led elsewhere, where; one loop a thread
        self.on_lease_over: Callable[[Lease], None] | None = None

    def lead(self, key: bytes, scope: Scope) -> Flight | None:
        """A new flight of the request with this scope, or None where one is open."""
        if not self.lead_alone(key, scope):
            return None
        flight = self.open[key] = Flight(key, scope)
        return flight

    def is_led_here(self, key: bytes) -> bool:
        """Whether who leads `key` runs in this event loop."""
        return self._away.get(key, self._home) == get_ident()

    def lead_alone(self, key: bytes, scope: Scope) -> bool:
        """The same without a flight; False where one is open.  To be ended by `land_alone`."""
        if key in self.open:
            return False
        thread = get_ident()
        if thread != self._home:
            self._away[key] = thread
        self.open[key] = scope
        return True

    def land_alone(self, key: bytes, scope: Scope, outcome: Outcome) -> None:
        """Close what the request with this scope has opened, and release who came to wait."""
        if self.open.get(key) is scope:
            self._close(key)
        else:
            flight = self.flight_of(key, scope)
            if flight is not None:
                self.land(flight, outcome)

    def leader_of(self, key: bytes) -> Scope | None:
        """The scope of the request that leads `key`."""
        found = self.open.get(key)
        return found.scope if isinstance(found, Flight) else found

    def flight_of(self, key: bytes, scope: Scope | None = None) -> Flight | None:
        """The open flight of `key`, which is led here; of the request with this `scope` alone,
        where one is given.
        """
        found = self.open.get(key)
        if found is None:
            return None
        if isinstance(found, Flight):
            return found if scope is None or found.scope is scope else None
        if scope is not None and found is not scope:
            return None
        flight = self.open[key] = Flight(key, found)
        return flight

    def land(self, flight: Flight, outcome: Outcome) -> None:
        """Close `flight`; closing twice does nothing."""
        if self.open.get(flight.key) is flight:
            self._close(flight.key)
        flight.land(outcome)
        if flight.lease is not None and self.on_lease_over is not None:
            self.on_lease_over(flight.lease)
            flight.lease = None

    def _close(self, key: bytes) -> None:
        del self.open[key]
        if self._away:
            self._away.pop(key, None)

    async def follow(self, flight: Flight, *, until_s: float) -> Outcome:
        """Wait for the outcome, at most until `until_s` on anyio's clock."""
        if self.waiting >= self._waiting_max:
            return "full"
        self.waiting += 1
        flight.waiting += 1
        try:
            with anyio.CancelScope(deadline=until_s):
                await flight.landed()
        finally:
            self.waiting -= 1
            flight.waiting -= 1
            if not flight.waiting and flight.on_alone is not None:
                flight.on_alone()
        return flight.outcome or "late"

"""Values in memory, and behind it in Redis: what one process has made, all have.

Memory is let go of first, then Redis is told, which tells the others; then memory once more, for
what came back meanwhile.  While Redis is away memory goes on, and what was forgotten is kept to be
made up for before Redis is used again.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import ormsgpack

from perf_middleware.caching.purges import PurgeLog
from perf_middleware.caching.values.kept import NEVER_US, Kept, Terms
from perf_middleware.caching.values.patterns import matcher
from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.fleet.layout import bytes_of, text_of
from perf_middleware.fleet.stores.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perf_middleware.caching.values.decorators.flights import Flights
    from perf_middleware.caching.values.stores.memory import MemoryStore
    from perf_middleware.caching.values.stores.redis import RedisStore
    from perf_middleware.clock import Clock
    from perf_middleware.fleet.layout import Seen

logger = logging.getLogger("perf_middleware.caching")

Forgetting: TypeAlias = "tuple[Literal['keys', 'tags', 'pattern'], Any]"
AWAY: Final = (StoreUnavailableError, StoreRefusedError)
OUTBOX_BYTES_MAX: Final = 1 << 20
LOOKS_MAX: Final = 3
MADE_UP_EVERY_S: Final = 0.5
PENDING_MAX: Final = 500  # more are one of everything


class TieredStore:
    """`memory` before `far`; `flights` are the runs that a message of others may spoil."""

    def __init__(
        self, memory: MemoryStore, far: RedisStore, flights: Flights, *, clock: Clock
    ) -> None:
        if far.records.is_heard:
            raise RuntimeError("another value cache shares its values over this link already")
        self._memory = memory
        self._far = far
        self._flights = flights
        self._clock = clock
        self._log = PurgeLog()
        self._outbox = Outbox(bytes_max=OUTBOX_BYTES_MAX)
        self._pending: list[Forgetting] = []
        far.records.on_message = self._hear
        far.records.on_gap = self._missed_some
        far.fleet.before_use(self._catch_up)
        far.fleet.when_owed(lambda: len(self._pending))
        far.fleet.at_end(self._tell_owed)
        far.fleet.while_kept(self._outbox.run)
        far.fleet.while_kept(self._make_up)

    @property
    def memory(self) -> MemoryStore:
        return self._memory

    @property
    def pending(self) -> int:
        """How many purges are to be made up for."""
        return len(self._pending)

    def heard(self) -> Seen:
        return self._far.heard()

    # --- the port -----------------------------------------------------------------------------

    async def get(self, key: str) -> Kept | None:
        return (await self.get_many([key])).get(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Kept]:
        found, missing = {}, []
        now_us = self._clock()
        for key in dict.fromkeys(keys):
            kept = self._memory.find(key)
            if kept is not None and now_us < kept.fresh_until_us:
                found[key] = kept
            else:
                missing.append(key)
        if missing:
            found |= await self._from_far(missing)
            for key in missing:
                stale = self._memory.find(key) if key not in found else None
                if stale is not None:
                    found[key] = stale
        return found

    async def _from_far(self, keys: Sequence[str]) -> dict[str, Kept]:
        """What was purged while it was on its way is looked for anew: it may be newer than that."""
        found: dict[str, Kept] = {}
        for _ in range(LOOKS_MAX):
            seen = self._log.newest
            try:
                farther = await self._far.get_many(keys)
            except AWAY:
                return found
            concerned = []
            for key, kept in farther.items():
                if self._log.since(seen, bytes_of(key), kept.tags):
                    concerned.append(key)
                else:
                    found[key] = self._taken(key, kept)
            if not concerned:
                return found
            keys = concerned
        # Newer than the last but one that was heard, and for this one caller.
        return found | {key: farther[key] for key in keys}

    async def put(self, key: str, value: Any, terms: Terms) -> bool:
        content = self._far.sealed(key, value, terms)  # what fails does so before anything changes
        self._log.note(_named(key))  # a look-up that is on its way brings what was before
        # Where others have told something since it was begun, and tags may have come with the
        # value, Redis is asked first: what it refuses must not be found meanwhile.
        is_late = terms.heard is not None and terms.heard != self.heard()
        kept = None if is_late else self._memory.keep(key, value, terms)
        seen = self._log.newest
        try:
            if await self._far.put_sealed(key, content, terms):
                if is_late and not self._log.since(seen, bytes_of(key), terms.tags):
                    self._memory.keep(key, value, terms)
                return True
        except AWAY:
            await self._not_stored(terms, (key,))
            return kept is not None
        self._memory.forget((key,))  # a purge elsewhere came before it
        return False

    async def put_many(self, values: Mapping[str, Any], terms: Terms) -> int:
        contents = {key: self._far.sealed(key, value, terms) for key, value in values.items()}
        for key in values:
            self._log.note(_named(key))
        kept = await self._memory.put_many(values, terms)
        try:
            return max(kept, await self._far.put_many_sealed(contents, terms))
        except AWAY:
            await self._not_stored(terms, tuple(values))
            return kept

    async def exists(self, key: str) -> bool:
        if await self._memory.exists(key):
            return True
        try:
            return await self._far.exists(key)
        except AWAY:
            return False

    async def drop(self, keys: Sequence[str]) -> int:
        return await self._forget(("keys", tuple(keys)))

    async def purge(self, tags: Sequence[str]) -> int:
        return await self._forget(("tags", tuple(tags)))

    async def clear(self, pattern: str | None) -> int:
        return await self._forget(("pattern", pattern))

    async def increase(self, key: str, amount: int, *, ttl_us: int | None) -> int:
        """Raises StoreUnavailableError while Redis is away: only there is the true number."""
        total = await self._far.increase(key, amount, ttl_us=ttl_us)
        self._log.note(_named(key))
        self._memory.forget((key,))
        return total

    # --- forgetting -----------------------------------------------------------------------------

    async def _forget(self, what: Forgetting) -> int:
        here = self.forget_here(what)
        everywhere = await self._tell(what)
        if everywhere is None:
            return here
        self.forget_here(what)
        return max(here, everywhere)

    async def _tell(self, what: Forgetting) -> int | None:
        """How many there were in Redis; None: that is owed."""
        try:
            return await self._do(what)
        except Exception as error:  # noqa: BLE001 - garbage: whatever comes of it is no answer
            self._owe(what)
            if self._far.records.is_up:
                # What is still there must not be read before it is made up for.
                self._far.records.give_up(f"a purge was not done: {error}")
            return None
        except asyncio.CancelledError:
            self._owe(what)  # begun, and perhaps not whole: whoever asked for it has left
            raise

    def tell_soon(self, what: Forgetting) -> None:
        """As `_forget`, of what was forgotten here already, from any thread and without waiting."""
        self._far.fleet.call_soon(lambda: self._put_out(what))

    def _put_out(self, what: Forgetting) -> None:
        if not self._outbox.put(lambda: self._forget(what)):
            self._owe(what)  # too much at once: it is made up for before Redis is read again
            self._far.records.give_up("too many purges at once")

    def forget_here(self, what: Forgetting) -> int:
        """In memory, and in what is on its way to it."""
        kind, which = what
        memory = self._memory
        if kind == "keys":
            names = frozenset(bytes_of(key) for key in which)
            self._log.note(lambda key, _tags: key in names)
            self._flights.spoil(keys=which)
            return memory.forget(which)
        if kind == "tags":
            tags = frozenset(which)
            self._log.note(lambda _key, own: not tags.isdisjoint(own))
            self._flights.spoil(tags=which)
            return memory.forget(memory.tagged(which))
        matches: Callable[[str], bool] = matcher("*" if which is None else which)
        self._log.note(lambda key, _tags: matches(text_of(key)))
        self._flights.spoil_matching(matches)
        return memory.forget(memory.keys(which))

    async def _do(self, what: Forgetting, *, before_use: bool = False) -> int:
        kind, which = what
        if kind == "keys":
            return await self._far.drop(which, before_use=before_use)
        if kind == "tags":
            return await self._far.purge(which, before_use=before_use)
        if before_use:  # to look for each one would keep a new connection from being used
            await self._far.purge_all(before_use=True)
            self._outbox.put(self._far.records.sweep)
            return 0
        return await self._far.clear(which)

    async def _not_stored(self, terms: Terms, keys: tuple[str, ...]) -> None:
        """What was set by hand is not there: what was there before must not come back."""
        if terms.heard is None:
            await self._tell(("keys", keys))

    def _owe(self, what: Forgetting) -> None:
        if len(self._pending) < PENDING_MAX:
            self._pending.append(what)
        else:
            self._pending[:] = [("pattern", None)]

    def _tell_owed(self) -> None:
        """In the log, what is lost now."""
        if self._pending:
            logger.warning(
                "%d purges could not be made while Redis was away and are lost now: what they were "
                "about may be given again until it expires", len(self._pending),
            )  # fmt: skip

    async def _make_up(self) -> None:
        """Try again what was broken off while Redis was there, until cancelled."""
        while True:
            await asyncio.sleep(MADE_UP_EVERY_S)
            if self._pending and self._far.records.is_up:
                with suppress(*AWAY):
                    await self._catch_up(before_use=False)

    async def _catch_up(self, *, before_use: bool = True) -> None:
        while self._pending:
            what = self._pending[0]
            await self._do(what, before_use=before_use)
            # One of everything may have taken the place of all meanwhile.
            if self._pending and self._pending[0] is what:
                del self._pending[0]

    # --- what other processes tell --------------------------------------------------------------

    def _hear(self, body: bytes) -> None:
        try:
            match ormsgpack.unpackb(body):
                case ["key", bytes() as name]:
                    # Another has a newer value; a run that goes on here may be newer still.
                    self._log.note(_named(text_of(name)))
                    self._memory.forget((text_of(name),))
                case ["gone", bytes() as name]:
                    self.forget_here(("keys", (text_of(name),)))
                case ["tag", bytes() as tag]:
                    self.forget_here(("tags", (text_of(tag),)))
                case ["tags", *names] if all(isinstance(name, bytes) for name in names):
                    self.forget_here(("tags", tuple(map(text_of, names))))
                case ["pattern", bytes() as pattern]:
                    self.forget_here(("pattern", text_of(pattern)))
                case _:
                    self._missed_some()
        except ValueError:
            logger.warning("a purge could not be read, all values in memory go: %r", body[:100])
            self._missed_some()

    def _missed_some(self) -> None:
        self.forget_here(("pattern", None))

    def _taken(self, key: str, kept: Kept) -> Kept:
        """Kept in memory for the time that it has left, if that is any."""
        now_us = self._clock()
        if kept.fresh_until_us == NEVER_US:
            ttl_us: int | None = None
        elif now_us < kept.fresh_until_us:
            ttl_us = kept.fresh_until_us - now_us
        else:
            return kept
        stale_us = 0 if ttl_us is None else kept.ends_us - kept.fresh_until_us
        terms = Terms(ttl_us=ttl_us, stale_us=stale_us, tags=kept.tags, took_us=kept.took_us)
        return self._memory.keep(key, kept.give(), terms) or kept


def _named(key: str) -> Callable[[bytes, Iterable[str]], bool]:
    name = bytes_of(key)
    return lambda other, _tags: other == name

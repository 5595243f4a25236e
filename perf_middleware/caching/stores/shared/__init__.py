"""Stored responses in Redis, behind those in memory: what one process has made, all have.

    request -> memory -> Redis -> the app
                 ^         |
                 '- kept --'   with the time that it has left

Memory answers alone as long as it can; a purge anywhere reaches the memory of every process by a
message (purges.py).  While Redis is away memory goes on, and what is new is not shared.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.invalidation import origin_of
from perf_middleware.caching.packed import left_ms, pack, unpack
from perf_middleware.caching.places import (
    BARE,
    TAG,
    URL,
    AskedBy,
    index_name,
    parts_of,
    place_of,
    record_key,
)
from perf_middleware.caching.stored import US_PER_S, StoredResponse
from perf_middleware.caching.stores.shared.leases import LEASE_MS, SLACK_S, Leases
from perf_middleware.caching.stores.shared.purges import Purge, SharedPurges
from perf_middleware.caching.variants import names_in, united
from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.families import NO_LABELS, LabelSet, Value, counter, gauge
from perf_middleware.fleet.layout import Found, Unnamed, bytes_of, message
from perf_middleware.fleet.stores.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator
    from typing import TypeAlias

    from perf_middleware.caching.fields import Lines
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.flights import Flight
    from perf_middleware.caching.runtime.request import CacheRequest
    from perf_middleware.families import Family
    from perf_middleware.fleet.layout import Seen
    from perf_middleware.fleet.runtime import Fleet
    from perf_middleware.path_patterns import PathPattern

    Asked: TypeAlias = tuple[Awaitable[bytes | None], bytes, bytes, tuple[int, int]]
    """An answer that is on its way; place and key; the last purge and overwrite before it."""

LEFT_FOR_CALL_S: Final = 1.0
LOOKS_MAX: Final = 3  # at what another process is making
BEGUN_S_MAX: Final = 3_000  # purges are remembered for an hour
THREADED_MIN_BYTES: Final = 256 << 10  # a body that would hold the event loop up while it shrinks


class SharedStore:
    """What one cache does with Redis; nothing here raises because Redis does not answer."""

    def __init__(self, fleet: Fleet, cache: ResponseCache, *, queued_bytes_max: int) -> None:
        self._fleet = fleet
        self._cache = cache
        self._records = fleet.records("cache")
        self.outbox = Outbox(bytes_max=queued_bytes_max)
        self.leases = Leases(self._records, self.outbox)
        self.purges = SharedPurges(cache, self._records, self.outbox)
        self.found = 0
        self.missing = 0
        self.unreadable = 0
        self.stored = 0
        self.stored_bytes = 0
        self.outdated = 0
        """Not stored, for a purge had come meanwhile."""
        fleet.before_use(self.purges.catch_up)
        fleet.when_owed(lambda: self.purges.pending)
        fleet.at_end(self.purges.tell_owed)
        fleet.when_lost(self.leases.let_go)
        for job in (self.outbox.run, self.leases.run, self.purges.run, self.purges.make_up):
            fleet.while_kept(job)

    @property
    def is_up(self) -> bool:
        """Whether it is used: not while it holds what was purged here and could not be there."""
        return self._records.is_up and not self.purges.pending

    # --- looking up -----------------------------------------------------------------------------

    def ask(self, request: CacheRequest) -> Asked | None:
        """Begin a look-up, for `look_up` to go on with, so that Redis works while the caller does.

        None where it takes more than one record, or Redis is not used.
        """
        if not self.is_up:
            return None
        records = self._records
        seen = self._cache.purges.newest, self.purges.overwrites
        place = place_of(request.target) if records.shards > 1 else b""
        key = record_key(request.primary)
        try:
            likely = records.likely(place, key)
        except StoreUnavailableError:
            return None
        return None if likely is None else (likely, place, key, seen)

    async def look_up(
        self,
        request: CacheRequest,
        flight: Flight | None,
        *,
        wait_s: float,
        asked: Asked | None = None,
    ) -> StoredResponse | None:
        """The stored response for `request`, kept in memory from now on; None: ask the app.

        Where another process is asking its app for the same, wait for that, at most `wait_s`; else
        `flight` has the lease from now on.
        """
        if asked is None and not self.is_up:
            self._fleet.ensure_kept()
            return None
        began_s = monotonic()
        records = self._records
        try:
            if asked is not None:
                likely, place, key, seen = asked
                found = records.found_in(place, key, await likely)
                if found is not None:
                    return self._taken(found, request, *seen)
            else:
                place = place_of(request.target) if records.shards > 1 else b""
                key = record_key(request.primary)
            return await self._look_further(
                request, flight, place, key,
                wait_s=wait_s, began_s=began_s, was_asked=asked is not None,
            )  # fmt: skip
        except (StoreUnavailableError, StoreRefusedError):
            return None
        except Exception as error:  # noqa: BLE001 - garbage: whatever comes of it is no answer
            records.give_up(f"what it answers makes no sense: {error!r}"[:200])
            return None

    async def _look_further(
        self, request: CacheRequest, flight: Flight | None, place: bytes, key: bytes,
        *, wait_s: float, began_s: float, was_asked: bool,
    ) -> StoredResponse | None:  # fmt: skip
        """What is not simply there: choose among variants, take the lease, wait for another's."""
        token = self.leases.token() if flight is not None and wait_s else b""
        # Those who wait for this request began with it: something is left for its own call.
        until_s = began_s + wait_s - min(wait_s / 2, LEFT_FOR_CALL_S)
        for look in range(1, LOOKS_MAX + 1):
            seen = self._cache.purges.newest, self.purges.overwrites
            asked_s = monotonic()
            found = await self._records.find(
                place, key,
                asking=AskedBy(request),
                lease_ms=LEASE_MS if token else 0, token=token,
                was_asked=was_asked and look == 1,
            )  # fmt: skip
            if isinstance(found, Found):
                return self._taken(found, request, *seen)
            if found is None or flight is None or not token:
                break
            if found.leads:
                seconds = max(wait_s, 1.0)
                flight.lease = self.leases.held(place, found.key, token, seconds=seconds)
                break
            left_s = min(found.lease_left_ms / 1_000 + SLACK_S, until_s - monotonic())
            if left_s <= 0 or look == LOOKS_MAX:
                break
            await self.leases.wait(found.key, asked_s=asked_s, seconds=left_s)
        self.missing += 1
        return None

    def _taken(
        self, found: Found, request: CacheRequest, purges_seen: int, overwrites_seen: int
    ) -> StoredResponse | None:
        cache = self._cache
        now_us = cache.clock()
        stored = unpack(
            found.content,
            primary=request.primary,
            key_of=lambda vary: cache.key_for(request, vary),
            now_us=now_us,
            server_ms=self._records.server_ms(),
            body_bytes_max=cache.options.entry_bytes_max,
        )
        if stored is None:
            self.unreadable += 1
            return None
        if (
            cache.purges.newest != purges_seen
            and cache.purges.since(purges_seen, stored.target, stored.tags)
        ) or (
            self.purges.overwrites != overwrites_seen
            and self.purges.is_overwritten(request.primary, since=overwrites_seen)
        ):
            self.missing += 1
            return None
        if found.is_soft:
            stored.make_stale(now_us)
        known = cache.store.peek(stored.key)
        if isinstance(known, StoredResponse) and not _is_newer(stored, known):
            self.missing += 1
            return None  # what is to be renewed in memory stays the one that is asked about
        self.found += 1
        cache.take_in(stored, now_us)
        return stored

    async def explain(self, request: CacheRequest) -> dict[str, Any]:
        """Whether it is used, and has a response for `request` (None: it gives no answer)."""
        has_it: bool | None = None
        if self.is_up:
            with suppress(StoreUnavailableError, StoreRefusedError):
                found = await self._records.find(
                    place_of(request.target), record_key(request.primary),
                    asking=AskedBy(request),
                )  # fmt: skip
                has_it = isinstance(found, Found)
        return {"up": self.is_up, "stored": has_it}

    # --- storing --------------------------------------------------------------------------------

    def share(self, stored: StoredResponse, lines: Lines, *, purges_seen: int) -> None:
        """Store it for all soon, unless a purge that this process has not heard of concerns it.

        `purges_seen` is the number of the last one when the app was called.
        """
        seen = self._cache.purges.heard_by(purges_seen)
        took_us = self._cache.clock() - stored.stored_us
        if seen is None or not self.is_up or took_us > BEGUN_S_MAX * US_PER_S:
            return

        async def put() -> None:
            await self._put(stored, lines, seen, purges_seen)

        self.outbox.put(put, size_bytes=stored.size_bytes)

    async def _put(
        self, stored: StoredResponse, lines: Lines, seen: Seen, purges_seen: int
    ) -> None:
        ttl_ms = left_ms(stored, self._cache.clock())
        if not ttl_ms:
            return
        stored.identity = os.urandom(8)
        content = await self._packed(stored)
        if self._cache.purges.since(purges_seen, stored.target, stored.tags):
            # The store might not know: it has lost what it held, and counts anew.
            self.outdated += 1
            return
        # With those that another process has seen: without them it would take two round trips.
        own, key = names_in(stored.key, stored.primary), record_key(stored.primary)
        known = self._records.known.names_of(key) or ()
        names: tuple[bytes, ...] | None = united(own, known) or own
        while names is not None:
            parts = parts_of(names, lines)
            if parts is None:
                return
            result = await self._records.put(
                place_of(stored.target), key, content,
                ttl_ms=ttl_ms, indexes=_indexes_of(stored), seen=seen,
                message=message("key", stored.primary), origin=origin_of(stored.target),
                names=names, secondary=b",".join(parts),
            )  # fmt: skip
            if isinstance(result, Unnamed):
                # Another process has seen it vary by more.
                both = united(names, result.names)
                names = None if both == names else both
                continue
            if result:
                self._records.known.learn(key, names)
            self.stored += result
            self.stored_bytes += len(content) * result
            self.outdated += not result
            return

    async def _packed(self, stored: StoredResponse) -> bytes:
        def packed() -> bytes:
            return pack(
                stored, identity=stored.identity,
                now_us=self._cache.clock(), server_ms=self._records.server_ms(),
            )  # fmt: skip

        if len(stored.body) < THREADED_MIN_BYTES:
            return packed()
        return await asyncio.to_thread(packed)

    def forget(self, stored: StoredResponse) -> None:
        """Let go of it for all: the app has shown that it holds no more."""
        if not stored.identity:
            return
        if stored.key != stored.primary:
            # Which of the variants it is there is not known here any more.
            targets = frozenset({(stored.target, False)})
            is_told = self.outbox.put(lambda: self.purges.purge(("targets", targets, False)))
        else:
            is_told = self.outbox.put(
                lambda: self._records.drop(
                    place_of(stored.target), record_key(stored.primary), mark=stored.identity,
                    message=message("key", stored.primary),
                )
            )  # fmt: skip
        if not is_told:
            self.purges.owe(("targets", frozenset({(stored.target, False)}), False))

    # --- purges ---------------------------------------------------------------------------------

    async def purge_targets(self, wanted: Iterable[tuple[bytes, bool]], *, soft: bool) -> int:
        """Targets, and whether of any host; how many there were."""
        return await self._purge(("targets", frozenset(wanted), soft))

    async def purge_tags(self, tags: Iterable[str], *, soft: bool, origin: bytes = b"") -> int:
        """The same by tag, of one origin where it is given."""
        return await self._purge(("tags", (tuple(tags), origin), soft))

    async def purge_pattern(self, pattern: PathPattern, *, soft: bool) -> int:
        return await self._purge(("pattern", pattern, soft))

    async def purge_everything(self, *, soft: bool) -> int:
        """Not counted where it is not soft: they are freed later."""
        return await self._purge(("everything", None, soft))

    async def _purge(self, purge: Purge) -> int:
        if not self.is_up:
            self._fleet.ensure_kept()  # it is made up for when there is a connection
        return await self.purges.purge(purge)

    # --- what operators see ---------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """JSON-able: whether it is used, and what it did."""
        return {
            "up": self.is_up,
            "found": self.found,
            "missing": self.missing,
            "stored": self.stored,
            "purges_pending": self.purges.pending,
        }

    def families(self) -> Iterator[Family]:
        yield counter(
            "perf_cache_shared_lookups", "Look-ups in Redis, by what they brought.",
            tuple(
                Value(LabelSet([("result", name)]), count)
                for name, count in (
                    ("found", self.found), ("missing", self.missing),
                    ("unreadable", self.unreadable),
                )
            ),
        )  # fmt: skip
        yield counter(
            "perf_cache_shared_stores", "Responses for Redis, by what became of them.",
            tuple(
                Value(LabelSet([("result", name)]), count)
                for name, count in (
                    ("stored", self.stored), ("outdated", self.outdated),
                    ("refused", self.outbox.refused), ("dropped", self.outbox.dropped),
                )
            ),
        )  # fmt: skip
        yield counter(
            "perf_cache_shared_bytes", "Bytes stored in Redis.",
            (Value(NO_LABELS, self.stored_bytes),),
        )  # fmt: skip
        yield counter(
            "perf_cache_shared_waits", "Times that another process's answer was waited for.",
            (Value(NO_LABELS, self.leases.waited),),
        )  # fmt: skip
        yield gauge(
            "perf_cache_shared_purges_pending", "Purges to be made up for when Redis is back.",
            (Value(NO_LABELS, self.purges.pending),),
        )  # fmt: skip

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.found = self.missing = self.unreadable = 0
        self.stored = self.stored_bytes = self.outdated = 0
        self.outbox.refused = self.outbox.dropped = self.leases.waited = 0


def _is_newer(stored: StoredResponse, known: StoredResponse) -> bool:
    return stored.identity != known.identity and stored.fresh_until_us > known.fresh_until_us


def _indexes_of(stored: StoredResponse) -> list[bytes]:
    path = stored.path
    names = [index_name(URL, path)]
    if stored.is_of_any_query:
        names.append(index_name(BARE, path))
    names += [index_name(TAG, bytes_of(tag)) for tag in stored.tags]
    return list(dict.fromkeys(names))

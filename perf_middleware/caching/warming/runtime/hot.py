"""The hottest of what is stored: looked at now and then, renewed shortly before they are stale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from perf_middleware.caching.stored import US_PER_S, StoredResponse
from perf_middleware.caching.warming.heat import Heat, is_due
from perf_middleware.caching.warming.replay import replay_of

if TYPE_CHECKING:
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.warming.plan import Ask

AT_ONCE: Final = 500  # responses that are looked at in one go: below a millisecond
PAUSE_US: Final = 60 * US_PER_S  # after an answer that was not stored


class Hot:
    """The `keys_max` hottest of `cache`; those that are due `ahead_s` before their end."""

    def __init__(self, cache: ResponseCache, *, keys_max: int, ahead_s: float = 0.0) -> None:
        self._cache = cache
        self._heat = Heat(keys_max)
        self._keys_max = keys_max
        self.ahead_us = round(ahead_s * US_PER_S)
        self._not_before: dict[bytes, int] = {}

    async def look(self) -> None:
        """Read the hits of all that is stored, in slices: a few milliseconds for 50,000."""
        store = self._cache.store
        readings: list[tuple[bytes, int]] = []
        keys = store.keys()
        for start in range(0, len(keys), AT_ONCE):
            readings += [
                (stored.key, stored.hits) for stored in store.stored(keys[start : start + AT_ONCE])
            ]
            await anyio.lowlevel.checkpoint()
        self._heat.look(readings)

    def asks(self) -> list[tuple[Ask, float]]:
        """What asks for the hottest, with their scores, the hottest first."""
        found = []
        for key, score in self._heat.hottest(self._keys_max):
            stored = self._cache.store.peek(key)
            if isinstance(stored, StoredResponse):
                ask = self._ask_for(stored)
                if ask is not None:
                    found.append((ask, score))
        return found

    def due(self, count: int) -> list[tuple[bytes, Ask]]:
        """Those of the `count` hottest that are to be renewed now."""
        now_us = self._cache.clock()
        found = []
        for key, _ in self._heat.hottest(count):
            stored = self._cache.store.peek(key)
            if (
                isinstance(stored, StoredResponse)
                and not stored.lifetimes.must_validate
                and now_us >= stored.refresh_from_us
                and now_us >= self._not_before.get(key, 0)
                and is_due(
                    now_us=now_us, born_us=stored.born_us,
                    fresh_until_us=stored.fresh_until_us, ahead_us=self.ahead_us,
                )
            ):  # fmt: skip
                ask = self._ask_for(stored)
                if ask is not None:
                    found.append((key, ask))
        return found

    def leave(self, key: bytes) -> None:
        """Nothing came of it: it is not asked for again for a while."""
        if len(self._not_before) >= self._keys_max:
            self._not_before.clear()
        self._not_before[key] = self._cache.clock() + PAUSE_US

    def margin_us(self, key: bytes) -> int:
        """How long it must be fresh for to be left alone: it is due, whatever its clock says."""
        stored = self._cache.store.peek(key)
        if not isinstance(stored, StoredResponse):
            return 0
        return max(0, stored.fresh_until_us - self._cache.clock()) + 1

    def _ask_for(self, stored: StoredResponse) -> Ask | None:
        return replay_of(
            stored, roots=self._cache.roots, credentials=self._cache.options.credentials
        )

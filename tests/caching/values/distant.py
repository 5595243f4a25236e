"""A store outside of the process, as the cache sees one: bytes, a clock, and now and then away."""

from contextlib import asynccontextmanager

import anyio.lowlevel

from perf_middleware import StoreUnavailableError
from perf_middleware.caching.values.classes import Classes
from perf_middleware.caching.values.envelope import kept_of, opened, sealed
from perf_middleware.caching.values.packing import Packer
from perf_middleware.caching.values.patterns import matcher


class DistantStore:
    """Bytes in a dict; each call is one round trip, in which others run."""

    memory = None

    def __init__(self, clock, packer=None):
        self.clock = clock
        self.packer = packer or Packer(Classes())
        self.rows = {}
        self.is_away = False
        self.asked = 0
        self.on_way = None

    async def _trip(self):
        self.asked += 1
        if self.is_away:
            raise StoreUnavailableError("the distant store", "away")
        await anyio.lowlevel.checkpoint()
        if self.on_way is not None:
            await self.on_way()

    def _found(self, key):
        stored, ends_us, _ = self.rows.get(key, (None, None, None))
        if stored is None or (ends_us is not None and self.clock() >= ends_us):
            self.rows.pop(key, None)
            return None
        left_us = None if ends_us is None else ends_us - self.clock()
        found = opened(self.packer, key, stored, left_us=left_us)
        return None if found is None else kept_of(*found, now_us=self.clock())

    async def get(self, key):
        await self._trip()
        return self._found(key)

    async def get_many(self, keys):
        await self._trip()
        found = {key: self._found(key) for key in keys}
        return {key: kept for key, kept in found.items() if kept is not None}

    async def put(self, key, value, terms):
        return await self.put_many({key: value}, terms) == 1

    async def put_many(self, values, terms):
        packed = {key: sealed(self.packer, key, value, terms) for key, value in values.items()}
        await self._trip()
        lasts_us = None if terms.ttl_us is None else terms.ttl_us + terms.stale_us
        ends_us = None if lasts_us is None else self.clock() + lasts_us
        for key, stored in packed.items():
            self.rows[key] = (stored, ends_us, set(terms.tags))
        return len(values)

    async def exists(self, key):
        await self._trip()
        kept = self._found(key)
        return kept is not None and self.clock() < kept.fresh_until_us

    async def drop(self, keys):
        await self._trip()
        return sum(self.rows.pop(key, None) is not None for key in keys)

    async def purge(self, tags):
        return await self.drop([key for key, row in self.rows.items() if row[2] & set(tags)])

    async def clear(self, pattern):
        matches = matcher("*" if pattern is None else pattern)
        return await self.drop([key for key in self.rows if matches(key)])

    async def increase(self, key, amount, *, ttl_us):
        await self._trip()
        if self._found(key) is None:
            self.rows[key] = (b"0", None if ttl_us is None else self.clock() + ttl_us, set())
        stored, ends_us, tags = self.rows[key]
        try:
            total = int(stored) + amount
        except ValueError:
            raise TypeError(f"{key!r} holds no whole number") from None
        self.rows[key] = (b"%d" % total, ends_us, tags)
        return total


@asynccontextmanager
async def distant(clock):
    yield DistantStore(clock)

"""A store outside of the process, as the cache sees one: bytes, a clock, and now and then away."""

import anyio.lowlevel

from perf_middleware import StoreUnavailableError
from perf_middleware.caching.values.classes import Classes
from perf_middleware.caching.values.kept import Kept
from perf_middleware.caching.values.packing import MISS, Packer
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

    def heard(self):
        return None

    def _found(self, key):
        if key not in self.rows:
            return None
        packed, terms, put_us = self.rows[key]
        value = self.packer.unpack(packed, key=key)
        kept = None if value is MISS else Kept(value, terms, now_us=put_us)
        if kept is None or self.clock() >= kept.ends_us:
            del self.rows[key]
            return None
        return kept

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
        packed = {key: self.packer.pack(value, key=key) for key, value in values.items()}
        await self._trip()
        for key, stored in packed.items():
            self.rows[key] = (stored, terms, self.clock())
        return len(values)

    async def exists(self, key):
        await self._trip()
        kept = self._found(key)
        return kept is not None and self.clock() < kept.fresh_until_us

    async def drop(self, keys):
        await self._trip()
        return sum(self.rows.pop(key, None) is not None for key in keys)

    async def purge(self, tags):
        wanted = set(tags)
        return await self.drop([key for key, row in self.rows.items() if wanted & set(row[1].tags)])

    async def clear(self, pattern):
        matches = matcher("*" if pattern is None else pattern)
        return await self.drop([key for key in self.rows if matches(key)])

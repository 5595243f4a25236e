"""Records in Redis, with their tags: what the processes of a fleet keep in common.

Keys of one shard, `{app:cache:0}` its hash tag, so that a cluster has them all on one node:

    {..}r:<key>    a record: version byte, `-` or `s` (purged softly), count at its storing, content
                   or `V`, and the names of the fields that tell its variants apart
    {..}r:<key>\\tl the lease of who is computing it
    {..}i:<name>   index: the records with this tag, or of this URL, by the time they expire
    {..}n {..}e    how many messages there were; the life of this keyspace (lost with its data)
    {..}p {..}f    the last purges; the count below which everything was purged
    {..}w          there where some record varies, or did

What changes something is one script, so one round trip and one atomic step; a look-up is one too,
but for what is known (known.py) to be found without.  The indexes expire with what they point to.
Messages are numbered: who misses one knows it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from perf_middleware.fleet.known import Known
from perf_middleware.fleet.layout import (
    ALL_PURGED,
    COUNT,
    EVERYTHING,
    HEAD,
    SOFT,
    VARIED,
    VARIES,
    Found,
    Missing,
    ShardKeys,
    Unnamed,
    names_in,
    told_field,
    variant_key,
)
from perf_middleware.fleet.stores.messages import Messages
from perf_middleware.fleet.stores.script import Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from perf_middleware.fleet.drivers.port import Link
    from perf_middleware.fleet.layout import Asking, Seen


COUNT_LOST: Final = 3  # an answer of put.lua
MOSTLY_FOUND: Final = 0.5
NEWEST_WEIGHS: Final = 1 / 16
_VARIES: Final = VARIES[0]
_TUPLE: Final = tuple.__new__

_FIND, _PUT, _PURGE, _RELEASE = map(Script, ("find", "put", "purge", "release"))
_SWEEP, _DROP, _PURGE_SEVERAL = map(Script, ("sweep", "drop", "purge_several"))


class Records(Messages):
    """The records of one `space` ("cache", "memo") of a namespace.

    What is kept of them in memory is to be let go of by their messages.
    """

    def __init__(self, link: Link, *, namespace: str, space: str, shards: int = 1) -> None:
        super().__init__(link, namespace=namespace, space=space, shards=shards)
        self.known = Known()
        """Who stores, or hears of an overwrite, tells it."""
        self.on_varied = self.known.begin
        self._found_share = 0.0  # of the last look-ups that would have taken a lease

    @property
    def is_up(self) -> bool:
        return self._link.is_up

    def server_ms(self) -> int:
        """The clock that all processes share, Unix time in milliseconds."""
        return self._link.server_ms()

    def give_up(self, why: str) -> None:
        """Nothing is read any more before all is known to be right again."""
        self._link.give_up(why)

    def shard_of(self, place: bytes) -> int:
        """Where records of this `place` are: all that one purge by URL concerns is in one."""
        return crc32(place) % self.shards if self.shards > 1 else 0

    def keys_of(self, shard: int) -> ShardKeys:
        """Where the records of a shard are, and what is kept beside them."""
        return ShardKeys(
            self._records[shard], self._counts[shard], self._logs[shard], self._floors[shard]
        )

    def is_reachable(self, shard: int, record: bytes) -> bool:
        """Whether `record` was stored after the last purge of everything."""
        return bool(COUNT.unpack_from(record, 2)[0] >= self._floor[shard])

    # --- one record -----------------------------------------------------------------------------

    def likely(self, place: bytes, key: bytes) -> Awaitable[bytes | None] | None:
        """What is under `key`, for `found_in`, where that is most likely all that it takes: it is
        known not to vary, and most look-ups found something lately.  None: `find` it.

        Raises as `Link.get`, some of it before it is awaited.  No coroutine of its own, for every
        hit would pay for it.
        """
        if self._found_share < MOSTLY_FOUND or self.known.names_of(key) != ():
            return None
        return self._link.get(self._records[self.shard_of(place)] + key)

    def found_in(self, place: bytes, key: bytes, value: bytes | None) -> Found | None:
        """The record in `value`, which is under `key`; None where it takes `find` to know."""
        if value is None or len(value) < HEAD or value[0] == _VARIES:
            return None
        shard = self.shard_of(place) if self.shards > 1 else 0
        if COUNT.unpack_from(value, 2)[0] < self._floor[shard]:
            return None
        self._found_share += (1 - self._found_share) * NEWEST_WEIGHS
        # What Found(...) does, without a call of its __new__, which is written in Python.
        return _TUPLE(Found, (key, value, value[1] == SOFT))

    async def find(
        self,
        place: bytes,
        key: bytes,
        *,
        asking: Asking | None = None,
        lease_ms: int = 0,
        token: bytes = b"",
        was_asked: bool = False,
    ) -> Found | Missing | None:
        """The record under `key`, or that of its variants which is for `asking`.

        One round trip, which also leases what is missing to `token` for `lease_ms` if nobody else
        has the lease.  One more to lease where it is known how it varies and most look-ups found
        something lately, for what asks and leases at once is dearer than what asks (`was_asked`: by
        `likely`, in vain); and where what was known holds no more: it has begun to vary, or does
        by more fields.  None where none of its variants can be this request's.
        """
        shard = self.shard_of(place)
        begin = self._records[shard]
        names = self.known.names_of(key)
        if names is None or (lease_ms and (was_asked or self._found_share < MOSTLY_FOUND)):
            return await self._choose(shard, key, asking, lease_ms, token)
        record: bytes | None
        value: bytes | None
        if not names:
            full, value = key, await self._link.get(begin + key)
            if value is not None and value[:1] == VARIES:
                return await self._choose(shard, key, asking, lease_ms, token)
        else:
            parts = None if asking is None else asking.parts_of(names)
            if parts is None:
                return None
            full = variant_key(key, names, parts)
            record, value = await self._link.get_several(begin + key, begin + full)
            if record is None:
                value = None  # what is left of its variants is of no use
            elif record != VARIES + b",".join(names):
                if record[:1] == VARIES:
                    return await self._choose(shard, key, asking, lease_ms, token)
                full, value = key, record
        if value is not None and len(value) >= HEAD and self.is_reachable(shard, value):
            if names and full is key:
                self.known.learn(key, ())
            self._found_share += (1 - self._found_share) * NEWEST_WEIGHS
            return Found(full, value, value[1] == SOFT)
        if not lease_ms:
            return Missing(full, leads=True)
        return await self._choose(shard, key, asking, lease_ms, token)

    async def _choose(
        self, shard: int, key: bytes, asking: Asking | None, lease_ms: int, token: bytes
    ) -> Found | Missing | None:
        """The same in one atomic step, which costs the server more; once more only for a request of
        more fields than can be told.
        """
        begin = self._records[shard]
        told, is_all = (b"", False) if asking is None else asking.told()
        for _ in range(2):
            kind, value, *more = await self._link.run(
                _FIND, (begin + key, self._floors[shard]), (lease_ms, token, told, int(is_all))
            )
            if kind == 2:
                names = tuple(value.split(b","))
                self.known.learn(key, names)
                parts = None if asking is None else asking.parts_of(names)
                if parts is None:
                    return None
                told, is_all = b"".join(map(told_field, names, parts)), False
                continue
            full = value[len(begin) :]
            names = names_in(full, key)
            if names or kind == 1:  # of what is not there it is not known
                self.known.learn(key, names)
            if kind == 1:
                self._found_share += (1 - self._found_share) * NEWEST_WEIGHS
                return Found(full, more[0], more[0][1] == SOFT)
            self._found_share -= self._found_share * NEWEST_WEIGHS
            leads = more[0] == 1
            return Missing(full, leads=leads, lease_left_ms=0 if leads else more[1])
        return None  # it varies by ever more fields

    async def put(
        self,
        place: bytes,
        key: bytes,
        content: bytes,
        *,
        ttl_ms: int | None,
        indexes: Sequence[bytes],
        seen: Seen,
        message: bytes,
        also: Sequence[bytes] = (),
        always_tell: bool = False,
        origin: bytes = b"",
        names: tuple[bytes, ...] = (),
        secondary: bytes = b"",
    ) -> bool | Unnamed:
        """Store `content` (its first HEAD bytes are ours to fill) under `key` for `ttl_ms`
        (None: until it is purged).

        False where a purge since `seen` concerns it, by one of its indexes or by a name in `also`.
        `message` tells others of an overwrite, or `always_tell`s them.
        """
        shard = self.shard_of(place)
        live_ms = 0 if ttl_ms is None else max(1, ttl_ms)
        kind, *more = await self._link.run(
            _PUT,
            (
                self._records[shard] + key, self._counts[shard], self._logs[shard],
                self._varied[shard], *(self._indexes[shard] + name for name in indexes),
            ),
            (
                seen[shard], live_ms, content, b",".join(names), secondary,
                self.channel, self.told(shard, message), origin, int(always_tell),
                self.told(shard, b"", VARIED), *indexes, *also,
            ),
        )  # fmt: skip
        if kind == COUNT_LOST:
            # A server that evicts has taken the number of messages: begin anew with what it has.
            self.give_up("what it knew of purges is lost")
        return Unnamed(tuple(more[0].split(b","))) if kind == 2 else kind == 1

    async def drop(self, place: bytes, key: bytes, *, mark: bytes, message: bytes) -> bool:
        """Let go of the record under `key` if its content begins with `mark`."""
        shard = self.shard_of(place)
        dropped = await self._link.run(
            _DROP,
            (self._records[shard] + key, self._counts[shard]),
            (mark, self.channel, self.told(shard, message)),
        )
        return bool(dropped)

    async def release(self, place: bytes, key: bytes, token: bytes, *, landed: bytes) -> None:
        """Give the lease of `token` back, and tell those who wait."""
        await self._lease(place, key, token, 0, landed)

    async def hold(self, place: bytes, key: bytes, token: bytes, *, lease_ms: int) -> bool:
        """Keep the lease for `lease_ms` from now on; False where it is not ours any more."""
        return bool(await self._lease(place, key, token, lease_ms, b""))

    async def _lease(
        self, place: bytes, key: bytes, token: bytes, lease_ms: int, landed: bytes
    ) -> Any:
        shard = self.shard_of(place)
        return await self._link.run(
            _RELEASE,
            (self._records[shard] + key + b"\tl",),
            (token, lease_ms, self.channel, self.told(shard, landed)),
        )

    # --- purges ---------------------------------------------------------------------------------

    async def purge(
        self, name: bytes, *, message: bytes, soft: bool = False, origin: bytes = b"",
        place: bytes | None = None, told_in: tuple[int, bytes] = (0, b""), before_use: bool = False,
    ) -> int:  # fmt: skip
        """Purge what the index `name` points to, of one `origin` if it is given; how many.

        It is in the log, and told to all, before the first one goes, and told again where there
        were many: what was found meanwhile goes too.  `told_in` is where in a record its tags are
        told, and the one that it must have.  `before_use`: of a connection that is not in use yet.
        """
        shards = range(self.shards) if place is None else (self.shard_of(place),)
        return sum(
            [
                await self._purge(
                    shard,
                    name,
                    message,
                    soft=soft,
                    origin=origin,
                    told_in=told_in,
                    before_use=before_use,
                )
                for shard in shards
            ]
        )

    async def purge_several(
        self, names: Sequence[bytes], *, message: bytes, before_use: bool = False
    ) -> tuple[int, set[bytes]]:
        """Purge what these indexes point to, told to all by one message, in one round trip.

        How many there were, and the names of those that have too many for one step: they are left
        as they were, to be purged each by itself.
        """
        run = self._link.run_script if before_use else self._link.run
        answers = await asyncio.gather(
            *(
                run(
                    _PURGE_SEVERAL,
                    (
                        self._counts[shard], self._logs[shard],
                        *(self._indexes[shard] + name for name in names),
                    ),
                    (self.channel, self.told(shard, message), *names),
                )
                for shard in range(self.shards)
            )
        )  # fmt: skip
        more = {names[at] for _, places in answers for at in places}
        return sum(count for count, _ in answers), more

    async def purge_index(self, shard: int, name: bytes, *, soft: bool) -> int:
        """The same of one index, where all are told before and after (`announce`)."""
        return await self._purge(shard, name, None, soft=soft)

    async def _purge(
        self, shard: int, name: bytes, message: bytes | None, *, soft: bool,
        origin: bytes = b"", told_in: tuple[int, bytes] = (0, b""), before_use: bool = False,
    ) -> int:  # fmt: skip
        run = self._link.run_script if before_use else self._link.run
        told = b"" if message is None else self.told(shard, message)
        keys = (self._counts[shard], self._logs[shard], self._floors[shard])
        how = b"soft" if soft else b"hard"
        purged, start, first = 0, 0, int(message is not None)
        while start >= 0:
            _, count, next_start = await run(
                _PURGE,
                (*keys, self._indexes[shard] + name),
                (first, name, self.channel, told, how, origin, start, *told_in),
            )
            if next_start < 0 and not first and message is not None:
                await run(_PURGE, keys, (2, name, self.channel, told, how, origin, 0))
            purged, start, first = purged + count, next_start, 0
        return purged

    async def purge_all(self, *, message: bytes, before_use: bool = False) -> None:
        """Nothing that is stored now is found from here on; `sweep` frees it."""
        await self._announce(message, b"all", before_use=before_use)

    async def announce(self, *, message: bytes, again: bool = False) -> None:
        """Tell all of a purge that goes by no index, before its records are looked for.

        `again`: after that, for what was found meanwhile.
        """
        await self._announce(message, b"hard", turn=2 if again else 1)

    async def _announce(
        self, message: bytes, how: bytes, *, turn: int = 1, before_use: bool = False
    ) -> None:
        run = self._link.run_script if before_use else self._link.run
        for shard in range(self.shards):
            await run(
                _PURGE,
                (self._counts[shard], self._logs[shard], self._floors[shard]),
                (
                    turn, EVERYTHING, self.channel,
                    self.told(shard, message, ALL_PURGED if how == b"all" else 0), how, b"", 0,
                ),
            )  # fmt: skip

    async def indexes(self, prefix: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
        """The names of all indexes that begin so, in slices, with their shard."""
        for shard in range(self.shards):
            begin = self._indexes[shard]
            async for keys in self._link.scan(begin + prefix):
                yield shard, [key[len(begin) :] for key in keys]

    async def sweep(self) -> int:
        """Free what a purge of everything has left; how many."""
        freed = 0
        for shard in range(self.shards):
            async for keys in self._link.scan(self._records[shard]):
                freed += await self._link.run(_SWEEP, (self._floors[shard], *keys), ())
        return freed

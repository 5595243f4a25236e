"""Values in Redis, for all processes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.values.envelope import INT64, TAGS_AT, opened, sealed
from perf_middleware.caching.values.kept import Terms
from perf_middleware.caching.values.patterns import matcher
from perf_middleware.fleet.layout import bytes_of, message, text_of
from perf_middleware.fleet.stores.keyed import KEY, KeyedRecords
from perf_middleware.fleet.stores.script import Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perf_middleware.caching.values.kept import Kept
    from perf_middleware.caching.values.packing import Packer
    from perf_middleware.clock import Clock
    from perf_middleware.fleet.layout import Found, Seen
    from perf_middleware.fleet.runtime import Fleet

_INCREASE: Final = Script("increase", package=__package__)
_US_PER_MS: Final = 1_000
TAG: Final = b"t:"
PUT_AT_ONCE: Final = 100
NO_NUMBER, TOO_LARGE = 0, 2  # answers of increase.lua


class RedisStore:
    """Every operation is one round trip; see `ValueStore` for what each does."""

    memory = None

    def __init__(self, fleet: Fleet, packer: Packer, *, clock: Clock) -> None:
        self.fleet = fleet
        self.records = fleet.records("memo")
        self._keyed = KeyedRecords(self.records, fleet.link)
        self._packer = packer
        self._clock = clock

    def heard(self) -> Seen:
        """How much was heard of other processes: for `Terms.heard`, when a run begins."""
        return self.records.seen

    async def get(self, key: str) -> Kept | None:
        return (await self.get_many([key])).get(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Kept]:
        if not keys:
            return {}
        self._require()
        by_name = {bytes_of(key): key for key in keys}
        found = await self._keyed.find(list(by_name))
        kept = {by_name[name]: self._kept(by_name[name], at) for name, at in found.items()}
        return {key: at for key, at in kept.items() if at is not None}

    async def put(self, key: str, value: Any, terms: Terms) -> bool:
        return await self.put_sealed(key, self.sealed(key, value, terms), terms)

    async def put_many(self, values: Mapping[str, Any], terms: Terms) -> int:
        return await self.put_many_sealed(
            {key: self.sealed(key, value, terms) for key, value in values.items()}, terms
        )

    def sealed(self, key: str, value: Any, terms: Terms) -> bytes:
        """What is stored of `value`; raises UnpackableValueError."""
        return sealed(self._packer, key, value, terms, server_ms=self.records.server_ms())

    async def put_sealed(self, key: str, content: bytes, terms: Terms) -> bool:
        """As `put`."""
        self._require()
        name = bytes_of(key)
        ends_us = None if terms.ttl_us is None else terms.ttl_us + terms.stale_us
        result = await self.records.put(
            name,
            name,
            content,
            ttl_ms=None if ends_us is None else max(1, ends_us // _US_PER_MS),
            indexes=[TAG + bytes_of(tag) for tag in terms.tags],
            seen=self.records.seen if terms.heard is None else terms.heard,
            message=message("key", key),
            also=(KEY + name,),
            always_tell=terms.heard is None,  # set by hand: whatever others have is older
        )
        return result is True

    async def put_many_sealed(self, contents: Mapping[str, bytes], terms: Terms) -> int:
        """Written together, so that Redis gets them in one piece."""
        count = 0
        keys = list(contents)
        for start in range(0, len(keys), PUT_AT_ONCE):
            some = keys[start : start + PUT_AT_ONCE]
            stored = await asyncio.gather(
                *(self.put_sealed(key, contents[key], terms) for key in some)
            )
            count += sum(stored)
        return count

    async def exists(self, key: str) -> bool:
        kept = await self.get(key)
        return kept is not None and self._clock() < kept.fresh_until_us

    async def drop(self, keys: Sequence[str], *, before_use: bool = False) -> int:
        if not before_use:
            self._require()
        return await self._keyed.forget(
            [bytes_of(key) for key in keys],
            message_of=lambda name: message("gone", text_of(name)),
            before_use=before_use,
        )

    async def purge(self, tags: Sequence[str], *, before_use: bool = False) -> int:
        if not before_use:
            self._require()
        left, count = tuple(tags), 0
        if len(left) > 1:
            names = {TAG + bytes_of(tag): tag for tag in left}
            count, more = await self.records.purge_several(
                list(names), message=message("tags", *left), before_use=before_use
            )
            left = tuple(names[name] for name in more)
        # At once: they are one round trip of a connection that is pipelined.
        return count + sum(
            await asyncio.gather(
                *(
                    self.records.purge(
                        TAG + bytes_of(tag), message=message("tag", tag),
                        told_in=(TAGS_AT, bytes_of(tag)),
                        before_use=before_use,
                    )
                    for tag in left
                )
            )
        )  # fmt: skip

    async def clear(self, pattern: str | None) -> int:
        self._require()
        if pattern is None:
            await self.purge_all()
            return await self.records.sweep()
        await self.records.announce(message=message("pattern", pattern))
        matches = matcher(pattern)
        count = await self._keyed.forget_matching(
            bytes_of(pattern.partition("*")[0]),
            lambda name: matches(text_of(name)),
        )
        await self.records.announce(message=message("pattern", pattern), again=True)
        return count

    async def purge_all(self, *, before_use: bool = False) -> None:
        """Nothing that is stored now is found from here on."""
        await self.records.purge_all(message=message("all"), before_use=before_use)

    async def increase(self, key: str, amount: int, *, ttl_us: int | None) -> int:
        self._require()
        if amount not in INT64:
            raise OverflowError(f"{amount} is no number of 64 bits")
        name = bytes_of(key)
        none = self.sealed(key, 0, Terms(ttl_us=ttl_us))
        ttl_ms = 0 if ttl_us is None else max(1, ttl_us // _US_PER_MS)
        result, *total = await self._keyed.run_on(
            _INCREASE, name, (amount, none, ttl_ms), message=message("gone", key)
        )
        if result == TOO_LARGE:
            raise OverflowError(f"{key!r} would have more than 64 bits")
        if result == NO_NUMBER:
            raise TypeError(f"{key!r} holds no whole number")
        return int(total[0])

    def _require(self) -> None:
        """Where nothing keeps the connection yet, from now on something does."""
        if not self.records.is_up:
            self.fleet.ensure_kept()

    def _kept(self, key: str, found: Found) -> Kept | None:
        return opened(
            self._packer, key, found.content,
            now_us=self._clock(), server_ms=self.records.server_ms(),
        )  # fmt: skip

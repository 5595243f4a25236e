"""Values in Redis, for all processes.

A record:

    <10: the store's own> I or P <8: fresh until> <8: ends> <8: early from> <4: took>
    <2: length of the tags> <tags> <value>

`I` is a whole number of 64 bits as text, which Redis can add to; `P` what the packer made.  Times
are Redis's own, Unix time in milliseconds, 0 for never; what it took to make is in microseconds.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Final

import ormsgpack

from perf_middleware.caching.values.kept import NEVER_US, Kept, Terms, early_window_us
from perf_middleware.caching.values.packing import MISS
from perf_middleware.caching.values.patterns import matcher
from perf_middleware.fleet.layout import HEAD
from perf_middleware.fleet.stores.keyed import KEY, KeyedRecords
from perf_middleware.fleet.stores.script import Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perf_middleware.caching.values.packing import Packer
    from perf_middleware.clock import Clock
    from perf_middleware.fleet.layout import Found, Seen
    from perf_middleware.fleet.runtime import Fleet

_INCREASE: Final = Script("increase", package=__package__)
_TIMES: Final = struct.Struct(">cqqqIH")
_BEFORE: Final = b"\1-" + bytes(HEAD - 2)
_NUMBER, _PACKED = b"I", b"P"
_INT64: Final = range(-(2**63), 2**63)
_US_PER_MS: Final = 1_000
_TOOK_US_MAX: Final = 2**32 - 1
TAG: Final = b"t:"
PUT_AT_ONCE: Final = 100


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
        by_name = {_name(key): key for key in keys}
        found = await self._keyed.find(list(by_name))
        kept = {by_name[name]: self._kept(by_name[name], at) for name, at in found.items()}
        return {key: at for key, at in kept.items() if at is not None}

    async def put(self, key: str, value: Any, terms: Terms) -> bool:
        content = self._packed(key, value, terms)
        self._require()
        name = _name(key)
        ends_us = None if terms.ttl_us is None else terms.ttl_us + terms.stale_us
        result = await self.records.put(
            name,
            name,
            content,
            ttl_ms=None if ends_us is None else max(1, ends_us // _US_PER_MS),
            indexes=[TAG + tag.encode("utf-8", "surrogatepass") for tag in terms.tags],
            seen=self.records.seen if terms.heard is None else terms.heard,
            message=message("key", key),
            also=(KEY + name,),
        )
        return result is True

    async def put_many(self, values: Mapping[str, Any], terms: Terms) -> int:
        """Written together, so that Redis gets them in one piece."""
        count = 0
        keys = list(values)
        for start in range(0, len(keys), PUT_AT_ONCE):
            some = keys[start : start + PUT_AT_ONCE]
            stored = await asyncio.gather(*(self.put(key, values[key], terms) for key in some))
            count += sum(stored)
        return count

    async def exists(self, key: str) -> bool:
        kept = await self.get(key)
        return kept is not None and self._clock() < kept.fresh_until_us

    async def drop(self, keys: Sequence[str], *, before_use: bool = False) -> int:
        if not before_use:
            self._require()
        return await self._keyed.forget(
            [_name(key) for key in keys],
            message_of=lambda name: message("gone", name.decode("utf-8", "surrogatepass")),
            before_use=before_use,
        )

    async def purge(self, tags: Sequence[str], *, before_use: bool = False) -> int:
        if not before_use:
            self._require()
        return sum(
            [
                await self.records.purge(
                    TAG + tag.encode("utf-8", "surrogatepass"), message=message("tag", tag),
                    told_in=(HEAD + _TIMES.size - 2, tag.encode("utf-8", "surrogatepass")),
                    before_use=before_use,
                )
                for tag in tags
            ]
        )  # fmt: skip

    async def clear(self, pattern: str | None) -> int:
        self._require()
        if pattern is None:
            await self.purge_all()
            return await self.records.sweep()
        await self.records.announce(message=message("pattern", pattern))
        matches = matcher(pattern)
        return await self._keyed.forget_matching(
            pattern.partition("*")[0].encode("utf-8", "surrogatepass"),
            lambda name: matches(name.decode("utf-8", "surrogatepass")),
        )

    async def purge_all(self, *, before_use: bool = False) -> None:
        """Nothing that is stored now is found from here on."""
        await self.records.purge_all(message=message("all"), before_use=before_use)

    async def increase(self, key: str, amount: int, *, ttl_us: int | None) -> int:
        self._require()
        if amount not in _INT64:
            raise OverflowError(f"{amount} is no number of 64 bits")
        name = _name(key)
        none = self._packed(key, 0, Terms(ttl_us=ttl_us))
        ttl_ms = 0 if ttl_us is None else max(1, ttl_us // _US_PER_MS)
        is_number, *total = await self._keyed.run_on(
            _INCREASE, name, (amount, none, ttl_ms), message=message("gone", key)
        )
        if not is_number:
            raise TypeError(f"{key!r} holds no whole number")
        return int(total[0])

    def _require(self) -> None:
        """Where nothing keeps the connection yet, from now on something does."""
        if not self.records.is_up:
            self.fleet.ensure_kept()

    # --- records --------------------------------------------------------------------------------

    def _packed(self, key: str, value: Any, terms: Terms) -> bytes:
        """Raises UnpackableValueError."""
        is_number = type(value) is int and value in _INT64
        packed = b"%d" % value if is_number else self._packer.pack(value, key=key)
        fresh_ms = ends_ms = early_ms = 0
        if terms.ttl_us is not None:
            fresh_ms = self.records.server_ms() + terms.ttl_us // _US_PER_MS
            ends_ms = fresh_ms + terms.stale_us // _US_PER_MS
            early_ms = fresh_ms - early_window_us(terms) // _US_PER_MS
        tags = ormsgpack.packb(list(terms.tags)) if terms.tags else b""
        times = _TIMES.pack(
            _NUMBER if is_number else _PACKED, fresh_ms, ends_ms, early_ms,
            min(terms.took_us, _TOOK_US_MAX), len(tags),
        )  # fmt: skip
        return b"".join((_BEFORE, times, tags, packed))

    def _kept(self, key: str, found: Found) -> Kept | None:
        """The value of a record; None for what is none, or over."""
        content = found.content
        try:
            kind, fresh_ms, ends_ms, early_ms, took_us, tags_bytes = _TIMES.unpack_from(
                content, HEAD
            )
            start = HEAD + _TIMES.size
            stop = start + tags_bytes
            tags = ormsgpack.unpackb(content[start:stop]) if tags_bytes else []
            value = (
                int(content[stop:]) if kind == _NUMBER
                else self._packer.unpack(content[stop:], key=key)
            )  # fmt: skip
        except (ValueError, struct.error):
            return None
        if value is MISS or not all(isinstance(tag, str) for tag in tags):
            return None
        now_us, server_ms = self._clock(), self.records.server_ms()
        kept = Kept(value, Terms(ttl_us=None, tags=tuple(tags), took_us=took_us), now_us=now_us)
        if fresh_ms:
            kept.fresh_until_us = now_us + (fresh_ms - server_ms) * _US_PER_MS
            kept.early_from_us = now_us + (early_ms - server_ms) * _US_PER_MS
            kept.ends_us = now_us + (ends_ms - server_ms) * _US_PER_MS
        return kept if now_us < kept.ends_us or kept.ends_us == NEVER_US else None


def message(*words: Any) -> bytes:
    """What one process tells the others."""
    return ormsgpack.packb(words)


def _name(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")

"""Records that are known by their keys: several at once, and let go of one by one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.fleet.layout import HEAD, SOFT, Found
from perf_middleware.fleet.stores.script import Script

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from perf_middleware.fleet.drivers.port import Link
    from perf_middleware.fleet.stores.records import Records

_FORGET: Final = Script("forget")
FORGOTTEN_AT_ONCE: Final = 250
FOUND_AT_ONCE: Final = 50
KEY: Final = b"k:"
"""What the log of purges calls a record that went by its key."""


class KeyedRecords:
    """The same records, by key alone: no variants, and each key is its own place."""

    def __init__(self, records: Records, link: Link) -> None:
        self._records = records
        self._link = link

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, Found]:
        """What there is under `keys`: one round trip, in a cluster one for each shard."""
        if len(keys) == 1:
            return await self._find_one(keys[0])
        by_shard = self._by_shard(keys)
        several = await asyncio.gather(*(self._find(*each) for each in by_shard.items()))
        return {key: found for part in several for key, found in part.items()}

    async def _find_one(self, key: bytes) -> dict[bytes, Found]:
        shard = self._records.shard_of(key)
        value = await self._link.get(self._records.keys_of(shard).records + key)
        return self._reachable(shard, [key], [value])

    async def _find(self, shard: int, keys: list[bytes]) -> dict[bytes, Found]:
        begin = self._records.keys_of(shard).records
        names = [begin + key for key in keys]
        # In one piece each, one behind the other: a long answer is read whole.
        values = await asyncio.gather(
            *(
                self._link.get_several(*names[start : start + FOUND_AT_ONCE])
                for start in range(0, len(names), FOUND_AT_ONCE)
            )
        )
        return self._reachable(shard, keys, [value for some in values for value in some])

    def _reachable(
        self, shard: int, keys: Sequence[bytes], values: Sequence[bytes | None]
    ) -> dict[bytes, Found]:
        return {
            key: Found(key, value, value[1] == SOFT)
            for key, value in zip(keys, values, strict=True)
            if value is not None and len(value) >= HEAD and self._records.is_reachable(shard, value)
        }

    async def forget(
        self,
        keys: Sequence[bytes],
        *,
        message_of: Callable[[bytes], bytes],
        before_use: bool = False,
    ) -> int:
        """Let go of what is under `keys`, and tell all; how many there were."""
        run = self._link.run_script if before_use else self._link.run
        count = 0
        for shard, own in self._by_shard(keys).items():
            at = self._records.keys_of(shard)
            for start in range(0, len(own), FORGOTTEN_AT_ONCE):
                some = own[start : start + FORGOTTEN_AT_ONCE]
                told = [
                    word
                    for key in some
                    for word in (KEY + key, self._records.told(shard, message_of(key)))
                ]
                count += await run(
                    _FORGET,
                    (at.count, at.log, *(at.records + key for key in some)),
                    (self._records.channel, *told),
                )
        return count

    async def forget_matching(self, begin: bytes, matches: Callable[[bytes], bool]) -> int:
        """Let go of those whose key begins so and matches, where all were told before."""
        count = 0
        for shard in range(self._records.shards):
            prefix = self._records.keys_of(shard).records
            async for names in self._link.scan(prefix + begin):
                found = [name for name in names if matches(name[len(prefix) :])]
                if found:
                    count += await self._link.command("UNLINK", *found)
        return count

    def run_on(
        self, script: Script, key: bytes, arguments: Sequence[bytes | int], *, message: bytes
    ) -> Awaitable[Any]:
        """A script on one record: KEYS the record, the counter, the log, the floor; ARGV
        `arguments`, its name in the log, the channel, the message.
        """
        shard = self._records.shard_of(key)
        at = self._records.keys_of(shard)
        return self._link.run(
            script,
            (at.records + key, at.count, at.log, at.floor),
            (*arguments, KEY + key, self._records.channel, self._records.told(shard, message)),
        )

    def _by_shard(self, keys: Sequence[bytes]) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for key in keys:
            found.setdefault(self._records.shard_of(key), []).append(key)
        return found

"""What the processes of a fleet tell each other: numbered, so that who misses one knows it.

A message: <8: its number, 0 for one that is not counted> <8: sender> <1: shard> <1: kind> <body>
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from perf_middleware.fleet.layout import ALL_PURGED, COUNT, MESSAGE_HEAD, VARIED
from perf_middleware.fleet.stores.script import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perf_middleware.fleet.drivers.port import Link
    from perf_middleware.fleet.layout import Seen

_STATE = Script("state")


class Messages:
    """The messages of one `space` ("cache", "memo") of a namespace, shard by shard.

    `on_message(body)` gets what another process has published, `on_gap()` is called where messages
    may have been missed: whatever is kept in memory of these records is not to be trusted then.
    `on_landed(key)` hears of leases that were given back, `on_varied()` that some record varies.
    """

    def __init__(self, link: Link, *, namespace: str, space: str, shards: int = 1) -> None:
        self._link = link
        tags = [b"{%s:%s:%d}" % (namespace.encode(), space.encode(), n) for n in range(shards)]
        self._records = [tag + b"r:" for tag in tags]
        self._indexes = [tag + b"i:" for tag in tags]
        self._counts = [tag + b"n" for tag in tags]
        self._lives = [tag + b"e" for tag in tags]
        self._logs = [tag + b"p" for tag in tags]
        self._floors = [tag + b"f" for tag in tags]
        self._varied = [tag + b"w" for tag in tags]
        self.channel = b"{%s:%s:0}c" % (namespace.encode(), space.encode())
        self.shards = shards
        self._sender = b""
        self._life: list[bytes | None] = [None] * shards
        self.seen: Seen = (0,) * shards
        self._floor = [0] * shards
        self.on_message: Callable[[bytes], None] = _nobody_listens
        self.on_gap: Callable[[], None] = _nothing
        self.on_landed: Callable[[bytes], None] = _nobody_listens
        self.on_varied: Callable[[], None] = _nothing
        self.is_done: Callable[[], bool] = _always
        """Whether all that was heard is done in memory; who sets it calls `on_done` as it is."""
        self.on_done: Callable[[], None] = _nothing
        self.messages = 0
        self.gaps = 0

    def counters(self) -> list[tuple[bytes, bytes]]:
        """For each shard the name of its counter, and that of its life."""
        return list(zip(self._counts, self._lives, strict=True))

    def heard(self) -> Iterator[tuple[bytes, tuple[bytes, int]]]:
        """For each shard the name of its counter: its life, and the last message that was heard."""
        for name, life, seen in zip(self._counts, self._life, self.seen, strict=True):
            yield name, (life or b"", seen)

    @property
    def is_heard(self) -> bool:
        """Whether somebody keeps what these messages are about."""
        return self.on_message is not _nobody_listens

    async def synchronise(self) -> None:
        """Find out whether messages were missed; to be awaited with each new connection.

        All were until the first: what is kept from before it is not to be trusted either.
        """
        # A new name each time: what was forked off since the last one must not pass for us.
        self._sender = os.urandom(8)
        missed, is_first = False, None in self._life
        for shard in range(self.shards):
            heard, floor_heard = self.seen[shard], self._floor[shard]
            life, count, floor, has_varied = await self._link.run_script(
                _STATE,
                (
                    self._lives[shard], self._counts[shard], self._floors[shard],
                    self._varied[shard],
                ),
                (os.urandom(8).hex(),),
            )  # fmt: skip
            if has_varied:
                self.on_varied()
            # A message behind the answer may have been heard before this goes on.
            if self.seen[shard] != heard:
                count = max(count, self.seen[shard])
            if self._floor[shard] != floor_heard:
                floor = max(floor, self._floor[shard])
            known = self._life[shard]
            missed |= known is not None and (known != life or self.seen[shard] != count)
            self._life[shard], self._floor[shard] = life, floor
            self._saw(shard, count)
        self.gaps += missed
        if missed or is_first:
            self.on_gap()

    def hear(self, payload: bytes) -> None:
        """A message of the channel; what is no message of ours is ignored."""
        if len(payload) < MESSAGE_HEAD:
            return
        (count,) = COUNT.unpack_from(payload)
        shard, kind, sender = payload[16], payload[17], payload[8:16]
        body = payload[18:]
        if shard >= self.shards:
            return
        self.messages += 1
        if not count:
            if kind == VARIED:
                self.on_varied()
            elif not kind:  # another one is of another version
                self.on_landed(body)
            return
        seen = self.seen[shard]
        self._saw(shard, count)
        if count != seen + 1 and self._life[shard] is not None and count != seen:
            self.gaps += 1
            self.on_gap()
            if count < seen:
                self._link.give_up("the number of messages was lost")
        if kind == ALL_PURGED:
            self._floor[shard] = count
        if sender != self._sender:
            self.on_message(body)

    def _saw(self, shard: int, count: int) -> None:
        self.seen = (*self.seen[:shard], count, *self.seen[shard + 1 :])

    def told(self, shard: int, body: bytes, kind: int = 0) -> bytes:
        """A message of this process, as scripts publish it."""
        return self._sender + bytes((shard, kind)) + body


def _nobody_listens(body: bytes) -> None:
    del body


def _nothing() -> None:
    return


def _always() -> bool:
    return True

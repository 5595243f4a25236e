"""The listeners of a namespace in Redis, and what was told to them: one script each.

{app:fleet:0}l   listener -> the server's ms until which its lease lasts; `-` -> minus the ms
                 since when the set is there
{app:fleet:0}c   the channel of all: `?` and a question, `!` and a listener that has left
{app:fleet:0}a:<name>  the channel of one process, for answers to it
{app:fleet:0}w   announced writes (announcements.py): while one is overdue nobody has a lease anew
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf_middleware.fleet.announcing import OVERDUE_AT_ONCE
from perf_middleware.fleet.hearing import lines_of
from perf_middleware.fleet.stores.script import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.fleet.announcing import Overdue
    from perf_middleware.fleet.drivers.port import Link
    from perf_middleware.fleet.hearing import Counts, Question
    from perf_middleware.fleet.stores.messages import Messages

_LISTEN, _ASK, _LEAVE = map(Script, ("listen", "ask", "leave"))


@dataclass(frozen=True, slots=True)
class Asked:
    """Who listened, by the server's ms until when, as it showed `now_ms`; known since `since_ms`:
    its whole set was lost before that, or had never been.
    """

    now_ms: int
    since_ms: int
    others: dict[bytes, int]


class Listeners:
    """What one process does with the set: be in it, and ask who is.

    All of it raises StoreUnavailableError and StoreRefusedError.
    """

    def __init__(
        self,
        link: Callable[[], Link],
        spaces: Callable[[], Iterable[Messages]],
        *,
        namespace: str,
        in_cluster: bool,
    ) -> None:
        begin = b"{%s:fleet:0}" % namespace.encode()
        self._key = begin + b"l"
        self._announced = begin + b"w"
        self.channel = begin + b"c"
        self._begin = begin + b"a:"
        self._link = link
        self._spaces = spaces
        self._in_cluster = in_cluster
        self.name = b""
        """Of this process, on this connection; empty: it takes no part."""
        self._pid = 0
        self._before = b""
        self.count = 0
        """How many others there were at the last look."""

    @property
    def own_channel(self) -> bytes:
        return self._begin + self.name

    async def take_part(self) -> None:
        """Hear what is asked and answered; under a new name on each connection, for what was
        forked off since the last one must not pass for us.
        """
        if not self.name:
            self.name = os.urandom(8).hex().encode()
            await self._link().subscribe(self.channel, self.own_channel)

    def lose(self) -> None:
        """The connection; to be called once its lease counts no more."""
        if self.name:
            self.name, self._before, self._pid = b"", self.name, os.getpid()

    async def renew(self, *, lease_ms: int, purges: bool) -> Counts | Overdue:
        """A lease from now on; what was told until then.  No lease but what is overdue where
        something is, and this process `purges` it.
        """
        before = self._before if self._pid == os.getpid() else b""
        name, keys = self.name, self._counters()
        count, *told = await self._link().run(
            _LISTEN,
            (self._key, self._announced, *(() if self._in_cluster else keys)),
            (name, lease_ms, before, self.channel, OVERDUE_AT_ONCE if purges else 0),
        )
        if count < 0:
            return list(zip(told[::2], told[1::2], strict=True))
        self.count = int(count) - 1
        if before and before == self._before:
            self._before = b""
        if self._in_cluster:
            return await self._told(keys)  # behind it: what is told between is to be heard too
        lives, counts = told[::2], map(int, told[1::2])
        return dict(zip(keys[::2], zip(lives, counts, strict=True), strict=True))

    async def ask(self, token: bytes) -> Asked:
        """Ask everyone whether they have heard what was told until now."""
        keys = self._counters()
        told = b"" if not self._in_cluster else lines_of(await self._told(keys))
        now_ms, since_ms, *others = await self._link().run(
            _ASK,
            (self._key, *(() if self._in_cluster else keys)),
            (self.name, self.channel, self.own_channel + b" " + token, told),
        )
        self.count = len(others) // 2
        return Asked(now_ms, since_ms, dict(zip(others[::2], others[1::2], strict=True)))

    async def answer(self, question: Question) -> None:
        """All that it names is done."""
        await self._link().command("PUBLISH", question.channel, question.token + b" " + self.name)

    async def leave(self) -> None:
        """Nobody has to wait for this process any more; to be called once its lease counts no
        more.
        """
        if self.name:
            await self._link().run(_LEAVE, (self._key,), (self.name, self.channel))

    def _counters(self) -> list[bytes]:
        return [name for space in self._spaces() for both in space.counters() for name in both]

    async def _told(self, keys: list[bytes]) -> Counts:
        """Of a cluster: each shard is elsewhere."""
        link = self._link()
        pairs = list(zip(keys[::2], keys[1::2], strict=True))
        found: list[list[bytes | None]] = await asyncio.gather(
            *(link.get_several(*pair) for pair in pairs)
        )
        return {
            name: (life or b"", int(count or 0))
            for (name, _), (count, life) in zip(pairs, found, strict=True)
        }

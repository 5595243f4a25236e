"""Purges for all processes: told to the shared store, heard from others, made up for after a gap.

    truth changes -> purge: numbered, logged, told -> its records go -> told again if they were many

Where a response may be that is older than a purge, and why it does not stay there:
- in the store: its record goes; a later put names the last message heard when its answer was begun,
  and is refused if the log has a purge behind that (put.lua);
- in memory: the message takes it out; what was found behind that and before its record went does
  the second message;
- on the way to memory, from store or app: a purge is noted as it is heard, before anything waits,
  and what was begun before is not kept (PurgeLog.since).
Who may have missed one (first connection, a gap in the numbers, a store that forgot) lets go of
everything; one that could not be told is made up for, and until then the store is not used here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import ormsgpack

from perf_middleware.caching.invalidation import origin_of, path_of
from perf_middleware.caching.places import BARE, TAG, URL, index_name, matches_index, record_key
from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.fleet.layout import bytes_of, message, text_of
from perf_middleware.path_patterns import PathPattern

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.fleet.stores.outbox import Outbox
    from perf_middleware.fleet.stores.records import Records

logger = logging.getLogger("perf_middleware.caching")

Purge: TypeAlias = "tuple[Literal['targets', 'tags', 'pattern', 'everything'], Any, bool]"
"""What is purged, and whether softly."""

PENDING_MAX: Final = 500  # purges to be made up for; more are one of everything
MADE_UP_EVERY_S: Final = 0.5  # for those that a server refused which is there
NEWS_MAX: Final = 100  # purges by tag or pattern that memory has not done yet
OVERWRITTEN_MAX: Final = 64  # the last keys; a look-up that saw more pass finds nothing


class SharedPurges:
    """The purges of one cache, as far as they concern other processes than this one."""

    def __init__(self, cache: ResponseCache, records: Records, outbox: Outbox) -> None:
        self._cache = cache
        self._records = records
        self._outbox = outbox
        self._pending: list[Purge] = []
        self.overwrites = 0
        self._overwritten: deque[bytes] = deque(maxlen=OVERWRITTEN_MAX)
        self._news: deque[tuple[Callable[[], Awaitable[object]], bool]] = deque()
        self._has_news: asyncio.Event | None = None
        self._is_purging = False
        records.on_message = self._hear
        records.on_gap = self._missed_some
        records.is_done = self._is_done

    @property
    def pending(self) -> int:
        """How many are to be made up for."""
        return len(self._pending)

    # --- telling --------------------------------------------------------------------------------

    async def purge(self, purge: Purge) -> int:
        """How many there were in the shared store; 0 while it is away: then it is done later."""
        try:
            count = await self._do(purge)
        except Exception as error:  # noqa: BLE001 - garbage: whatever comes of it is no answer
            self.owe(purge, why=f"a purge was not done: {error}")
            return 0
        except asyncio.CancelledError:
            self._owe(purge)  # begun, and perhaps not whole: whoever asked for it has left
            raise
        # What begins from here on is made of what there is after it.
        self._cache.purges.mark(self._records.seen)
        return count

    def owe(self, purge: Purge, *, why: str = "too many purges at once") -> None:
        """Make up for it before what is still there is read again.  A connection that is being made
        goes on: it does so before it is used.
        """
        self._owe(purge)
        if self._records.is_up:
            self._records.give_up(why)

    def _owe(self, purge: Purge) -> None:
        if len(self._pending) < PENDING_MAX:
            self._pending.append(purge)
        else:
            self._pending[:] = [("everything", None, False)]

    async def catch_up(self) -> None:
        """To be awaited before a new connection is used."""
        purges = self._cache.purges
        # What was begun until now was begun without knowing what others have purged meanwhile.
        purges.note(lambda _target, _tags: False)
        purges.mark(self._records.seen)
        await self._make_up(before_use=True)

    def tell_owed(self) -> None:
        """In the log, what is lost now."""
        if self._pending:
            logger.warning(
                "%d purges could not be made while Redis was away and are lost now: what they were "
                "about may be given again until it expires", len(self._pending),
            )  # fmt: skip

    async def make_up(self) -> None:
        """Try again what the store has refused, until cancelled."""
        while True:
            await asyncio.sleep(MADE_UP_EVERY_S)
            if self._pending and self._records.is_up:
                with suppress(StoreUnavailableError, StoreRefusedError):
                    await self._make_up()

    async def _make_up(self, *, before_use: bool = False) -> None:
        while self._pending:
            purge = self._pending[0]
            await self._do(purge, before_use=before_use)
            # One of everything may have taken the place of all meanwhile.
            if self._pending and self._pending[0] is purge:
                del self._pending[0]

    async def _do(self, purge: Purge, *, before_use: bool = False) -> int:
        kind, what, soft = purge
        if kind == "targets":
            return sum(
                [
                    await self._do_target(target, any_host, soft, before_use)
                    for target, any_host in sorted(what)
                ]
            )
        if kind == "tags":
            tags, origin = what
            return await self._do_tags(tags, origin, soft, before_use)
        if before_use or (kind == "everything" and not soft):
            # To look for each one would keep a new connection from being used.
            told = message("everything", soft)
            await self._records.purge_all(message=told, before_use=before_use)
            self._outbox.put(self._records.sweep)
            return 0
        return await self._do_pattern(PathPattern.of("*") if what is None else what, soft)

    async def _do_target(self, target: bytes, any_host: bool, soft: bool, before_use: bool) -> int:
        path = target if any_host else path_of(target)
        bare, query, _ = path.partition(b"?")
        names = [index_name(URL, path), *([index_name(BARE, bare)] if query else [])]
        return sum(
            [
                await self._records.purge(
                    name, message=message("target", target, any_host, soft), soft=soft,
                    origin=b"" if any_host else origin_of(target), place=bare,
                    before_use=before_use,
                )
                for name in names
            ]
        )  # fmt: skip

    async def _do_tags(
        self, tags: tuple[str, ...], origin: bytes, soft: bool, before_use: bool
    ) -> int:
        left: Iterable[str] = tags
        count = 0
        if len(tags) > 1 and not soft and not origin:
            names = {index_name(TAG, bytes_of(tag)): tag for tag in tags}
            told = message("tags", *tags)
            count, more = await self._records.purge_several(
                list(names), message=told, before_use=before_use
            )
            left = [names[name] for name in more]
        # At once: they are one round trip of a connection that is pipelined.
        return count + sum(
            await asyncio.gather(*(self._do_tag(tag, origin, soft, before_use) for tag in left))
        )

    async def _do_tag(self, tag: str, origin: bytes, soft: bool, before_use: bool) -> int:
        return await self._records.purge(
            index_name(TAG, bytes_of(tag)),
            message=message("tag", tag, origin, soft), soft=soft, origin=origin,
            before_use=before_use,
        )  # fmt: skip

    async def _do_pattern(self, pattern: PathPattern, soft: bool) -> int:
        told = message("pattern", pattern.text, soft)
        await self._records.announce(message=told)
        count = 0
        async for shard, names in self._records.indexes(URL):
            for name in names:
                if matches_index(pattern, name):
                    count += await self._records.purge_index(shard, name, soft=soft)
        await self._records.announce(message=told, again=True)
        return count

    # --- hearing --------------------------------------------------------------------------------

    def _hear(self, body: bytes) -> None:
        cache, purging = self._cache, self._cache.purging
        try:
            match ormsgpack.unpackb(body):
                case ["key", bytes() as primary]:
                    self.overwrites += 1
                    self._overwritten.append(primary)
                    cache.store.drop(primary)
                    self._records.known.forget(record_key(primary))  # it may vary from now on
                case ["target", bytes() as target, bool() as any_host, bool() as soft]:
                    purging.wanted_here({(target, any_host)}, soft=soft)
                case ["tag", bytes() as name, bytes() as origin, bool() as soft]:
                    tag = text_of(name)
                    concerns = purging.note_tags([tag], origin=origin)
                    keys = cache.store.keys(tag)
                    self._soon(lambda: purging.keys(keys, soft=soft, concerns=concerns))
                case ["tags", *names] if all(isinstance(name, bytes) for name in names):
                    tags = [text_of(name) for name in names]
                    concerns = purging.note_tags(tags)
                    found = [key for tag in tags for key in cache.store.keys(tag)]
                    self._soon(lambda: purging.keys(found, soft=False, concerns=concerns))
                case ["pattern", bytes() as text, bool() as soft]:
                    concerns = purging.note_pattern(PathPattern.of(text_of(text)))
                    keys = cache.store.keys()
                    self._soon(lambda: purging.keys(keys, soft=soft, concerns=concerns))
                case _:
                    self._everything_is_old()
        except ValueError:  # of another version: it must not be missed
            logger.warning("a purge could not be read, everything in memory goes: %r", body[:100])
            self._everything_is_old()
        cache.purges.mark(self._records.seen)

    def is_overwritten(self, primary: bytes, *, since: int) -> bool:
        """Whether another process has let go of it, or may have, after `overwrites` was `since`."""
        missed = self.overwrites - since
        return missed > 0 and (
            missed > len(self._overwritten) or primary in list(self._overwritten)[-missed:]
        )

    def _missed_some(self) -> None:
        self._everything_is_old()
        self._cache.purges.mark(self._records.seen)

    def _everything_is_old(self) -> None:
        purging = self._cache.purging
        self._cache.purges.note(lambda _target, _tags: True)
        _, gone = self._cache.store.clear()  # at once; what takes time is to free it
        self._news.clear()
        self._is_purging = False  # what goes on has nothing left to do
        self._soon(lambda: purging.free(gone), frees=True)

    def _soon(self, do: Callable[[], Awaitable[object]], *, frees: bool = False) -> None:
        """In slices: a message must not hold the event loop up.  `frees`: it is done already."""
        if len(self._news) >= NEWS_MAX:
            self._everything_is_old()
            return
        self._news.append((do, frees))
        if self._has_news is not None:
            self._has_news.set()

    def _is_done(self) -> bool:
        """Whether nothing is in memory any more that was heard to be purged."""
        return not self._is_purging and all(frees for _, frees in self._news)

    async def run(self) -> None:
        """Do in memory what was heard, until cancelled."""
        has_news = self._has_news = asyncio.Event()
        while True:
            while self._news:
                do, frees = self._news.popleft()
                self._is_purging = not frees
                try:
                    await do()
                except BaseException:
                    if self._is_purging:  # half of it is done, and nobody does the rest
                        self._everything_is_old()
                    raise
                finally:
                    self._is_purging = False
                    if not frees:
                        self._records.on_done()
            has_news.clear()
            await has_news.wait()

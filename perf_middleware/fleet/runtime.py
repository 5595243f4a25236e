"""The way to Redis as a part of the app: kept open in the background, shared by the features."""

from __future__ import annotations

import asyncio
import logging
import random
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from perf_middleware.errors import StoreUnavailableError
from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter, gauge
from perf_middleware.fleet.backoff import Backoff
from perf_middleware.fleet.drivers.link import RedisLink
from perf_middleware.fleet.drivers.port import STORE, running_loop
from perf_middleware.fleet.layout import CLUSTER_SHARDS
from perf_middleware.fleet.stores.hearers import Hearers
from perf_middleware.fleet.stores.records import Records

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator

    from perf_middleware.fleet.announcing import Announced
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.redis")

T = TypeVar("T")
FIRST_ANSWER_S = 0.5  # beyond the time to connect: how long `open` waits for the first connection
STEADY_S = 1.0  # in use for so long: what was wrong before is over


class Fleet:
    """What the processes of a service share in Redis; a resource of the lifespan plugin.

    Where no lifespan runs, `ensure_kept` at the first use starts the same.
    """

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        cluster: bool = False,
        namespace: str = "app",
        timeout_s: float = 0.1,
        connect_timeout_s: float = 1.0,
        heartbeat_s: float = 1.0,
        waiting_max: int = 10_000,
        lease_s: float = 1.0,
        required: bool = False,
    ) -> None:
        if cluster:
            from perf_middleware.fleet.drivers.cluster import ClusterLink

            make: type[ClusterLink | RedisLink] = ClusterLink
        else:
            make = RedisLink
        self.link = make(
            url,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            heartbeat_s=heartbeat_s,
            waiting_max=waiting_max,
        )
        self.link.on_message = self._hear
        self.link.connected = self._connected
        self.link.on_loss = self._lost
        self.required = required
        self.on_change: Callable[[bool, str], None] | None = None
        self.namespace = namespace
        self._shards = CLUSTER_SHARDS if cluster else 1
        self._open_s = connect_timeout_s + FIRST_ANSWER_S
        self._spaces: dict[bytes, Records] = {}
        self._on_connect: list[Callable[[], Awaitable[None]]] = []
        self._on_loss: list[Callable[[], None]] = []
        self._at_end: list[Callable[[], None]] = []
        self._jobs: list[Callable[[], Awaitable[None]]] = []
        self._kept: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.AbstractEventLoop | None = None
        self._tried: asyncio.Event | None = None
        self._was_up: bool | None = None
        self._is_opening = False
        self._since_s = monotonic()
        self.changes = {"up": 0, "down": 0}
        self.lease_until_us = 0
        """Until when, on `clock.monotonic_us`, what is kept in memory is known to be what all have
        heard of; 0: it is not.  A hit on what must never be older than a purge asks this first, and
        awaits nothing between that and taking it.
        """
        self._owed: list[Callable[[], int]] = []
        self._hearers = Hearers(
            lambda: self.link, self._spaces.values, namespace=namespace, in_cluster=cluster,
            lease_s=lease_s, is_all_told=self._is_all_told, on_lease=self._leased,
        )  # fmt: skip

    @property
    def is_up(self) -> bool:
        return self.link.is_up

    def records(self, space: str) -> Records:
        """The records of one space; the same ones at each call."""
        records = Records(self.link, namespace=self.namespace, space=space, shards=self._shards)
        known = self._spaces.get(records.channel)
        if known is None:
            known = self._spaces[records.channel] = records
            records.on_done = self._hearers.lease.note
            self.link.channels = tuple(self._spaces)
            self.link.give_up("there is one more channel to hear")
        return known

    def before_use(self, do: Callable[[], Awaitable[None]]) -> None:
        """Await `do` with each new connection, before it is used and after it is known what was
        missed.
        """
        self._on_connect.append(do)

    def when_lost(self, do: Callable[[], None]) -> None:
        """Call `do` as soon as the connection is given up: nothing comes over it any more."""
        self._on_loss.append(do)

    def when_owed(self, owed: Callable[[], int]) -> None:
        """`owed()` is how much is to be made up for before what was told is all: as it is when a
        connection comes to be used, after `before_use`, nothing is.
        """
        self._owed.append(owed)

    def at_end(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the app stops, for a last word."""
        self._at_end.append(tell)

    def while_kept(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run `run()` in the background, for as long as the connection is kept."""
        self._jobs.append(run)
        if self._tasks is not None:
            self._tasks.create_task(self._supervised(run))

    def call_soon(self, do: Callable[[], object]) -> None:
        """Call `do` on the event loop of the connection, from any thread; at once where there is
        none yet.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            do()
        else:
            loop.call_soon_threadsafe(do)

    # --- purges that hold in every process ------------------------------------------------------

    def keep_lease(self) -> None:
        """Be one of those whom a purge waits for, from now on: `lease_until_us` is kept up.

        To be called, from any thread and as often as you like, where something is kept in memory
        that must never be older than a purge.
        """
        if self._hearers.want_lease():
            self.call_soon(self._keep_lease)

    def _keep_lease(self) -> None:
        self.while_kept(self._hearers.lease.run)
        self.while_kept(self._hearers.lease.run_answers)

    def _leased(self, until_us: int) -> None:
        self.lease_until_us = until_us

    async def heard_by_all(self) -> bool:
        """Wait until no other process answers out of memory what was purged before this call.

        Each has done what it heard, or its lease is over: that takes one lease at most.  False
        where this process cannot know, for Redis is away: those who cannot reach it either answer
        nothing out of memory any more, those who can may.  To be cancelled at any time.
        """
        if running_loop() is None:
            return False
        return await self._there(self._hearers.barriers.passed)

    async def announce(self, tags: Iterable[str]) -> Announced:
        """Tell that what has these tags is to be purged, before it is known whether this process
        will (announcing.py).  Raises StoreUnavailableError and StoreRefusedError.
        """
        if running_loop() is None:
            raise StoreUnavailableError(STORE, "it needs asyncio")
        return await self._there(lambda: self._hearers.announcements.announce(tags))

    async def lift(self, announced: Collection[Announced]) -> None:
        """Nothing is to be purged for it any more."""
        await self._there(lambda: self._hearers.announcements.lift(announced))

    def let_go(self, announced: Announced) -> None:
        """It may be to be purged later: whoever finds it overdue does that; from any thread."""
        self._hearers.announcements.let_go(announced)

    def purge_overdue_by(
        self, purge: Callable[[frozenset[str]], Awaitable[None]], *, all_tags: Iterable[str]
    ) -> None:
        """`purge(tags)` for writers that were not heard of again; `all_tags`: all there may be."""
        self._hearers.purge_overdue_by(purge, all_tags)
        self.while_kept(self._hearers.announcements.run)

    async def _there(self, do: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self.ensure_kept()
        kept = self._loop
        if kept is None or kept is running_loop() or not kept.is_running():
            return await do()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(do(), kept))

    def _is_all_told(self) -> bool:
        return not any(owed() for owed in self._owed)

    # --- its life -------------------------------------------------------------------------------

    async def open(self, background: Background) -> None:
        """Connect; raises StoreUnavailableError where that takes too long, and goes on trying."""
        await self._end_kept()  # who used it before the app has started
        self._begin()
        background.start("redis", self._keep)
        assert self._tried is not None  # noqa: S101 - made by _begin
        self._is_opening = True
        try:
            async with asyncio.timeout(self._open_s):
                await self._tried.wait()
        except TimeoutError:
            pass  # told below
        finally:
            self._is_opening = False
        if not self.is_up:
            raise StoreUnavailableError(f"{STORE} ({self.link.shown_url})", self.link.why_down)

    async def close(self) -> None:
        """What keeps the connection is cancelled after every resource; nobody waits for our lease
        from here on.
        """
        self._ended = asyncio.get_running_loop()
        await self._hearers.end()
        for tell in self._at_end:
            tell()
        await self._end_kept()

    async def _end_kept(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None and self._loop is asyncio.get_running_loop():
            kept.cancel()
            await asyncio.wait([kept])

    def ensure_kept(self) -> None:
        """Start to connect where no lifespan has; does nothing where it goes on already.

        Nor where the lifespan is over, for nobody would end it, and where no asyncio runs.
        """
        loop = running_loop()
        if loop is None or loop is self._ended:
            return
        if self._loop is not None and not self._loop.is_closed():
            return  # another loop's, if not this one's
        self._begin()
        self._kept = asyncio.create_task(self._keep(), name="perf_middleware: redis")

    def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = None
        self._tried = asyncio.Event()
        self._hearers.begin()

    async def _keep(self) -> None:
        loop = self._loop
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for run in self._jobs:
                    tasks.create_task(self._supervised(run))
                await self._keep_connected()
        finally:
            self._tasks = None
            self._was_up = None
            if self._loop is loop:
                self._loop = None

    async def _keep_connected(self) -> None:
        backoff = Backoff(random.random)
        while True:
            await self.link.connect_once(self._changed)
            if self._was_up and monotonic() - self._since_s >= STEADY_S:
                backoff.reset()  # else it comes and goes: less and less often
            self._note(False, self.link.why_down)
            await asyncio.sleep(backoff.next_s())

    async def _supervised(self, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except Exception:
                logger.exception("a background task of the link to Redis failed, it goes on")
                await asyncio.sleep(1.0)

    def _changed(self, is_up: bool, why: str) -> None:
        if is_up:
            self._hearers.connected()
            self._note(True, why)

    def _note(self, is_up: bool, why: str) -> None:
        if self._tried is not None:
            self._tried.set()
        if is_up is self._was_up:
            return
        was_up, self._was_up = self._was_up, is_up
        lasted_s, self._since_s = monotonic() - self._since_s, monotonic()
        self.changes["up" if is_up else "down"] += 1
        where = self.link.shown_url
        if not is_up and self._is_opening:
            pass  # the plugin tells it
        elif not is_up:
            logger.warning("Redis at %s is not used, each process goes on alone: %s", where, why)
        elif was_up is False:
            logger.info("Redis at %s is used again, after %.1f s", where, lasted_s)
        else:
            logger.info("Redis at %s is used", where)
        if self.on_change is not None:
            try:
                self.on_change(is_up, why)
            except Exception:
                logger.exception("an observer of Redis failed")

    async def _connected(self) -> None:
        for records in self._spaces.values():
            await records.synchronise()
        while True:
            for do in self._on_connect:
                await do()
            if self._is_all_told():
                return  # and not: while the last ones were made up for, others came to be owed

    def _lost(self) -> None:
        self._hearers.lose()
        for do in self._on_loss:
            do()

    def _hear(self, channel: bytes, payload: bytes) -> None:
        try:
            records = self._spaces.get(channel)
            if records is None:
                self._hearers.hear(channel, payload)
                return
            try:
                records.hear(payload)
            except Exception:
                records.on_gap()  # it may have been a purge
                raise
            self._hearers.lease.note()
        except Exception:
            logger.exception("a message of another process could not be understood")

    # --- what operators see ---------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        picture: dict[str, Any] = {"url": self.link.shown_url, "up": self.is_up}
        if not self.is_up:
            picture["reason"] = self.link.why_down
        return picture | self._hearers.status()

    def families(self) -> Iterator[Family]:
        """The figures for /metrics."""
        link = self.link
        yield gauge(
            "perf_redis_up", "1 while Redis is used, 0 while each process goes on alone.",
            (Value(NO_LABELS, int(self.is_up)),), across="min",
        )  # fmt: skip
        yield counter(
            "perf_redis_changes", "How often it came to be used or was given up.",
            tuple(Value(LabelSet([("to", to)]), count) for to, count in self.changes.items()),
        )  # fmt: skip
        yield counter("perf_redis_commands", "Commands sent.", (Value(NO_LABELS, link.commands),))
        yield counter(
            "perf_redis_timeouts", "Answers that were late: the connection is given up then.",
            (Value(NO_LABELS, link.timeouts),),
        )  # fmt: skip
        yield counter(
            "perf_redis_refusals", "Errors that it answered with, out of memory for one.",
            (Value(NO_LABELS, link.refusals),),
        )  # fmt: skip
        yield gauge(
            "perf_redis_waiting", "Answers that are awaited.", (Value(NO_LABELS, link.waiting),)
        )
        messages = [(LabelSet([("space", name.decode())]), records)
                    for name, records in self._named()]  # fmt: skip
        yield counter(
            "perf_redis_messages", "Messages of other processes and our own.",
            tuple(Value(label, records.messages) for label, records in messages),
        )  # fmt: skip
        yield counter(
            "perf_redis_gaps", "Times that messages may have been missed.",
            tuple(Value(label, records.gaps) for label, records in messages),
        )  # fmt: skip
        yield from self._hearers.barriers.families()
        yield from self._hearers.announcements.families()

    def _named(self) -> list[tuple[bytes, Records]]:
        return [(channel.split(b":")[-2], records) for channel, records in self._spaces.items()]

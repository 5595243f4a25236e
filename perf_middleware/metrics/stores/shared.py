"""WorkerExchange: every worker process of a host answers a scrape with the figures of all of them.

A scraped worker publishes its figures before it answers, with the very numbers of the answer.  So
whichever worker is scraped next finds at least those, and no counter is ever seen to fall.  Between
scrapes each worker publishes every `interval_s`, which bounds what a killed worker takes along.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import anyio

from perf_middleware.metrics.stores.health import ExchangeHealth
from perf_middleware.metrics.stores.processes import surroundings
from perf_middleware.metrics.stores.steps import (
    Pacer,
    Threads,
    accepted,
    collect,
    fold,
    frames_in,
    read_all,
    read_retired,
)
from perf_middleware.metrics.workers.frames import SnapshotError
from perf_middleware.metrics.workers.groups import place_of, worker_names
from perf_middleware.metrics.workers.merge import Totals
from perf_middleware.metrics.workers.snapshot import encode_head, epoch_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from perf_middleware.families import Collector, Family
    from perf_middleware.metrics.stores.directory import Member, SnapshotDirectory
    from perf_middleware.metrics.workers.frames import Frame
    from perf_middleware.metrics.workers.groups import Place
    from perf_middleware.metrics.workers.snapshot import Snapshot
    from perf_middleware.resource import Background

BUSY_SHARE_MAX = 0.005  # of one core, for publishing between scrapes
LOCK_WAIT_S = 1.0  # a fold takes milliseconds; siblings finish what a closing worker cannot
LOCK_POLL_S = 0.02
CONFLICTS_NAMED_MAX = 5


class WorkerExchange:
    """Adds up the worker processes of one service on one host.

    `own` offers this process's families; `directory` is where workers meet, by default found from
    the process manager.  In a process without siblings, and on Windows, `combined` gives the own
    figures.  No failure of the file system reaches a caller: it is counted, logged once for each
    change of state and tried again at the next turn.
    """

    name: str = "worker exchange"
    required: bool = False

    def __init__(
        self,
        directory: Path | None = None,
        *,
        service: str,
        own: Collector,
        interval_s: float = 1.0,
        on_reset: Callable[[], None] | None = None,
    ) -> None:
        self._given = directory
        self._service = service
        self._own = own
        self._interval_s = interval_s
        self._on_reset = on_reset
        self._health = ExchangeHealth()
        self._place: Place | None = None
        self._directory: SnapshotDirectory | None = None
        self._directory_lost = False
        self._closing = False
        self._epoch = 0
        self._siblings = 0
        self._pause_s = interval_s
        self._publish_at_s = 0.0

    # -- lifetime ---------------------------------------------------------------------------------

    async def open(self, background: Background) -> None:
        """Join the group, if there is one."""
        self._closing = False
        if os.name == "nt":
            return
        self._threads = Threads()
        self._keeping = anyio.Lock()  # held by a turn of the keeper
        self._answering = anyio.Lock()  # held while figures are collected and published
        seen = await self._threads.run(surroundings, self._given)
        self._place = place_of(seen, service=self._service)
        if self._place is None:
            return
        await self._join(self._place)
        background.start(self.name, self._keep)

    async def close(self) -> None:
        """Publish a last time, move the own figures to those of the dead and leave."""
        self._closing = True
        if self._place is None:
            return
        async with self._keeping, self._answering:
            directory, self._directory, self._place = self._directory, None, None
            if directory is None:
                return
            try:
                self._follow(await self._epoch_there(directory))
                _, data, _ = await collect(self._own, epoch=self._epoch, health=self._health)
                await self._write(directory, data)
                directory.leave()
                give_up_at_s = time.monotonic() + LOCK_WAIT_S
                while not await self._fold(directory, (directory.name,)):
                    if time.monotonic() >= give_up_at_s:
                        break
                    await anyio.sleep(LOCK_POLL_S)
            except OSError as error:
                self._health.failed("write", error)
            finally:
                directory.close()

    def status(self) -> dict[str, Any]:
        """Whether figures are shared, where and how often."""
        if self._place is None:
            reason = "not supported on Windows" if os.name == "nt" else "no sibling processes"
            return {"state": "alone", "reason": reason}
        health = self._health
        return {
            "state": "degraded" if health.troubles else "sharing",
            "reason": "; ".join(health.troubles.values()),
            "directory": f"{self._place.base}/{self._place.name}",
            "siblings": self._siblings,
            "snapshot_every_s": round(self._pause_s, 3),
            "snapshot_bytes": health.published_bytes,
            "errors": {reason: count for reason, count in health.errors.items() if count},
        }

    # -- figures ----------------------------------------------------------------------------------

    @property
    def sharing(self) -> bool:
        """Whether this process belongs to a group of workers."""
        return self._place is not None

    @property
    def siblings(self) -> int:
        """How many other living workers there were at the last turn or answer."""
        return self._siblings

    def families(self) -> Iterable[Family]:
        """The exchange's own figures; `own` should offer them among the others."""
        return self._health.families()

    async def combined(self) -> list[Family]:
        """The figures of all workers; each family's points may be read once.

        The own figures alone where there is no group or the directory cannot be used.
        """
        if self._place is None:
            return list(self._own())
        health = self._health
        corrupt_before = health.errors["corrupt"]
        async with self._answering:
            frames, members, retired = await self._gather()
            own_file = self._directory.name if self._directory is not None else ""
        pids = {member.name: member.worker for member, _ in members if member.alive}
        workers = worker_names({**pids, own_file: str(os.getpid())})
        pacer, totals = Pacer(), Totals()
        for frame in frames:
            totals.add(frame, worker=workers[own_file])
            await pacer.pause_if_due()
        folded = retired.folded if retired else ()
        for member, snapshot in members:
            if member.name not in folded:
                worker = workers.get(member.name, "")
                await self._add(totals, snapshot, worker, pacer, alive=member.alive)
        await self._add(totals, retired, "", pacer, alive=False)
        self._siblings = sum(member.alive for member, _ in members)
        if totals.refused:
            named = ", ".join(sorted(totals.refused)[:CONFLICTS_NAMED_MAX])
            health.failed("conflict", f"in another shape in another worker: {named}")
        else:
            health.worked("conflict")
        if health.errors["corrupt"] == corrupt_before:
            health.worked("corrupt")
        return list(totals.families())

    async def reset(self) -> bool:
        """Begin again from zero; False where only this process did.

        The other workers notice at their next snapshot or scrape and call their own `on_reset`;
        what they counted since then is lost with the rest.
        """
        done = self._place is None
        epoch, directory = self._epoch + 1, self._directory
        if directory is not None:
            async with self._keeping:
                try:
                    epoch = max(epoch, await self._begin_epoch(directory))
                    done = True
                except OSError as error:
                    self._health.failed("write", error)
        self._follow(epoch)
        return done

    # -- inside -----------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Every interval: fold the dead, and publish where there is somebody to read it."""
        while not self._closing:
            await anyio.sleep(self._interval_s)
            async with self._keeping:
                if self._place is None or self._closing:
                    return
                try:
                    await self._keep_once(self._place)
                except OSError as error:
                    self._health.failed("directory", error)
                except Exception as error:  # noqa: BLE001 - a collector's bug must not end the task
                    self._health.failed("collect", error)

    async def _keep_once(self, place: Place) -> None:
        if self._directory is None or self._directory_lost:
            await self._join(place)
        directory = self._directory
        if directory is None:
            return
        look = await self._threads.run(directory.look)
        self._siblings = len(look.alive)
        if look.dead or look.litter:
            await self._fold(directory, look.dead, look.litter)
        self._health.worked("directory")
        if look.alive and time.monotonic() >= self._publish_at_s:
            async with self._answering:
                await self._publish(directory)

    async def _join(self, place: Place) -> None:
        # Imported here: these need fcntl, which Windows has not.
        from perf_middleware.metrics.stores.directory import SnapshotDirectory
        from perf_middleware.metrics.stores.ended import remove_ended_groups

        async with self._answering:
            if self._directory is not None:
                self._directory.close()
            self._directory = None
            try:
                directory = await self._threads.run(SnapshotDirectory, place)
            except OSError as error:
                self._health.failed("directory", error)
                return
            self._directory, self._directory_lost = directory, False
            self._epoch = max(self._epoch, await self._epoch_there(directory))
            # Without any figures yet: it tells the others that they are not alone.
            await self._write(directory, encode_head(epoch=self._epoch))
        with contextlib.suppress(OSError):  # litter of others is no trouble of ours
            await self._threads.run(remove_ended_groups, place)

    async def _gather(
        self,
    ) -> tuple[list[Frame], list[tuple[Member, Snapshot | None]], Snapshot | None]:
        """Publish, then read all others: in this order no counter is seen to fall."""
        directory = self._directory
        if directory is None:
            frames, _, _ = await collect(self._own, epoch=self._epoch, health=self._health)
            return frames, [], None
        members: list[tuple[Member, Snapshot | None]] = []
        retired = None
        for _ in range(2):  # a second time where a reset came in between
            frames = await self._publish(directory)
            try:
                found, found_retired = await self._threads.run(read_all, directory)
            except OSError as error:
                self._health.failed("read", error)
                return frames, [], None
            self._health.worked("read")
            retired = accepted(found_retired, self._health)
            members = [(member, accepted(each, self._health)) for member, each in found]
            snapshots = [retired, *(snapshot for _, snapshot in members)]
            newest = max(snapshot.epoch if snapshot else 0 for snapshot in snapshots)
            if newest <= self._epoch:
                break
            self._follow(newest)
        return frames, members, retired

    async def _publish(self, directory: SnapshotDirectory) -> list[Frame]:
        """Publish the own figures as they are now, and give them as frames."""
        self._follow(await self._epoch_there(directory))
        frames, data, busy_ns = await collect(self._own, epoch=self._epoch, health=self._health)
        self._pause_s = max(self._interval_s, busy_ns / 1e9 / BUSY_SHARE_MAX)
        await self._write(directory, data)
        self._publish_at_s = time.monotonic() + self._pause_s
        return frames

    async def _write(self, directory: SnapshotDirectory, data: bytes) -> None:
        try:
            await self._threads.run(directory.publish, data)
        except OSError as error:
            # The directory itself is gone, or another one has its name: the keeper joins again.
            self._directory_lost = isinstance(error, FileNotFoundError)
            self._health.failed("write", error)
            return
        self._health.worked("write")
        self._health.published += 1
        self._health.published_bytes = len(data)

    async def _add(
        self, totals: Totals, snapshot: Snapshot | None, worker: str, pacer: Pacer, *, alive: bool
    ) -> None:
        if snapshot is None or snapshot.epoch < self._epoch:
            return
        for frame in await frames_in(snapshot, pacer, self._health):
            totals.add(frame, worker=worker, alive=alive)
            await pacer.pause_if_due()

    async def _fold(
        self, directory: SnapshotDirectory, dead: tuple[str, ...], litter: tuple[str, ...] = ()
    ) -> bool:
        return await fold(
            directory, dead, litter,
            epoch=self._epoch, threads=self._threads, health=self._health,
        )  # fmt: skip

    async def _begin_epoch(self, directory: SnapshotDirectory) -> int:
        """Empty `retired` and give it a new epoch.  Raises OSError."""
        give_up_at_s = time.monotonic() + LOCK_WAIT_S
        while not directory.try_lock():
            if time.monotonic() >= give_up_at_s:
                raise TimeoutError("another worker keeps the lock")
            await anyio.sleep(LOCK_POLL_S)
        try:
            retired = accepted(await self._threads.run(read_retired, directory), self._health)
            epoch = max(self._epoch, retired.epoch if retired else 0) + 1
            head = encode_head(epoch=epoch, folded=retired.folded if retired else ())
            await self._threads.run(directory.replace_retired, head)
        finally:
            directory.unlock()
        return epoch

    async def _epoch_there(self, directory: SnapshotDirectory) -> int:
        try:
            preamble = await self._threads.run(directory.read_retired_preamble)
            return epoch_of(preamble) if preamble else 0
        except OSError as error:
            self._health.failed("read", error)
        except SnapshotError as error:
            self._health.failed("corrupt", error)
        return 0

    def _follow(self, epoch: int) -> None:
        if epoch > self._epoch:
            self._epoch = epoch
            if self._on_reset is not None:
                self._on_reset()

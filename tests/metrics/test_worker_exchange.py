"""The exchange in one process: every worker is an exchange of its own over the same directory."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from perf_middleware.families import (
    NO_LABELS,
    Distribution,
    Exemplar,
    Family,
    LabelSet,
    Value,
    counter,
    gauge,
)
from perf_middleware.metrics.stores import directory, shared
from perf_middleware.metrics.stores.directory import RETIRED, SnapshotDirectory
from perf_middleware.metrics.stores.shared import WorkerExchange
from perf_middleware.metrics.workers.snapshot import encode_head
from tests.metrics.snapshots import encode

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Killed(BaseException):
    """Thrown where a process would have died."""


class Tasks:
    """A lifespan plugin that never runs anything: the tests take the keeper's turns themselves."""

    def __init__(self) -> None:
        self.started = []

    def start(self, name, run) -> None:
        self.started.append(name)


class Worker:
    def __init__(self, directory, *, interval_s=1.0, buckets=(1.0,)):
        self.count = 0
        self.seconds = 0.0
        self.buckets = buckets
        self.tasks = Tasks()
        self.exchange = WorkerExchange(
            directory, service="app", own=self.own, interval_s=interval_s, on_reset=self.zero
        )

    def zero(self) -> None:
        self.count = 0

    def own(self):
        exemplar = {0: Exemplar("trace", 0.5, float(self.count))}
        row = [self.count] * (len(self.buckets) + 1)
        yield counter("jobs", "h", [Value(LabelSet([("route", "/")]), self.count)])
        yield gauge("in_progress", "h", [Value(NO_LABELS, 1)])
        yield Family(
            name="took_seconds", kind="histogram", help="h", unit="seconds", bounds=self.buckets,
            points=[Distribution(NO_LABELS, row, self.seconds, exemplar)],
        )  # fmt: skip
        yield from self.exchange.families()

    async def turn(self) -> None:
        await self.exchange._keep_once(self.exchange._place)

    async def scrape(self) -> dict:
        found = {}
        for family in await self.exchange.combined():
            for point in family.points:
                reason = dict(point.labels.pairs).get("reason")
                name = f"{family.name}:{reason}" if reason else family.name
                found[name] = point.value if isinstance(point, Value) else point
        return found

    async def jobs(self) -> int:
        return (await self.scrape())["jobs"]

    async def die(self) -> None:
        """As a process that is killed: the kernel lets go of its locks, nothing else happens."""
        directory, self.exchange._directory = self.exchange._directory, None
        self.exchange._place = None
        directory.close()


@asynccontextmanager
async def working(directory: Path, count: int = 1, **options):
    workers = [Worker(directory, **options) for _ in range(count)]
    for worker in workers:
        await worker.exchange.open(worker.tasks)
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.exchange.close()


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "app.v1").iterdir())


async def test_a_scraped_worker_publishes_what_it_answers(tmp_path):
    async with working(tmp_path, 2) as (one, two):
        one.count = 5
        assert await one.jobs() == 5
        two.count = 1
        assert await two.jobs() == 6


async def test_between_scrapes_the_keeper_publishes_only_where_somebody_reads_it(tmp_path):
    async with working(tmp_path, 1) as (one,):
        (name,) = files(tmp_path)
        file = tmp_path / "app.v1" / name
        before = file.stat().st_ino
        one.count = 5
        await one.turn()
        assert file.stat().st_ino == before
        async with working(tmp_path, 1) as (two,):
            await one.turn()
            assert await two.jobs() == 5


async def test_a_worker_that_comes_late_answers_no_less_than_was_answered_before(tmp_path):
    async with working(tmp_path, 1) as (one,):
        one.count = 5
        assert await one.jobs() == 5
        async with working(tmp_path, 1) as (two,):
            assert await two.jobs() == 5


async def test_a_dead_worker_keeps_its_counts_and_loses_its_gauges(tmp_path):
    async with working(tmp_path, 2) as (one, two):
        one.count, one.seconds = 5, 0.1
        await one.scrape()
        await one.die()
        for _ in range(2):  # before and after its figures have moved
            seen = await two.scrape()
            assert (seen["jobs"], seen["in_progress"], seen["perf_workers"]) == (5, 1, 1)
            assert seen["took_seconds"].cumulative == [5, 5]
            assert seen["took_seconds"].sum == 0.1
            assert seen["took_seconds"].exemplars == {0: Exemplar("trace", 0.5, 5.0)}
            await two.turn()
        assert len(files(tmp_path)) == 2
        assert (await two.scrape())["perf_workers_folded"] == 1


async def test_a_clean_end_loses_nothing_even_without_siblings(tmp_path):
    async with working(tmp_path, 1) as (one,):
        one.count = 5
    assert files(tmp_path) == [RETIRED]
    async with working(tmp_path, 1) as (two,):
        assert await two.jobs() == 5


@pytest.mark.parametrize("step", ["replace_retired", "remove"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
async def test_a_fold_cut_off_at_any_step_counts_everything_once(tmp_path, monkeypatch, step, done):
    async with working(tmp_path, 3) as (dead, folder, third):
        dead.count = 5
        await dead.scrape()
        await dead.die()
        work = getattr(SnapshotDirectory, step)

        def cut_off(self, *args):
            if done or (step == "remove" and not args[0]):
                work(self, *args)
            if step != "remove" or args[0]:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(SnapshotDirectory, step, cut_off)
            with pytest.raises(Killed):
                await folder.turn()
        assert await third.jobs() == 5
        await folder.die()
        assert await third.jobs() == 5
        await third.turn()
        await third.turn()
        assert await third.jobs() == 5
        assert len(files(tmp_path)) == 2


async def test_only_one_worker_folds_at_a_time(tmp_path):
    async with working(tmp_path, 3) as (dead, one, two):
        dead.count = 5
        await dead.scrape()
        await dead.die()
        assert one.exchange._directory.try_lock()
        assert not one.exchange._directory.try_lock()
        await two.turn()
        assert len(files(tmp_path)) == 3
        one.exchange._directory.unlock()
        await two.turn()
        assert len(files(tmp_path)) == 3, "two living workers and the dead's figures"
        assert RETIRED in files(tmp_path)
        assert await two.jobs() == 5


async def test_a_closing_worker_that_cannot_fold_leaves_its_figures_to_the_others(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(shared, "LOCK_WAIT_S", 0.0)
    async with working(tmp_path, 2) as (one, two):
        one.count = 5
        assert two.exchange._directory.try_lock()
        await one.exchange.close()
        two.exchange._directory.unlock()
        assert await two.jobs() == 5
        await two.turn()
        assert await two.jobs() == 5
        assert len(files(tmp_path)) == 2


async def test_a_fold_between_reading_files_and_reading_the_dead_counts_nothing_twice(
    tmp_path, monkeypatch
):
    async with working(tmp_path, 3) as (dead, folder, reader):
        dead.count = 5
        await dead.scrape()
        await dead.die()
        # The reader has the file, then it is folded, then the reader looks at the dead.
        members, _ = reader.exchange._directory.read()
        await folder.turn()
        retired = reader.exchange._directory.read_retired()
        monkeypatch.setattr(SnapshotDirectory, "read", lambda _: (members, retired))
        assert await reader.jobs() == 5


async def test_a_file_that_went_without_a_trace_makes_the_reader_begin_again(tmp_path, monkeypatch):
    async with working(tmp_path, 2) as (dead, reader):
        dead.count = 5
        await dead.scrape()
        await dead.die()
        (name,) = reader.exchange._directory.look().dead
        read_retired, turns = SnapshotDirectory.read_retired, []

        def forgetful(self, *args):
            turns.append(1)
            if len(turns) == 2:  # the first is the reader's look at the epoch
                (tmp_path / "app.v1" / name).unlink()
            return read_retired(self, *args)

        monkeypatch.setattr(SnapshotDirectory, "read_retired", forgetful)
        assert await reader.jobs() == 0
        assert len(turns) == 3


async def test_a_worker_that_publishes_while_it_is_looked_at_is_not_taken_for_dead(
    tmp_path, monkeypatch
):
    async with working(tmp_path, 2) as (one, reader):
        one.count = 5
        await one.scrape()
        has_no_owner, seen = directory._has_no_owner, []

        def publishes_first(fd):
            if not seen:
                one.exchange._directory.publish(encode(one.own()))
            seen.append(has_no_owner(fd))
            return seen[-1]

        monkeypatch.setattr(directory, "_has_no_owner", publishes_first)
        assert (await reader.scrape())["in_progress"] == 2
        assert seen == [True], "what was opened had no owner any more"


async def test_a_listing_that_falls_into_a_rename_still_names_the_worker(tmp_path, monkeypatch):
    async with working(tmp_path, 2) as (one, reader):
        one.count = 5
        await one.scrape()
        listdir = os.listdir
        monkeypatch.setattr(
            "perf_middleware.metrics.stores.directory.os.listdir",
            lambda fd: [f"{name}.tmp" for name in listdir(fd)],
        )
        assert await reader.jobs() == 5


async def test_a_reset_in_the_middle_of_a_scrape_is_followed_within_it(tmp_path, monkeypatch):
    async with working(tmp_path, 2) as (one, two):
        one.count, two.count = 3, 4
        read, turns = SnapshotDirectory.read, []

        def late(self):
            turns.append(1)
            if len(turns) == 1:
                other = two.exchange._directory
                other.replace_retired(encode_head(epoch=1))
                two.exchange._follow(1)
                other.publish(encode([], epoch=1))
            return read(self)

        monkeypatch.setattr(SnapshotDirectory, "read", late)
        assert await one.jobs() == 0
        assert len(turns) == 2


async def test_a_reused_pid_is_not_taken_for_the_dead_worker(tmp_path):
    """The file's name has the pid of a living process: this one.  Nobody holds its lock."""
    async with working(tmp_path, 1) as (one,):
        stray = tmp_path / "app.v1" / f"{os.getpid()}-{'0' * 16}.snap"
        stray.write_bytes(encode([counter("jobs", "h", [Value(LabelSet([("route", "/")]), 5)])]))
        assert await one.jobs() == 5
        await one.turn()
        assert not stray.exists()
        assert await one.jobs() == 5


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"nonsense", id="nonsense"),
        pytest.param(encode([counter("jobs", "h", [Value(NO_LABELS, 7)])])[:-1], id="cut short"),
    ],
)
async def test_a_corrupt_snapshot_is_left_out_counted_and_cleared_away(tmp_path, content, caplog):
    caplog.set_level(logging.INFO, "perf_middleware.metrics")
    async with working(tmp_path, 1) as (one,):
        one.count = 1
        stray = tmp_path / "app.v1" / f"1-{'0' * 16}.snap"
        stray.write_bytes(content)
        assert await one.jobs() == 1
        await one.turn()
        assert not stray.exists()
        errors = (await one.scrape())["perf_worker_snapshot_errors:corrupt"]
        assert errors == (2 if content else 0)
        assert one.exchange.status()["state"] == "sharing"
        assert len(caplog.records) == (2 if content else 0), "one line for each change"


async def test_corrupt_figures_of_the_dead_are_left_out_and_replaced_at_the_next_death(tmp_path):
    async with working(tmp_path, 2) as (one, two):
        (tmp_path / "app.v1" / RETIRED).write_bytes(b"\xff" * 100)
        one.count = 5
        assert await one.jobs() == 5
        await one.exchange.close()
        assert await two.jobs() == 5
        assert (await two.scrape())["perf_worker_snapshot_errors:corrupt"] > 0


async def test_workers_with_other_buckets_answer_with_their_own(tmp_path, caplog):
    caplog.set_level(logging.INFO, "perf_middleware.metrics")
    old, new = Worker(tmp_path), Worker(tmp_path, buckets=(1.0, 2.0))
    for number, worker in enumerate((old, new), 1):
        await worker.exchange.open(worker.tasks)
        worker.count = number
    await old.scrape()
    seen = await new.scrape()
    assert (seen["jobs"], seen["took_seconds"].cumulative) == (3, [2, 2, 2])
    assert (await new.scrape())["perf_worker_snapshot_errors:conflict"] == 1
    status = new.exchange.status()
    assert (status["state"], status["errors"]) == ("degraded", {"conflict": 2})
    assert "took_seconds" in status["reason"]
    assert len(caplog.records) == 1
    await old.exchange.close()
    async with working(tmp_path, 1) as (third,):
        assert (await third.scrape())["took_seconds"].cumulative == [1, 1], "of its own kind"
        await new.exchange.close()
        assert (await third.scrape())["took_seconds"].cumulative == [1, 1]
        assert await third.jobs() == 3


async def test_a_conflict_is_over_when_the_other_worker_agrees(tmp_path, caplog):
    caplog.set_level(logging.INFO, "perf_middleware.metrics")
    async with working(tmp_path, 2) as (one, two):
        two.buckets = (1.0, 2.0)
        await two.scrape()
        await one.scrape()
        two.buckets = one.buckets
        await two.scrape()
        await one.scrape()
        assert one.exchange.status()["state"] == "sharing"
        assert [r.levelname for r in caplog.records if "conflict" in r.getMessage()] == [
            "WARNING", "INFO",
        ]  # fmt: skip


async def test_two_hundred_workers_come_and_go_and_leave_no_files(tmp_path):
    async with working(tmp_path, 1) as (watcher,):
        for generation in range(20):
            async with working(tmp_path, 10) as workers:
                for number, worker in enumerate(workers):
                    worker.count = 1
                    if number % 2:
                        await worker.scrape()
                        await worker.die()
                assert len(files(tmp_path)) <= 10 + 1 + 1
            await watcher.turn()
            assert len(files(tmp_path)) == 2
            assert await watcher.jobs() == 10 * (generation + 1)
        assert (await watcher.scrape())["perf_workers_folded"] == 200


async def test_half_written_files_of_the_dead_are_cleared_away(tmp_path):
    async with working(tmp_path, 1) as (one,):
        group = tmp_path / "app.v1"
        old, young = group / f"1-{'0' * 16}.snap.tmp", group / f"2-{'0' * 16}.snap.tmp"
        for file in (old, young, group / "somebody else's"):
            file.write_bytes(b"half")
        os.utime(old, (1, 1))
        await one.turn()
        assert not old.exists()
        assert young.exists()
        assert (group / "somebody else's").exists()
        assert await one.jobs() == 0


async def test_a_reset_by_one_worker_is_followed_by_all(tmp_path):
    async with working(tmp_path, 3) as (dead, one, two):
        dead.count, one.count, two.count = 100, 10, 1
        await dead.exchange.close()
        assert await two.jobs() == 101
        assert await one.exchange.reset()
        assert one.count == 0
        assert await one.jobs() == 0, "figures from before the reset are left out at once"
        one.count = 3
        assert await two.jobs() == 0
        assert two.count == 0, "it followed when it noticed"
        assert await one.jobs() == 3
        assert await two.jobs() == 3
        await one.exchange.close()
        async with working(tmp_path, 1) as (new,):
            new.count = 1
            assert await new.jobs() == 4


async def test_a_reset_that_cannot_reach_the_others_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "LOCK_WAIT_S", 0.0)
    async with working(tmp_path, 2) as (one, two):
        one.count = 3
        assert two.exchange._directory.try_lock()
        assert not await one.exchange.reset()
        assert one.count == 0
        two.exchange._directory.unlock()


async def test_without_siblings_the_own_families_pass_through(monkeypatch):
    worker = Worker(None)
    assert await worker.jobs() == 0, "not opened yet"
    await worker.exchange.open(worker.tasks)
    assert worker.tasks.started == []
    assert worker.exchange.status() == {"state": "alone", "reason": "no sibling processes"}
    worker.count = 3
    assert await worker.jobs() == 3
    assert await worker.exchange.reset()
    assert await worker.jobs() == 0
    await worker.exchange.close()


async def test_on_windows_the_own_families_pass_through(tmp_path, monkeypatch):
    worker = Worker(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        await worker.exchange.open(worker.tasks)
        assert worker.exchange.status()["reason"] == "not supported on Windows"
    worker.count = 3
    assert await worker.jobs() == 3


def foreign(path: Path) -> None:
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        path.rmdir()
        path.symlink_to("/usr", target_is_directory=True)


def linked(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.mkdir(mode=0o700)
    path.symlink_to(target, target_is_directory=True)


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


def a_file(path: Path) -> None:
    path.write_text("not a directory")


@pytest.mark.parametrize("prepare", [foreign, linked, open_to_all, a_file])
async def test_a_directory_that_is_not_ours_alone_is_refused_and_tried_again(
    tmp_path, prepare, caplog
):
    caplog.set_level(logging.INFO, "perf_middleware.metrics")
    place = tmp_path / "app.v1"
    prepare(place)
    async with working(tmp_path, 1) as (one,):
        one.count = 3
        assert await one.jobs() == 3
        assert one.exchange.status()["state"] == "degraded"
        await one.turn()
        if place.is_symlink():
            assert list(place.resolve().glob("*.snap")) == []
        assert (await one.scrape())["perf_worker_snapshot_errors:directory"] == 2
        assert len(caplog.records) == 1

        place.rename(tmp_path / "moved")
        await one.turn()
        assert one.exchange.status()["state"] == "sharing"
        assert place.stat().st_mode & 0o777 == 0o700
        assert {f.stat().st_mode & 0o777 for f in place.iterdir()} == {0o600}
        async with working(tmp_path, 1) as (two,):
            assert await two.jobs() == 3 or await one.jobs() == 3
        assert len(caplog.records) == 2


async def test_trouble_that_lasts_is_said_once(tmp_path, caplog):
    """It flapped: a turn that could not join the group was taken for one that worked."""

    class Running:
        def start(self, name, run) -> None:
            group.start_soon(run)

    caplog.set_level(logging.INFO, "perf_middleware.metrics")
    no_directory = tmp_path / "a file"
    no_directory.write_text("in the way")
    async with anyio.create_task_group() as group:
        worker = Worker(no_directory, interval_s=0.001)
        await worker.exchange.open(Running())

        async def tried(times):
            with anyio.fail_after(120):
                while worker.exchange.status()["errors"].get("directory", 0) < times:
                    await anyio.sleep(0.001)

        await tried(5)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert worker.exchange.status()["state"] == "degraded"
        no_directory.unlink()
        with anyio.fail_after(120):
            while worker.exchange.status()["state"] != "sharing":
                await anyio.sleep(0.001)
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        await worker.exchange.close()


async def test_a_directory_that_somebody_removed_is_made_again(tmp_path):
    async with working(tmp_path, 2) as (one, two):
        one.count, two.count = 3, 4
        assert await one.jobs() + await two.jobs() == 10
        for file in (tmp_path / "app.v1").iterdir():
            file.unlink()
        (tmp_path / "app.v1").rmdir()
        assert await one.jobs() == 3
        for worker in (one, two):
            await worker.scrape()
            await worker.turn()
            await worker.scrape()
        assert await one.jobs() == 7
        assert await two.jobs() == 7


async def test_files_that_cannot_be_read_leave_the_own_figures(tmp_path, monkeypatch):
    async with working(tmp_path, 2) as (one, two):
        two.count = 1
        await two.scrape()
        one.count = 3

        def fails(self):
            raise OSError(errno.EIO, "bad sector")

        with monkeypatch.context() as patch:
            patch.setattr(SnapshotDirectory, "read", fails)
            assert await one.jobs() == 3
        assert "bad sector" in one.exchange.status()["reason"]
        assert await one.jobs() == 4
        assert one.exchange.status()["reason"] == ""


async def test_a_broken_family_is_left_out_and_the_others_are_served(tmp_path):
    worker = Worker(tmp_path)
    whole = worker.exchange._own

    def own():
        yield counter("broken", "h", [Distribution(NO_LABELS, [1], 1.0)])
        yield counter("raises", "h", (1 / 0 for _ in range(1)))
        yield from whole()

    worker.exchange._own = own
    await worker.exchange.open(worker.tasks)
    worker.count = 3
    assert await worker.jobs() == 3
    assert (await worker.scrape())["perf_worker_snapshot_errors:collect"] >= 1
    await worker.exchange.close()


async def test_the_keeper_survives_a_collector_that_raises_and_ends_with_the_exchange(tmp_path):
    class Running:
        def start(self, name, run) -> None:
            group.start_soon(run)

    async with working(tmp_path, 1), anyio.create_task_group() as group:
        worker = Worker(tmp_path, interval_s=0.01)
        failing = True
        whole = worker.exchange._own

        def own():
            if failing:
                raise RuntimeError("a collector of the app's")
            return whole()

        worker.exchange._own = own
        await worker.exchange.open(Running())
        with anyio.fail_after(120):
            while worker.exchange.status()["state"] != "degraded":
                await anyio.sleep(0.01)
            failing = False
            while worker.exchange.status()["state"] != "sharing":
                await anyio.sleep(0.01)
        await worker.exchange.close()


async def test_publishing_takes_a_bounded_share_of_the_time(tmp_path):
    async with working(tmp_path, 2, interval_s=0.05) as (one, _):
        assert one.exchange.status()["snapshot_every_s"] == 0.05
        labels = [LabelSet([("i", str(i))]) for i in range(2_000)]
        points = [Value(each, 1) for each in labels]
        one.exchange._own = lambda: [counter("many", "h", points)]
        busy_before_s = one.exchange._health.busy_ns / 1e9
        await one.exchange.combined()
        busy_s = one.exchange._health.busy_ns / 1e9 - busy_before_s
        assert one.exchange.status()["snapshot_every_s"] == pytest.approx(
            max(0.05, busy_s / shared.BUSY_SHARE_MAX), abs=0.001
        )


async def test_close_does_no_harm_without_open_or_twice(tmp_path):
    worker = Worker(tmp_path)
    await worker.exchange.close()
    await worker.exchange.open(worker.tasks)
    await worker.exchange.close()
    await worker.exchange.close()
    await worker.exchange.open(worker.tasks)
    worker.count = 1
    assert await worker.jobs() == 1
    await worker.exchange.close()

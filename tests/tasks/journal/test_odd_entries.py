"""A journal that others write to: rows of any shape, tasks of other services, a health to tell."""

import asyncio
from contextlib import suppress

import pytest
from starlette.applications import Starlette

from perf_middleware import JournalUnavailableError, QueueLimits, Settings, install
from perf_middleware.tasks import Tasks
from perf_middleware.tasks.journal.entries import JournalLimits
from perf_middleware.tasks.journal.runtime import feeder
from tests.tasks.journal.test_journal import entries_of, noting
from tests.tasks.waiting import until


def tasks_at(path, *, unregistered_s=600.0, drain_s=5.0):
    return Tasks(
        QueueLimits(drain_s=drain_s),
        journal_path=path,
        journal_limits=JournalLimits(unregistered_s=unregistered_s),
        journal_look_every_s=0.02,
    )


ODD = [
    pytest.param({"task": b"\xff\xfe"}, id="a name that is no text"),
    pytest.param({"task": 7}, id="a name that is a number"),
    pytest.param({"arguments": "text"}, id="arguments that are text, no JSON"),
    pytest.param({"arguments": b"\xff\x00"}, id="arguments that are no text"),
    pytest.param({"arguments": 3.5}, id="arguments that are a number"),
    pytest.param({"arguments": b"[" * 100_000}, id="arguments without an end"),
    pytest.param({"owner": "../../odd"}, id="an owner that is a path"),
    pytest.param({"owner": b"\x00"}, id="an owner that is no text"),
    pytest.param({"starts": "often"}, id="starts that are no number"),
    pytest.param({"state": "asleep", "made_by": 1, "accepted_us": "today"}, id="all the rest"),
]


@pytest.mark.parametrize("odd", ODD)
def test_an_entry_of_any_shape_keeps_none_from_running(tmp_path, odd):
    async def main():
        ran, path = [], tmp_path / "tasks.db"
        async with tasks_at(path, unregistered_s=0) as tasks:
            note = noting(tasks, ran)
            row = {
                "task": "note", "arguments": b'[["odd"],{}]', "made_by": "", "owner": "",
                "state": 0, "starts": 0, "accepted_us": 0, "reason": "",
            } | odd  # fmt: skip
            await tasks.journal._ask(
                lambda store: store._execute(
                    f"INSERT INTO entries ({', '.join(row)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    tuple(row.values()),
                )
            )
            await tasks.background(None, note, "sound", durable=True)

            async def all_are_told():
                entries, dead = await entries_of(tasks)
                return entries == dead and "sound" in ran

            await until(all_are_told)
            letters = await tasks.journal.dead_letters()
            assert len(letters) + len(ran) == 2
            assert all(letter["reason"] for letter in letters)

    asyncio.run(main())


def test_tasks_of_another_service_are_left_to_it(tmp_path, caplog):
    async def main():
        path, ran = tmp_path / "tasks.db", []
        async with tasks_at(path, drain_s=0) as theirs:
            other = theirs.task(name="other")(asyncio.sleep)
            await theirs.background(None, other, 3_600, durable=True)
        async with tasks_at(path) as ours:
            note = noting(ours, [])
            await ours.background(None, note, 1, durable=True)
            await until(lambda: ours.status()["journal"]["unregistered"] == {"other": 1})
            assert await ours.journal.dead_letters() == []
            theirs = tasks_at(path)

            @theirs.task(name="other")
            async def again(seconds):
                ran.append(seconds)

            async with theirs:
                await until(lambda: ran == [3_600])
                await until(lambda: ours.status()["journal"]["unregistered"] == {})

    asyncio.run(main())
    told = [each.getMessage() for each in caplog.records if "not registered" in each.getMessage()]
    (told,) = told
    assert told == (
        "1 accepted tasks are of other, which is not registered here: they are left to a process "
        "that knows it, and dead letters in 600 s"
    )


def test_tasks_that_nobody_knows_wait_once_however_many_they_are(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(feeder, "LOADED_MAX", 1)

    async def main():
        path = tmp_path / "tasks.db"
        async with tasks_at(path, drain_s=0) as theirs:
            other = theirs.task(name="other")(asyncio.sleep)
            for _ in range(3):
                await theirs.background(None, other, 3_600, durable=True)
        async with tasks_at(path, unregistered_s=0) as ours:

            async def all_are_dead():
                return await entries_of(ours) == (3, 3)

            await until(all_are_dead)

    asyncio.run(main())
    told = [each for each in caplog.records if "is not registered here" in each.getMessage()]
    assert len(told) == 1  # each time it was told they would have waited anew


class Unfit:
    def options(self, **_):
        return self

    async def enqueue(self, *_):
        raise AssertionError("a defect")


def test_an_entry_that_cannot_be_enqueued_keeps_no_place(tmp_path, monkeypatch):
    monkeypatch.setattr(feeder, "LOADED_MAX", 1)

    async def main():
        ran = []
        async with tasks_at(tmp_path / "tasks.db") as tasks:
            note = noting(tasks, ran)

            with monkeypatch.context() as broken:
                broken.setattr(type(note), "around", lambda *_: Unfit())
                await tasks.background(None, note, 1, durable=True)
                await until(tasks.journal.dead_letters)
            await tasks.background(None, note, 2, durable=True)
            await until(lambda: ran == [2])

    asyncio.run(main())


def test_a_failure_of_our_own_does_not_end_the_feeding(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(feeder, "RETRY_S", 0.01)

    async def main():
        ran = []
        async with tasks_at(tmp_path / "tasks.db") as tasks:
            note = noting(tasks, ran)
            whole, failed = tasks.journal._feeder._next, asyncio.Event()

            def broken():
                monkeypatch.setattr(tasks.journal._feeder, "_next", whole)
                failed.set()
                raise AssertionError("a defect")

            monkeypatch.setattr(tasks.journal._feeder, "_next", broken)
            await tasks.background(None, note, 1, durable=True)
            await until(lambda: ran == [1])
            assert failed.is_set()

    asyncio.run(main())
    assert "feeding durable tasks failed" in caplog.text


def test_a_step_that_fails_leaves_no_transaction_to_the_next(tmp_path):
    def broken(store):
        store.accept("note", b"[[],{}]", "")
        raise AssertionError("a defect")

    async def main():
        async with tasks_at(tmp_path / "tasks.db") as tasks:
            with pytest.raises(JournalUnavailableError, match="a defect"):
                await tasks.journal._ask(broken)
            assert await entries_of(tasks) == (0, 0)

    asyncio.run(main())


def test_a_journal_that_is_away_is_told_where_operators_look(tmp_path):
    app, folder = Starlette(), tmp_path / "later"
    perf = install(
        app,
        Settings(dashboard={"enabled": False}, tasks={"journal_path": folder / "tasks.db"}),
    )
    perf.tasks.journal._look_every_s = 0.01

    def told():
        entry = perf.status()["resources"]["task queue"]
        (up,) = [each for each in perf.tasks.families() if each.name == "perf_journal_up"]
        (point,) = up.points
        return entry["state"], entry.get("reason", ""), point.value

    async def main():
        async with perf.running():
            await until(lambda: told()[0] == "degraded")
            _, reason, up = told()
            assert reason.startswith("durable tasks are not accepted: ")
            assert (str(folder) in reason, up) == (True, 0)
            assert perf.status()["health"]["score"] < 100
            folder.mkdir()
            await until(lambda: told() == ("open", "", 1))

    asyncio.run(main())


FULL = """CREATE TEMP TRIGGER is_full BEFORE INSERT ON main.entries
    BEGIN SELECT RAISE(ABORT, 'disk is full'); END"""


async def there_is_room_again(tasks):
    while True:
        with suppress(JournalUnavailableError):  # in one batch with a look that has failed
            await tasks.journal._ask(lambda store: store._execute("DROP TRIGGER is_full"))
            return


def test_a_file_that_can_only_be_read_is_not_told_to_be_well_again(tmp_path, caplog):
    async def main():
        async with tasks_at(tmp_path / "tasks.db") as tasks:
            note = noting(tasks, [])
            await tasks.journal._ask(lambda store: store._execute(FULL))
            with pytest.raises(JournalUnavailableError, match="full"):
                await tasks.background(None, note, 1, durable=True)
            before = tasks.journal._counted().batches
            await until(lambda: tasks.journal._counted().batches > before + 6)  # looks, and claims
            assert "full" in tasks.status()["journal"]["state"]
            await there_is_room_again(tasks)
            await until(lambda: tasks.status()["journal"]["state"] == "open")
            assert await entries_of(tasks) == (0, 0)

    asyncio.run(main())
    told = [each.getMessage() for each in caplog.records if "are not accepted" in each.getMessage()]
    assert len(told) == 1

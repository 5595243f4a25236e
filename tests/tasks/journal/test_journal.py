"""Durable tasks as an app uses them: accepted, run, taken over, buried, replayed."""

import asyncio
import logging
import threading

import pytest

from perf_middleware import (
    JournalFullError,
    JournalUnavailableError,
    QueueLimits,
    TaskArgumentsError,
)
from perf_middleware.tasks import Tasks
from perf_middleware.tasks.journal.entries import JournalLimits
from perf_middleware.tasks.journal.runtime import feeder
from tests.tasks.journal.test_store import break_pages
from tests.tasks.waiting import until

ERROR = logging.ERROR


@pytest.fixture
def tasks_of(tmp_path):
    """Makes what stands for one process: its own queue, on the same file."""

    def make(*, workers=4, drain_s=5.0, entries_max=1_000, starts_max=3, look_every_s=0.02):
        return Tasks(
            QueueLimits(workers=workers, drain_s=drain_s, retry_first_s=0.001, retry_most_s=0.001),
            journal_path=tmp_path / "tasks.db",
            journal_limits=JournalLimits(
                entries_max=entries_max, starts_max=starts_max, unregistered_s=0
            ),
            journal_look_every_s=look_every_s,
        )

    return make


def noting(tasks, ran, name="note"):
    @tasks.task(name=name)
    async def note(value):
        ran.append(value)

    return note


async def entries_of(tasks):
    """Entries and dead letters in the file."""
    entries, _, dead = await tasks.journal._ask(lambda store: store.picture())
    return entries, dead


async def is_empty(tasks):
    return await entries_of(tasks) == (0, 0)


async def killed(tasks):
    """An open Tasks that has died as far as others can see; what it ran is cancelled untold.

    As the kernel does with a killed process: its locks are gone, its files are closed, nothing is
    written.
    """
    tasks.journal.stop_feeding()
    tasks.journal._store._owner.forget()
    writer = tasks.journal._writer
    tasks.journal._writer = None
    for worker in list(tasks._engine._crew.workers):
        worker.task.cancel()
    await writer.stop()
    tasks.journal._store._file.close()


def run(coroutine):
    asyncio.run(coroutine)


def test_a_durable_task_runs_and_leaves_the_journal(tasks_of):
    async def main():
        ran, threads = [], []
        tasks = tasks_of()
        note = noting(tasks, ran)

        @tasks.task(name="sync")
        def sync(value, *, times):
            threads.append((value, times, threading.current_thread() is threading.main_thread()))

        async with tasks:
            assert await tasks.background(None, note, {"id": [1]}, durable=True) == 1
            assert await tasks.background(None, sync, "a", times=2, durable=True) == 2
            await until(lambda: is_empty(tasks))
            assert (ran, threads) == ([{"id": [1]}], [("a", 2, False)])
            told = tasks.status()["journal"]
            assert (told["accepted"], told["removed"], told["state"]) == (2, 2, "open")

    run(main())


def test_what_was_accepted_is_run_by_the_next_start(tasks_of):
    async def main():
        ran = []
        async with tasks_of(workers=1, drain_s=0) as tasks:
            note = noting(tasks, ran)
            begun = asyncio.Event()

            @tasks.task(name="slow")
            async def slow():
                begun.set()
                await asyncio.sleep(3600)

            await tasks.background(None, slow, durable=True)
            await begun.wait()
            for number in range(3):
                await tasks.background(None, note, number, durable=True)
        assert ran == []
        tasks = tasks_of()
        noting(tasks, ran)

        @tasks.task(name="slow")
        async def quick():
            ran.append("slow")

        async with tasks:
            await until(lambda: is_empty(tasks))
        assert sorted(map(str, ran)) == ["0", "1", "2", "slow"]

    run(main())


def test_entries_of_a_dead_process_are_taken_over_by_a_living_one(tasks_of, caplog):
    async def main():
        first, second, ran = tasks_of(), tasks_of(), []
        begun = asyncio.Event()

        @first.task(name="note")
        async def hang(value):
            begun.set()
            await asyncio.sleep(3600)

        noting(second, ran)
        async with second:
            await first.open()
            await first.background(None, hang, 1, durable=True)
            await begun.wait()
            looks = second.journal._counted().batches + 5
            await until(lambda: second.journal._counted().batches > looks)
            assert ran == []  # the other has looked several times: its owner lives
            await killed(first)
            await until(lambda: ran == [1])
            assert second.status()["journal"]["taken_over"] == 1
        await first.close()

    run(main())


def test_what_kills_its_process_ends_as_a_dead_letter_and_what_ran_beside_it_does_not(
    tasks_of, caplog
):
    async def main():
        ran, at_once = [], []

        def define(tasks, life, poisoned, beside):
            @tasks.task(name="poison")
            async def poison():
                at_once.append((life, "poison"))
                poisoned.set()
                await asyncio.sleep(3600)

            @tasks.task(name="beside")
            async def innocent():
                at_once.append((life, "beside"))
                beside.set()
                if life == 0:
                    await asyncio.sleep(3600)
                ran.append(life)

            return poison, innocent

        for life in range(4):
            tasks = tasks_of(starts_max=2)
            poisoned, beside = asyncio.Event(), asyncio.Event()
            poison, innocent = define(tasks, life, poisoned, beside)
            await tasks.open()
            if life == 0:
                await tasks.background(None, innocent, durable=True)
                await tasks.background(None, poison, durable=True)
                await beside.wait()
            if life < 2:
                await poisoned.wait()
                if life == 1:  # it ran alone, before: suspects are run one at a time
                    assert at_once[2:] == [(1, "beside"), (1, "poison")]
                await killed(tasks)
                await tasks.close()
                continue
            await until(lambda tasks=tasks: _is(tasks, (1, 1)))
            (letter,) = await tasks.journal.dead_letters()
            assert (letter["task"], letter["starts"]) == ("poison", 2)
            assert "ended 2 times while it ran" in letter["reason"]
            await tasks.close()
        assert ran == [1]
        assert len(at_once) == 4

    async def _is(tasks, wanted):
        return await entries_of(tasks) == wanted

    run(main())
    told = [record.getMessage() for record in caplog.records if record.levelno == ERROR]
    assert sum("the accepted task poison" in sentence for sentence in told) == 1


def test_a_task_that_fails_for_good_is_a_dead_letter_that_can_be_replayed(tasks_of, caplog):
    async def main():
        tasks, tries = tasks_of(), []

        @tasks.task(name="send", retries=1)
        async def send(to):
            tries.append(to)
            if len(tries) < 3:
                raise ValueError("no such address")

        async with tasks:
            number = await tasks.background(None, send, "kim", durable=True)

            async def letters():
                return await tasks.journal.dead_letters()

            await until(letters)
            (letter,) = await letters()
            assert (letter["number"], letter["reason"], letter["arguments"]) == (
                number, "ValueError: no such address", '[["kim"],{}]',
            )  # fmt: skip
            await tasks.journal.replay(number)
            await until(lambda: is_empty(tasks))
            assert tries == ["kim"] * 3
            with pytest.raises(KeyError):
                await tasks.journal.replay(number)
            with pytest.raises(KeyError):
                await tasks.journal.discard(number)

    run(main())
    assert sum("task send" in record.getMessage() for record in caplog.records) == 1


def test_an_error_without_words_is_a_dead_letter_too(tasks_of):
    class WordlessError(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    async def main():
        async with tasks_of() as tasks:

            @tasks.task(name="send")
            async def send():
                raise WordlessError

            await tasks.background(None, send, durable=True)
            await until(tasks.journal.dead_letters)
            (letter,) = await tasks.journal.dead_letters()
            assert letter["reason"] == "WordlessError"

    run(main())


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_cancellation_of_its_own_is_an_error_and_does_not_leave_it_to_the_next_start(
    tasks_of, in_thread
):
    """As of a future that it waits for and somebody else has cancelled."""

    async def main():
        tries = []
        tasks = tasks_of()

        @tasks.task(name="waits", retries=1)
        async def waits():
            tries.append(1)
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone

        @tasks.task(name="raises", retries=1)
        def raises():
            tries.append(1)
            raise asyncio.CancelledError

        async with tasks:
            await tasks.background(None, raises if in_thread else waits, durable=True)

            async def it_is_buried():
                return await entries_of(tasks) == (1, 1)

            await until(it_is_buried)
            assert len(tries) == 2
            (letter,) = await tasks.journal.dead_letters()
            assert "raised CancelledError, and nobody had cancelled it" in letter["reason"]

    run(main())


def test_what_nobody_can_run_any_more_is_kept_and_told(tasks_of, caplog):
    async def main():
        async with tasks_of(drain_s=0, workers=1) as tasks:
            hang = tasks.task(name="hang")(asyncio.sleep)
            await tasks.background(None, hang, 3600, durable=True)
            for name in ("gone", "changed", "odd"):
                await tasks.background(None, noting(tasks, [], name), 1, durable=True)
        tasks = tasks_of()

        @tasks.task(name="changed")
        async def changed(value, other): ...

        @tasks.task(name="hang")
        async def hang(value): ...

        async def odd(value): ...

        odd.__signature__ = object()
        tasks.task(name="odd")(odd)

        async with tasks:

            async def all_but_three_are_gone():
                return await entries_of(tasks) == (3, 3)

            await until(all_but_three_are_gone)
            reasons = {each["task"]: each["reason"] for each in await tasks.journal.dead_letters()}
            assert reasons["gone"] == "no task of this name is registered any more"
            assert "missing a required argument: 'other'" in reasons["changed"]
            assert reasons["odd"].startswith("TypeError: ")
            for letter in await tasks.journal.dead_letters():
                await tasks.journal.discard(letter["number"])
            assert await is_empty(tasks)

    run(main())
    told = [record.getMessage() for record in caplog.records if record.levelno == ERROR]
    assert sum("is a dead letter" in sentence for sentence in told) == 2


def test_a_call_that_cannot_be_kept_is_refused_before_anything_is_accepted(tasks_of):
    async def main():
        tasks = tasks_of()
        note = noting(tasks, [])

        class Shop:
            @tasks.task(name="sell")
            async def sell(self): ...

        async with tasks:
            with pytest.raises(TaskArgumentsError, match="argument 1"):
                await tasks.background(None, note, object(), durable=True)
            with pytest.raises(TaskArgumentsError, match="too many positional"):
                await tasks.background(None, note, 1, 2, durable=True)
            with pytest.raises(TypeError, match=r"decorate .* by @perf\.tasks\.task"):
                await tasks.background(None, print, durable=True)
            with pytest.raises(ValueError, match="cannot be found by its name"):
                await tasks.background(None, Shop().sell, durable=True)
            replaced = note
            noting(tasks, [])
            with pytest.raises(ValueError, match="each with a name of its own"):
                await tasks.background(None, replaced, 1, durable=True)
            assert await is_empty(tasks)
        with pytest.raises(JournalUnavailableError, match="not open"):
            await tasks.background(None, tasks.named("note"), 1, durable=True)
        alone = Tasks()
        with pytest.raises(JournalUnavailableError, match="PERFORMANCE_TASKS_JOURNAL_PATH"):
            await alone.background(None, noting(alone, []), 1, durable=True)

    run(main())


def test_a_full_journal_refuses_and_counts_it(tasks_of):
    async def main():
        tasks = tasks_of(entries_max=2, drain_s=0)
        hang = tasks.task(name="hang")(asyncio.sleep)
        async with tasks:
            for _ in range(2):
                await tasks.background(None, hang, 3600, durable=True)
            with pytest.raises(JournalFullError):
                await tasks.background(None, hang, 3600, durable=True)
            assert tasks.journal._counted().refused_full == 1

    run(main())


def test_a_journal_that_cannot_be_written_refuses_and_says_so_once(tasks_of, caplog):
    async def main():
        tasks, ran = tasks_of(), []
        note = noting(tasks, ran)
        async with tasks:
            await tasks.background(None, note, 0, durable=True)
            await until(lambda: is_empty(tasks))
            file = tasks.journal._store._file
            file.execute("PRAGMA query_only = 1")
            for _ in range(3):
                with pytest.raises(JournalUnavailableError, match="readonly"):
                    await tasks.background(None, note, 1, durable=True)
            assert "readonly" in tasks.status()["journal"]["state"]
            file.execute("PRAGMA query_only = 0")
            await tasks.background(None, note, 2, durable=True)
            await until(lambda: ran == [0, 2])

    caplog.set_level(logging.INFO)
    run(main())
    told = [record.getMessage() for record in caplog.records]
    assert sum("durable tasks are not accepted: " in sentence for sentence in told) == 1
    assert sum("durable tasks are accepted again" in sentence for sentence in told) == 1


def test_what_has_run_is_written_as_soon_as_the_file_can_be_written_again(tasks_of, monkeypatch):
    monkeypatch.setattr(feeder, "RETRY_S", 0.01)

    async def main():
        tasks, goes_on = tasks_of(), asyncio.Event()
        ended = tasks.task(name="wait")(goes_on.wait)
        async with tasks:
            await tasks.background(None, ended, durable=True)
            await until(lambda: tasks._engine.counts.total("started"))
            file = tasks.journal._store._file
            file.execute("PRAGMA query_only = 1")
            goes_on.set()
            await until(lambda: tasks.journal._counted().failures > 2)
            file.execute("PRAGMA query_only = 0")
            await until(lambda: is_empty(tasks))
            assert tasks.journal._counted().removed == 1

    run(main())


def test_a_job_that_the_app_cancels_leaves_the_journal(tasks_of):
    async def main():
        tasks = tasks_of()
        hang = tasks.task(name="hang")(asyncio.sleep)
        async with tasks:
            await tasks.background(None, hang, 3600, durable=True)
            await until(lambda: tasks.jobs(status="running"))
            (job,) = tasks.jobs(status="running")
            assert job.cancel()
            await until(lambda: is_empty(tasks))

    run(main())


def test_a_thread_that_goes_on_after_the_stop_keeps_its_entry_while_its_process_lives(tasks_of):
    goes_on, begun = threading.Event(), threading.Event()

    async def main():
        tasks = tasks_of(drain_s=0)

        @tasks.task(name="thread")
        def work():
            begun.set()
            goes_on.wait(120)

        async with tasks:
            await tasks.background(None, work, durable=True)
            await until(begun.is_set)
        other, ran = tasks_of(), []

        @other.task(name="thread")
        async def again():
            ran.append(1)

        async with other:
            await until(lambda: other.journal._counted().batches > 5)
            assert await entries_of(other) == (1, 0)
        assert ran == []
        goes_on.set()

    run(main())


def test_more_than_what_memory_may_hold_waits_in_the_file_and_runs_once(tasks_of, monkeypatch):
    monkeypatch.setattr(feeder, "LOADED_MAX", 3)

    async def main():
        tasks, ran = tasks_of(workers=2), []
        note = noting(tasks, ran)
        async with tasks:
            calls = (tasks.background(None, note, number, durable=True) for number in range(40))
            await asyncio.gather(*calls)
            await until(lambda: is_empty(tasks))
        assert sorted(ran) == list(range(40))
        assert len(ran) == 40
        assert tasks.journal._counted().batches < 3 * 40

    run(main())


def test_a_file_that_breaks_while_it_is_used_takes_nothing_with_it_that_comes_after(
    tasks_of, tmp_path, monkeypatch
):
    monkeypatch.setattr(feeder, "LOADED_MAX", 2)

    async def main():
        tasks, ran = tasks_of(look_every_s=3_600), []
        note = noting(tasks, ran)
        async with tasks:
            for number in range(5):
                await tasks.background(None, note, number, durable=True)
            await until(lambda: is_empty(tasks))
            file = tasks.journal._store._file
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            break_pages(tmp_path / "tasks.db")
            file.execute("PRAGMA shrink_memory")
            with pytest.raises(JournalUnavailableError, match="malformed"):
                await tasks.background(None, note, 5, durable=True)
            del ran[:]
            calls = (tasks.background(None, note, number, durable=True) for number in range(9))
            await asyncio.gather(*calls)
            await until(lambda: is_empty(tasks))
        assert sorted(ran) == list(range(9))

    run(main())


def test_a_caller_that_leaves_while_it_is_accepted_takes_nothing_with_it(tasks_of):
    async def main():
        tasks, ran = tasks_of(), []
        note = noting(tasks, ran)
        async with tasks:
            accepting = asyncio.create_task(tasks.background(None, note, 1, durable=True))
            await asyncio.sleep(0)
            accepting.cancel()
            await until(lambda: ran == [1])

    run(main())

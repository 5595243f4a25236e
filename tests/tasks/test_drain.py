"""The end of a queue: what was accepted is run, cancelled or handed back, and told in numbers."""

import asyncio
import logging

import anyio
import pytest

from perf_middleware import JobCancelledError, QueueClosedError, QueueLimits, TaskQueue
from tests.tasks.virtual_time import clock_us, run


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, logger="perf_middleware.tasks")
    return caplog


def queue_of(**limits):
    return TaskQueue(QueueLimits(**limits), clock=clock_us, draw=lambda: 1.0)


def numbers(log):
    """The one line that tells the end."""
    (line,) = [r.getMessage() for r in log.records if r.getMessage().startswith("task queue")]
    return line


def test_what_was_accepted_runs_before_the_queue_closes(log):
    async def main():
        queue = queue_of(workers=2, drain_s=60)
        task = queue.task(asyncio.sleep)
        async with queue:
            jobs = [await task.enqueue(5) for _ in range(10)]
            soon = await task.options(delay_s=20).enqueue(1)
        assert {job.status for job in [*jobs, soon]} == {"succeeded"}

    run(main)
    assert numbers(log) == (
        "task queue drained in 26.0 s: 11 jobs succeeded, 0 failed, 0 were cancelled, 0 handed back"
    )


def test_at_the_deadline_what_runs_is_cancelled_and_what_waits_is_handed_back(log):
    async def main():
        queue = queue_of(workers=2, drain_s=7)
        task = queue.task(name="sleep")(asyncio.sleep)
        async with queue:
            jobs = [await task.enqueue(5) for _ in range(6)]
            late = await task.options(delay_s=8).enqueue(1)
            waiting = asyncio.ensure_future(jobs[-1].wait())
            await asyncio.sleep(1)
        statuses = [job.status for job in jobs]
        assert statuses == ["succeeded"] * 2 + ["cancelled"] * 2 + ["handed_back"] * 2
        assert (late.status, (await waiting).status) == ("handed_back", "handed_back")
        with pytest.raises(JobCancelledError, match="was handed back"):
            late.result()
        status = queue.status()
        assert (status["handed_back"], status["tasks"]["sleep"]["handed_back"]) == (3, 3)
        assert queue.jobs(status="handed_back") == [late, jobs[5], jobs[4]]
        return queue, late

    run(main)
    assert numbers(log).endswith("2 jobs succeeded, 0 failed, 2 were cancelled, 3 handed back")
    assert log.records[-1].levelno == logging.WARNING


def test_one_that_was_handed_back_is_replayed_after_the_next_start():
    async def main():
        queue = queue_of(drain_s=0)
        task = queue.task(asyncio.sleep).options(delay_s=60)
        await queue.open()
        old, older = await task.enqueue(1, "done"), await task.enqueue(1)
        await queue.drain()
        assert old.status == "handed_back"
        with pytest.raises(QueueClosedError, match="draining"):
            await queue.replay(old.id)
        await queue.close()
        async with queue:
            assert queue.jobs(status="handed_back") == [older, old]
            again = await queue.replay(old.id)
            assert (await again.wait()).result() == "done"
            assert (queue.get(old.id), queue.status()["handed_back"]) == (None, 1)
        assert queue.get(older.id) is None  # a second close keeps its own

    run(main)


def test_while_it_drains_nothing_is_accepted_and_who_waits_for_room_hears_it():
    async def main():
        queue = queue_of(workers=1, backlog_max=1, full_wait_s=60, drain_s=20)
        task = queue.task(asyncio.sleep)
        await queue.open()
        running = await task.enqueue(5)
        await asyncio.sleep(0)
        queued = await task.enqueue(5)
        no_room = asyncio.ensure_future(task.enqueue(5))
        await asyncio.sleep(1)
        draining = asyncio.ensure_future(queue.drain())
        await asyncio.sleep(1)
        with pytest.raises(QueueClosedError, match="draining"):
            await task.enqueue(1)
        assert (no_room.done(), running.status) == (True, "running")
        with pytest.raises(QueueClosedError):
            await no_room
        await draining
        await queue.close()
        assert {running.status, queued.status} == {"succeeded"}

    run(main)


def test_retries_that_are_due_in_time_are_made_and_others_handed_back():
    async def main():
        queue = queue_of(drain_s=10, retry_first_s=4)
        attempts = []

        @queue.task(retries=9)
        async def fail():
            attempts.append(1)
            raise OSError

        loop = asyncio.get_running_loop()
        began = loop.time()
        async with queue:
            job = await fail.enqueue()
        assert (job.status, len(attempts)) == ("handed_back", 2)  # at 0 s, at 4 s; not at 12 s
        assert loop.time() - began < 5  # nor is that waited for
        assert isinstance(job.error, OSError)

    run(main)


def test_paused_jobs_run_while_it_drains():
    async def main():
        queue = TaskQueue(QueueLimits(paused_every_s=50), level=lambda: 2, clock=clock_us)
        async with queue:
            jobs = [await queue.task(priority="low")(asyncio.sleep).enqueue(0) for _ in range(3)]
        assert {job.status for job in jobs} == {"succeeded"}

    run(main)


def test_one_that_does_not_end_is_given_up_and_whoever_waits_for_it_goes_on():
    async def main():
        queue = queue_of(drain_s=1)
        gate = asyncio.Event()

        @queue.task
        async def deaf():
            while not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    continue
            return "late"

        await queue.open()
        job = await deaf.enqueue()
        await asyncio.sleep(0)
        await queue.close()
        assert (job.status, queue._engine.counts.abandoned) == ("cancelled", 1)
        assert queue.status()["tasks"][deaf.name]["cancelled"] == 1
        gate.set()
        await asyncio.sleep(1)
        assert job.status == "cancelled"
        async with queue:
            assert (await (await queue.task(asyncio.sleep).enqueue(0, 1)).wait()).result() == 1

    run(main)


def test_a_close_that_is_cut_short_leaves_no_job_in_the_air():
    async def main():
        queue = queue_of(workers=1, drain_s=100)
        task = queue.task(asyncio.sleep)
        await queue.open()
        jobs = [await task.enqueue(50) for _ in range(3)]
        with anyio.move_on_after(10):
            await queue.close()
        await asyncio.sleep(1)
        assert [job.status for job in jobs] == ["cancelled", "handed_back", "handed_back"]
        assert queue.status()["state"] == "closed"

    run(main)


def test_a_queue_that_had_nothing_to_do_says_nothing(log):
    async def main():
        async with queue_of():
            pass

    run(main)
    assert log.records == []

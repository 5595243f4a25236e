"""Functions that are not async: in threads of their own, bounded, never twice at once."""

import asyncio
import contextvars
import sys
import threading
from contextlib import asynccontextmanager

import pytest

from perf_middleware import QueueLimits, TaskQueue, TaskTimeoutError

WAIT_S = 120


@asynccontextmanager
async def opened(**limits):
    """A queue, and an event on which its functions may wait; nothing is left hanging."""
    gate = threading.Event()
    async with TaskQueue(QueueLimits(**{"drain_s": WAIT_S} | limits)) as queue:
        try:
            yield queue, gate
        finally:
            gate.set()


async def until(holds):
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.001)


def test_it_runs_beside_the_loop_in_the_callers_context():
    who = contextvars.ContextVar("who")

    async def main():
        async with opened() as (queue, _gate):

            @queue.task
            def look(more):
                return who.get() + more, threading.current_thread().name

            who.set("me")
            job = await look.enqueue("!")
            told, thread = (await job.wait(WAIT_S)).result()
            assert told == "me!"
            assert thread.startswith("perf_middleware task")

    asyncio.run(main())


def test_no_more_run_at_once_than_there_are_threads_and_async_jobs_pass_them():
    running = []

    async def main():
        async with opened(threads_max=2) as (queue, gate):

            @queue.task
            def wait(number):
                running.append(number)
                gate.wait(WAIT_S)

            jobs = [await wait.enqueue(number) for number in range(5)]
            await until(lambda: len(running) == 2)
            passing = await queue.submit(lambda: asyncio.sleep(0), priority="low")
            quick = await queue.task(asyncio.sleep).enqueue(0)
            await quick.wait(WAIT_S)
            assert (len(running), passing.status) == (2, "queued")
            gate.set()
            for job in [*jobs, passing]:
                assert (await job.wait(WAIT_S)).result() is None
            assert sorted(running) == list(range(5))

    asyncio.run(main())


def test_one_that_takes_too_long_goes_on_and_is_not_begun_a_second_time(caplog):
    begun = []

    async def main():
        async with opened(threads_max=1) as (queue, gate):

            @queue.task(timeout_s=0.01, retries=5)
            def stuck():
                begun.append(1)
                gate.wait(WAIT_S)

            job = await stuck.enqueue()
            await job.wait(WAIT_S)
            with pytest.raises(TaskTimeoutError):
                job.result()
            waiting = await stuck.options(timeout_s=None).enqueue()
            await asyncio.sleep(0.01)
            assert (waiting.status, begun) == ("queued", [1])  # its thread is taken
            gate.set()
            await waiting.wait(WAIT_S)
            assert (waiting.status, len(begun)) == ("succeeded", 2)
            assert queue._engine.counts.abandoned == 1

    asyncio.run(main())
    assert len(caplog.records) == 1


@pytest.mark.parametrize("is_async", [True, False])
def test_a_job_that_exits_fails_alone(is_async, caplog):
    async def main():
        async with TaskQueue() as queue:

            async def leave():
                sys.exit(3)

            job = await queue.task(retries=3)(leave if is_async else sys.exit).enqueue()
            await job.wait(WAIT_S)
            after = await queue.task()(int).enqueue()
            await after.wait(WAIT_S)
            assert (job.status, job.attempts, type(job.error)) == ("failed", 1, SystemExit)
            assert after.status == "succeeded"

    asyncio.run(main())
    assert "failed, attempt 1 of 4" in caplog.text


@pytest.mark.parametrize("is_async", [True, False])
def test_the_end_of_the_process_is_not_held_up(is_async, caplog):
    jobs = []

    async def main():
        async with TaskQueue() as queue:

            async def leave():
                raise KeyboardInterrupt

            def leave_from_thread():
                raise KeyboardInterrupt

            job = await queue.task(retries=3)(leave if is_async else leave_from_thread).enqueue()
            jobs.append(job)
            await asyncio.sleep(WAIT_S)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert (jobs[0].status, jobs[0].attempts) == ("failed", 1)
    assert isinstance(jobs[0].error, KeyboardInterrupt)
    assert "failed, attempt 1 of 4" in caplog.text


def test_threads_end_with_their_queue():
    def ours():
        return [t for t in threading.enumerate() if t.name.startswith("perf_middleware task")]

    async def main():
        async with opened() as (queue, _gate):
            await (await queue.submit(int)).wait(WAIT_S)
            threads = ours()
            assert threads
        for thread in threads:
            await asyncio.to_thread(thread.join, WAIT_S)
        assert not [thread for thread in threads if thread.is_alive()]

    asyncio.run(main())

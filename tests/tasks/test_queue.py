"""The queue as an app uses it: enqueue, ask, wait, cancel, replay."""

import asyncio
import contextvars
import functools
import gc
import inspect
import logging
import weakref
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from perf_middleware import (
    JobCancelledError,
    JobUnfinishedError,
    QueueClosedError,
    QueueFullError,
    QueueLimits,
    TaskQueue,
    TaskTimeoutError,
)
from tests.tasks.virtual_time import clock_us, run


def queue_of(level=None, left_out=(), **limits):
    return TaskQueue(
        QueueLimits(**limits), level=level, left_out=left_out, clock=clock_us, draw=lambda: 1.0
    )


def in_virtual_time(test):
    """The test's coroutine, run to its end; what waits for nothing fails it."""

    @functools.wraps(test)
    def running(**fixtures):
        run(lambda: test(**fixtures))

    return running


async def double(number):
    await asyncio.sleep(1)
    return 2 * number


@in_virtual_time
async def test_a_job_runs_and_its_result_is_asked_for():
    async with queue_of() as queue:
        task = queue.task(double)
        job = await task.enqueue(21)
        assert (job.status, queue.get(job.id)) == ("queued", job)
        with pytest.raises(JobUnfinishedError, match="has no result: it is queued"):
            job.result()
        assert (await job.wait()).result() == 42
        assert (job.status, job.attempts, queue.get(job.id)) == ("succeeded", 1, job)
        assert await job.wait() is job
        assert job.describe()["ran_s"] == 1.0


@in_virtual_time
async def test_a_decorated_function_is_called_as_before():
    queue = queue_of()
    task = queue.task(double)
    assert inspect.iscoroutinefunction(task.__call__)
    assert await task(4) == 8
    assert (task.__name__, task.__wrapped__) == ("double", double)

    @queue.task(priority="low", name="add")
    def add(a, b=1):
        return a + b

    assert (add(1), add(1, b=2), add.name) == (2, 3, "add")


@in_virtual_time
async def test_a_method_is_enqueued_on_its_object():
    queue = queue_of()

    class Shop:
        def __init__(self, name):
            self.name = name

        @queue.task
        async def sell(self, what):
            return f"{self.name} sells {what}"

    async with queue:
        shop = Shop("ours")
        assert await shop.sell("tea") == "ours sells tea"
        job = await shop.sell.enqueue("tea")
        later = await shop.sell.options(delay_s=5).enqueue(what="coffee")
        assert (await job.wait()).result() == "ours sells tea"
        assert (await later.wait()).result() == "ours sells coffee"
        assert job.name == later.name


@in_virtual_time
async def test_any_callable_is_submitted():
    async with queue_of() as queue:
        doubling = functools.partial(double, 4)
        job = await queue.submit(doubling, name="four", priority="high", delay_s=2)
        assert (job.name, job.priority, job.status) == ("four", "high", "scheduled")
        assert (await job.wait()).result() == 8
        assert (await queue.submit(doubling)).name == f"{__name__}.double"


def test_what_a_plain_function_gives_to_await_is_awaited():
    async def main():
        async with TaskQueue() as queue:
            job = await queue.submit(lambda: asyncio.sleep(0, "slept"))
            assert (await job.wait(120)).result() == "slept"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"priority": "urgent"}, "priority is one of critical, high, normal, low"),
        ({"retries": -1}, "retries is from 0"),
        ({"timeout_s": 0}, "timeout_s is above 0"),
        ({"delay_s": -1}, "delay_s is from 0"),
        ({"delay_s": float("nan")}, "delay_s is from 0"),
        ({"wait_s": -1}, "wait_s is from 0"),
        ({"unique_key": ""}, "unique_key is 1 to 500"),
        ({"delay_s": 1, "at": datetime.now(UTC)}, "delay_s or at"),
        ({"at": datetime.now()}, "at needs a time zone"),  # noqa: DTZ005 - that is what is refused
    ],
)
def test_options_that_cannot_be_are_refused(given, error):
    with pytest.raises(ValueError, match=error):
        TaskQueue().task(double).options(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"workers": 0},
        {"dead_max": -1},
        {"finished_age_s": -1},
        {"drain_s": -1},
        {"timeout_s": 0},
        {"retry_first_s": 0},
    ],
)
def test_limits_that_cannot_be_are_refused(given):
    with pytest.raises(ValueError, match=r"\d"):
        QueueLimits(**given)


@in_virtual_time
async def test_a_delayed_job_begins_no_sooner():
    async with queue_of() as queue:
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = queue.task(double)
        late = await task.options(at=datetime.now(UTC) + timedelta(hours=1)).enqueue(1)
        soon = await task.options(delay_s=10).enqueue(1)
        past = await task.options(at=datetime.now(UTC) - timedelta(hours=1)).enqueue(1)
        assert (late.status, soon.status, past.status) == ("scheduled", "scheduled", "queued")
        await past.wait()
        assert loop.time() - began < 2
        await soon.wait()
        assert 11 <= loop.time() - began < 12
        await late.wait()
        assert 3500 < loop.time() - began < 3700


@in_virtual_time
async def test_a_unique_key_gives_the_job_that_is_there():
    async with queue_of(workers=1) as queue:
        task = queue.task(double).options(unique_key="report")
        first = await task.enqueue(1)
        assert await task.enqueue(1) is first
        await asyncio.sleep(0.5)
        assert first.status == "running"
        assert await task.enqueue(1) is first
        await first.wait()
        second = await task.enqueue(1)
        assert second is not first
        assert queue.status()["tasks"][first.name]["joined"] == 2


@in_virtual_time
async def test_a_full_queue_makes_wait_or_says_so():
    queue = queue_of(workers=1, backlog_max=2, full_wait_s=5)
    task = queue.task(double)
    jobs = [await task.enqueue(n) for n in range(2)]
    with pytest.raises(QueueFullError) as caught:
        await task.options(wait_s=0).enqueue(9)
    assert (caught.value.backlog, caught.value.status) == (2, 503)
    with pytest.raises(QueueFullError, match=r"2 jobs wait, no room in 0\.5 s"):
        await task.options(wait_s=0.5).enqueue(9)
    waiting = [asyncio.ensure_future(task.enqueue(n)) for n in (10, 11, 12)]
    await asyncio.sleep(0)
    waiting.pop(1).cancel()
    async with queue:
        jobs += await asyncio.gather(*waiting)  # in the order in which they came
        assert [(await job.wait()).result() for job in jobs] == [0, 2, 20, 24]
    assert queue.status()["tasks"][task.name]["rejected"] == 2


@in_virtual_time
async def test_one_that_leaves_as_it_is_let_in_lets_the_next_in():
    queue = queue_of(workers=1, backlog_max=1, full_wait_s=5)
    task = queue.task(asyncio.sleep)
    first = await task.enqueue(0)
    leaving, next_one = (asyncio.ensure_future(task.enqueue(60)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    leaving.cancel()
    assert (await next_one).status == "queued"


@in_virtual_time
async def test_the_backlog_is_bounded_by_bytes_and_a_larger_job_runs_alone():
    queue = queue_of(workers=1, backlog_bytes_max=100_000)
    task = queue.task(len_of)
    whole = await task.options(wait_s=0).enqueue(b"x" * 300_000)
    with pytest.raises(QueueFullError):
        await task.options(wait_s=0).enqueue(b"")
    async with queue:
        assert (await whole.wait()).result() == 300_000
        jobs = [await task.enqueue(b"x" * 40_000) for _ in range(10)]
        assert queue.status()["backlog_bytes"] <= 100_000
        for job in jobs:
            await job.wait()
        assert queue.status()["backlog_bytes"] == 0


async def len_of(text):
    return len(text)


@in_virtual_time
async def test_what_is_enqueued_before_the_queue_opens_runs_then_and_after_its_close_nothing_is():
    queue = queue_of()
    task = queue.task(double)
    early = await task.enqueue(1)
    later = await task.options(delay_s=3).enqueue(2)
    assert queue.status()["state"] == "new"
    async with queue:
        assert (await early.wait()).result() == 2
        assert (await later.wait()).result() == 4
        with pytest.raises(RuntimeError, match="open already"):
            await queue.open()
    with pytest.raises(QueueClosedError, match="takes no jobs: it is closed") as caught:
        await task.enqueue(1)
    assert caught.value.status == 503
    async with queue:
        assert (await (await task.enqueue(3)).wait()).result() == 6


@in_virtual_time
async def test_a_job_is_cancelled_wherever_it_is():
    seen = []

    async def sleep():
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async with queue_of(workers=1) as queue:
        task = queue.task(sleep)
        running = await task.enqueue()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        queued = await task.enqueue()
        scheduled = await task.options(delay_s=5).enqueue()
        assert [running.status, queued.status, scheduled.status] == [
            "running", "queued", "scheduled",
        ]  # fmt: skip
        waiting = asyncio.ensure_future(queued.wait())
        await asyncio.sleep(0)
        assert all(job.cancel() for job in (running, queued, scheduled))
        assert (await waiting).status == "cancelled"
        await running.wait()
        assert not running.cancel()
        assert (queued.attempts, seen) == (0, ["cancelled"])
        with pytest.raises(JobCancelledError, match="was cancelled"):
            running.result()
        again = await task.enqueue()
        quick = await queue.submit(functools.partial(double, 1))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        again.cancel()
        assert (await quick.wait()).result() == 2  # by the same worker, at once
        assert asyncio.get_running_loop().time() - began == pytest.approx(1)


@in_virtual_time
async def test_a_job_that_cancels_itself_and_returns_takes_nobody_with_it():
    queue = queue_of(workers=1)
    jobs = []

    @queue.task
    async def cancel_itself():
        jobs[0].cancel()
        return "returned"

    jobs.append(await cancel_itself.enqueue())
    jobs.append(await queue.submit(functools.partial(double, 1)))
    async with queue:
        assert [(await job.wait()).result() for job in jobs] == ["returned", 2]


@in_virtual_time
async def test_where_somebody_else_cancels_a_worker_the_others_jobs_run_all_the_same():
    async def end_my_task():
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    async with queue_of(workers=1) as queue:
        shot = await queue.submit(end_my_task)
        left = await queue.submit(functools.partial(double, 1))
        assert (await left.wait()).result() == 2
        assert shot.status == "cancelled"


@in_virtual_time
async def test_failures_are_tried_again_with_growing_waits_and_end_as_dead_letters(caplog):
    caplog.set_level(logging.INFO, logger="perf_middleware.tasks")
    times = []

    async with queue_of(retry_first_s=1, retry_most_s=3) as queue:

        @queue.task(retries=3, retry_on=OSError, name="flaky")
        async def flaky():
            times.append(asyncio.get_running_loop().time())
            raise OSError("no route")

        job = await flaky.enqueue()
        await job.wait()
        assert [b - a for a, b in pairwise(times)] == pytest.approx([1, 2, 3])
        assert (job.status, job.attempts, queue.dead_letters()) == ("failed", 4, [job])
        with pytest.raises(OSError, match="no route"):
            job.result()
        (told,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert told.getMessage() == f"task flaky (job {job.id}) failed, attempt 4 of 4"
        assert isinstance(told.exc_info[1], OSError)
        assert queue.status()["tasks"]["flaky"]["retried"] == 3


@in_virtual_time
async def test_an_error_that_is_not_named_is_not_tried_again(caplog):
    async with queue_of() as queue:

        @queue.task(retries=3, retry_on=(OSError, KeyError))
        async def wrong():
            raise ValueError

        assert (await (await wrong.enqueue()).wait()).attempts == 1
    assert len(caplog.records) == 1


@in_virtual_time
async def test_a_dead_letter_is_replayed_once(caplog):
    outcomes = [ValueError(), "well"]

    async with queue_of() as queue:

        @queue.task
        async def send(address):
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome, address

        dead = await (await send.enqueue("a@b")).wait()
        assert queue.get(dead.id) is dead
        again = await queue.replay(dead.id)
        assert (await again.wait()).result() == ("well", "a@b")
        assert (queue.get(dead.id), queue.dead_letters()) == (None, [])
        for gone in (dead.id, again.id, "unknown"):
            with pytest.raises(KeyError):
                await queue.replay(gone)
    assert len(caplog.records) == 1


@in_virtual_time
async def test_an_attempt_that_takes_too_long_is_cut_and_may_be_tried_again(caplog):
    attempts = []

    async with queue_of(retry_first_s=1, timeout_s=7) as queue:

        @queue.task(timeout_s=2, retries=1)
        async def slow():
            attempts.append(asyncio.get_running_loop().time())
            await asyncio.sleep(2.5 if len(attempts) == 1 else 1)
            return "in time"

        job = await slow.enqueue()
        assert (await job.wait()).result() == "in time"
        assert attempts[1] - attempts[0] == pytest.approx(3, abs=0.1)
        unbounded = await slow.options(timeout_s=None).enqueue()
        cut = await queue.submit(functools.partial(asyncio.sleep, 9))
        began = asyncio.get_running_loop().time()
        sooner = await queue.submit(functools.partial(asyncio.sleep, 9), timeout_s=0.5)
        await sooner.wait()
        assert asyncio.get_running_loop().time() - began < 1
        await unbounded.wait()
        await cut.wait()
        with pytest.raises(TaskTimeoutError, match=r"sleep took longer than 7 s"):
            cut.result()
        assert isinstance(cut.error, TimeoutError)
    assert len(caplog.records) == 2


@in_virtual_time
async def test_jobs_see_the_callers_context_and_each_attempt_a_fresh_copy():
    who, held = contextvars.ContextVar("who"), contextvars.ContextVar("held", default=None)
    seen = []
    queue = queue_of(left_out=[(held, None)])

    @queue.task(retries=1)
    async def look():
        seen.append((who.get(), held.get()))
        who.set("somebody else")
        loop = asyncio.get_running_loop()
        failing = loop.create_future()
        loop.call_soon(failing.set_exception, KeyError())
        try:
            await failing
        except KeyError:
            seen.append(who.get())
        if len(seen) < 3:
            raise OSError

    async with queue:
        who.set("me")
        held.set("a request's")
        job = await look.enqueue()
        who.set("another")
        (await job.wait()).result()
    assert seen == [("me", None), "somebody else"] * 2
    assert (who.get(), held.get()) == ("another", "a request's")


@in_virtual_time
async def test_finished_jobs_hold_nothing_of_their_calls(caplog):
    class Large:
        pass

    async with queue_of() as queue:

        @queue.task
        async def use(large):
            local = Large()
            alive.append(weakref.ref(local))
            if large is None:
                raise ValueError
            await asyncio.sleep(0)

        alive = []
        large = Large()
        alive.append(weakref.ref(large))
        job = await use.enqueue(large)
        failed = await use.enqueue(None)
        del large
        await job.wait()
        await failed.wait()
        caplog.clear()
        gc.collect()
        assert [ref() for ref in alive] == [None, None, None]


@in_virtual_time
async def test_finished_jobs_are_found_as_long_as_they_are_kept():
    async with queue_of(finished_max=2, finished_age_s=60) as queue:
        task = queue.task(double)
        jobs = [await (await task.enqueue(n)).wait() for n in range(3)]
        assert [queue.get(job.id) for job in jobs] == [None, *jobs[1:]]
        assert queue.jobs() == [jobs[2], jobs[1]]
        assert queue.jobs(limit=1) == [jobs[2]]
        assert queue.jobs(status="running") == queue.jobs(task="other") == []
        await asyncio.sleep(61)
        assert queue.get(jobs[2].id) is None
        assert queue.jobs() == []
        assert jobs[0].result() == 0


@in_virtual_time
async def test_less_urgent_jobs_pause_while_the_app_is_busy():
    level, order = [2], []
    async with queue_of(level=lambda: level[0], workers=1, paused_every_s=10) as queue:

        @queue.task
        async def note(name):
            order.append(name)

        loop = asyncio.get_running_loop()
        began = loop.time()
        jobs = [await note.options(priority=p).enqueue(p) for p in ("low", "normal", "high")]
        await jobs[1].wait()
        assert order == ["low", "high", "normal"]  # of those that pause one each ten seconds
        assert 10 <= loop.time() - began < 11
        later = await note.options(priority="low").enqueue("later")
        await asyncio.sleep(1)
        assert later.status == "queued"
        level[0] = 0
        await note.enqueue("wakes a worker")
        await later.wait()
        assert loop.time() - began < 12


@in_virtual_time
async def test_jobs_that_never_wait_leave_the_loop_to_others():
    passes, between = 0, []
    queue = TaskQueue(QueueLimits(backlog_max=5_000))
    taken = 0

    @queue.task
    async def step():
        nonlocal taken
        taken += 1

    jobs = [await step.enqueue() for _ in range(5_000)]
    await queue.open()
    while not jobs[-1].is_finished:
        before = taken
        await asyncio.sleep(0)
        passes += 1
        between.append(taken - before)
    assert passes > 5
    assert max(between) < 5_000
    await queue.close()


def test_it_says_so_where_it_is_used_from_another_loop():
    async def from_thread(task):
        with pytest.raises(RuntimeError, match=r"anyio\.from_thread\.run"):
            await task.enqueue(1)

    async def main():
        async with TaskQueue() as queue:
            await asyncio.to_thread(asyncio.run, from_thread(queue.task(double)))

    asyncio.run(main())


def test_figures_of_more_tasks_than_are_kept_are_counted_together():
    queue = TaskQueue()
    names = {queue.task(name=f"task {n}")(double).plan.counts.name for n in range(300)}
    assert len(names) == 201
    assert "other" in names

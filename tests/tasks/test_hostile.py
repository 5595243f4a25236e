"""Jobs that do what jobs should not: the queue, its workers and everybody else go on."""

import asyncio
import gc
import logging
import sys
import threading
import time
import traceback
import weakref
from functools import partial

import pytest

from perf_middleware import QueueFullError, QueueLimits, TaskQueue, TaskTimeoutError
from perf_middleware.tasks.queue.runtime.room import Room
from perf_middleware.tasks.queue.sizes import approximate_bytes
from tests.tasks.test_queue import in_virtual_time, queue_of
from tests.tasks.virtual_time import run

PATIENCE_S = 120


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Unsized:
    @property
    def nbytes(self):
        return float("nan")  # as an array of a shape that is not known yet


@in_virtual_time
async def test_an_error_that_cannot_be_printed_is_tried_again_and_told_by_its_kind(caplog):
    caplog.set_level(logging.INFO, "perf_middleware.tasks")
    async with queue_of() as queue:

        async def fail():
            raise UnprintableError

        job = await queue.submit(fail, retries=1)
        await job.wait(timeout_s=60)
        assert (job.status, job.attempts) == ("failed", 2)
        assert job.describe()["error"] == "UnprintableError"


@in_virtual_time
async def test_a_job_whose_value_has_no_size_is_kept_and_its_worker_goes_on():
    async with queue_of(workers=1) as queue:

        async def value(given):
            return given

        task = queue.task(value)
        first = await task.enqueue(Unsized())
        second = await task.enqueue([Unsized()])
        await first.wait(timeout_s=60)
        await second.wait(timeout_s=60)
        assert queue.status()["finished"] == 2
    assert approximate_bytes(Unsized()) == 0


@in_virtual_time
async def test_a_job_that_cancels_its_own_task_and_returns_does_not_cancel_the_next():
    async with queue_of(workers=1) as queue:

        async def cancel_myself():
            asyncio.current_task().cancel()

        async def wait():
            await asyncio.sleep(1)

        jobs = [await queue.submit(cancel_myself), await queue.submit(wait)]
        assert [(await job.wait(timeout_s=60)).status for job in jobs] == ["succeeded"] * 2


@in_virtual_time
async def test_a_failed_job_does_not_end_those_that_its_error_came_through():
    async with queue_of() as queue:

        async def report(error):
            raise RuntimeError("reporting failed") from error

        async def endpoint():
            try:
                int("the endpoint's own")
            except ValueError as error:
                job = await queue.task(report).enqueue(error)
                await job.wait(timeout_s=60)
                await asyncio.sleep(1)
                return job.status

        assert await asyncio.create_task(endpoint()) == "failed"


@in_virtual_time
async def test_a_cancelled_job_lets_go_of_its_locals():
    class Large:
        pass

    async with queue_of() as queue:
        alive = []

        async def hold():
            large = Large()
            alive.append(weakref.ref(large))
            await asyncio.sleep(1000)

        job = await queue.submit(hold)
        await asyncio.sleep(1)
        assert job.cancel()
        assert (await job.wait(timeout_s=60)).status == "cancelled"
        gc.collect()
        assert [large() for large in alive] == [None]


@in_virtual_time
async def test_who_asks_again_and_again_for_a_failed_jobs_result_leaves_nothing_in_its_error():
    class Request:
        pass

    requests = []

    async def fail():
        raise ValueError("gone")

    def ask(job):
        request = Request()
        requests.append(weakref.ref(request))
        job.result()

    def frames_of(error):
        return len(traceback.extract_tb(error.__traceback__))

    async with queue_of() as queue:
        job = await (await queue.submit(fail)).wait(timeout_s=60)
        before = frames_of(job.error)
        for _ in range(100):
            with pytest.raises(ValueError, match="gone"):
                ask(job)
        assert frames_of(job.error) <= before + 3  # of the last who asked
        gc.collect()
        assert [one for one in requests[:-1] if one() is not None] == []


@in_virtual_time
async def test_who_joins_a_job_after_waiting_for_room_leaves_it_to_the_next():
    async with queue_of(workers=1, backlog_max=1, full_wait_s=10) as queue:
        is_over = asyncio.Event()

        async def hold():
            await asyncio.sleep(100)

        await queue.submit(is_over.wait)
        await asyncio.sleep(1)
        await queue.submit(is_over.wait)
        keyed = queue.task(hold).options(unique_key="one")
        calls = [keyed.enqueue(), keyed.enqueue(), queue.task(hold).enqueue()]
        callers = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(1)
        is_over.set()
        first, joined, third = await asyncio.gather(*callers)
        assert joined is first
        assert third.status == "queued"
        with pytest.raises(QueueFullError):
            await queue.task(hold).options(wait_s=0).enqueue()
        third.cancel()
        first.cancel()


def test_whose_turn_comes_as_its_time_is_over_gets_it():
    async def main():
        room, loop = Room(10), asyncio.get_running_loop()
        until_s = loop.time() + 5
        turns = []

        async def wait():
            turns.append(await room.wait(until_s, is_first=False))

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(1)
        timer = loop.call_at(until_s - 1e-10, room.let_in)  # in the same pass as the timeout
        await waiting
        timer.cancel()
        assert turns == [True]

    run(main)


@in_virtual_time
async def test_a_dead_letter_is_replayed_once_by_two_who_wait_for_room():
    async with queue_of(workers=1, backlog_max=1, full_wait_s=10) as queue:

        async def fail():
            raise ValueError

        dead = await queue.submit(fail)
        await dead.wait(timeout_s=60)
        is_over = asyncio.Event()
        await queue.submit(is_over.wait)
        await asyncio.sleep(1)
        await queue.submit(is_over.wait)
        replays = [asyncio.create_task(queue.replay(dead.id)) for _ in range(2)]
        await asyncio.sleep(1)
        is_over.set()
        results = await asyncio.gather(*replays, return_exceptions=True)
        assert [isinstance(result, KeyError) for result in results] == [False, True]
        await results[0].wait(timeout_s=60)
        assert len(queue.dead_letters()) == 1


@in_virtual_time
async def test_what_an_object_holds_does_not_hide_the_options_of_its_task():
    class Call:
        def __init__(self):
            self.options = {"any": "thing"}

        async def __call__(self):
            return 7

    async with queue_of() as queue:
        job = await queue.submit(Call())
        assert (await job.wait(timeout_s=60)).result() == 7


@pytest.mark.parametrize("field", ["drain_s", "finished_age_s", "full_wait_s", "retry_most_s"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_wait_that_is_no_number_of_seconds_is_refused_at_once(field, value):
    with pytest.raises(ValueError, match="finite"):
        QueueLimits(**{field: value})


def test_a_function_in_a_thread_that_takes_too_long_fails_its_job_where_traces_are_told(caplog):
    is_over = threading.Event()

    async def main():
        async with TaskQueue(trace_id=lambda: "abc") as queue:
            job = await queue.submit(is_over.wait, timeout_s=0.01)
            await job.wait(timeout_s=PATIENCE_S)
            is_over.set()
            with pytest.raises(TaskTimeoutError):
                job.result()

    try:
        asyncio.run(main())
    finally:
        is_over.set()
    assert "trace abc" in caplog.text


def test_a_queue_that_opens_again_has_the_threads_that_were_at_work_as_it_closed():
    is_over, has_begun = threading.Event(), threading.Event()
    queue = TaskQueue(QueueLimits(threads_max=1, drain_s=0))

    def hold():
        has_begun.set()
        is_over.wait(PATIENCE_S)

    async def leave_one():
        async with queue:
            await queue.submit(hold)
            deadline_s = time.monotonic() + PATIENCE_S
            while not has_begun.is_set() and time.monotonic() < deadline_s:
                await asyncio.sleep(0.001)

    async def run_another():
        async with queue:
            job = await queue.submit(lambda: 5)
            assert (await job.wait(timeout_s=PATIENCE_S / 4)).result() == 5

    try:
        asyncio.run(leave_one())
        asyncio.run(run_another())
    finally:
        is_over.set()


@in_virtual_time
async def test_a_handler_of_the_log_that_fails_keeps_no_job_from_its_end():
    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError(record.levelname)

    logger, broken = logging.getLogger("perf_middleware.tasks"), Broken()
    logger.addHandler(broken)
    try:
        async with queue_of() as queue:

            async def fail():
                raise ValueError

            job = await queue.submit(fail)
            assert (await job.wait(timeout_s=60)).status == "failed"
    finally:
        logger.removeHandler(broken)


def test_those_who_wait_for_room_leave_in_any_order_and_keep_their_turns():
    async def main():
        room, came = Room(100), []

        async def wait(number):
            if await room.wait(asyncio.get_running_loop().time() + 10, is_first=number == 3):
                came.append(number)

        waiting = [asyncio.create_task(wait(number)) for number in range(6)]
        await asyncio.sleep(1)
        for number in (5, 1):
            waiting[number].cancel()
        await asyncio.sleep(1)
        assert len(room) == 4
        room.let_all_in()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert came == [3, 0, 2, 4]

    run(main)


@in_virtual_time
async def test_a_place_in_a_full_queue_goes_to_who_waited_for_it_and_not_to_who_comes_by():
    async with queue_of(workers=1, backlog_max=1, full_wait_s=5) as queue:

        async def nap():
            await asyncio.sleep(0.01)

        task, got = queue.task(nap), []

        async def wait(number):
            await task.enqueue()
            got.append(number)

        waiters = [asyncio.create_task(wait(number)) for number in range(20)]
        await asyncio.sleep(0)
        came_by = 0
        while not all(waiter.done() for waiter in waiters):
            for _ in range(8):  # in the moments between a place that is free and its being taken
                try:
                    await task.options(wait_s=0).enqueue()
                except QueueFullError:
                    pass
                else:
                    came_by += len(got) < 20
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
        await asyncio.gather(*waiters)
        assert got == sorted(got)
        assert came_by == 0


@in_virtual_time
async def test_who_waited_on_a_loop_that_is_over_takes_nobodys_turn():
    room, other = Room(10), asyncio.new_event_loop()
    gone, let_in = other.create_future(), other.create_future()
    room._waiting[gone] = room._waiting[let_in] = None
    room._waiting.move_to_end(let_in, last=False)
    room.let_in()
    assert len(room) == 2
    room.forget_others(asyncio.get_running_loop())
    assert not room
    other.close()


@pytest.mark.parametrize(
    "given",
    [
        {"priority": ["high"]}, {"priority": 3}, {"retries": 1.5}, {"retries": "3"},
        {"delay_s": "5"}, {"unique_key": 7}, {"at": 1.5}, {"wait_s": "1"}, {"timeout_s": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_an_option_of_a_wrong_type_is_told_as_one_of_a_wrong_value(given):
    async def nothing():
        return None

    [name] = given
    with pytest.raises(ValueError, match=name):
        TaskQueue().task(nothing).options(**given)


@pytest.mark.parametrize("first", ["timeout", "cancel"])
@in_virtual_time
async def test_a_job_that_swallows_its_first_cancellation_is_cancelled_by_the_next(first):
    begun, swallowed = asyncio.Event(), asyncio.Event()

    async with TaskQueue(QueueLimits(workers=1)) as queue:

        @queue.task(timeout_s=0.001 if first == "timeout" else None)
        async def stubborn():
            begun.set()
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                swallowed.set()
            await asyncio.sleep(3_600)

        job = await stubborn.enqueue()
        if first == "cancel":
            await begun.wait()
            assert job.cancel()
        await swallowed.wait()
        assert job.cancel()
        await job.wait(PATIENCE_S)
        assert (job.status, job.is_unwanted) == ("cancelled", True)
        (worker,) = queue._engine._crew.workers

        async def runs():
            await asyncio.sleep(0)
            return "as before"

        after = await (await queue.submit(runs)).wait(PATIENCE_S)
        assert after.result() == "as before"
        assert queue._engine._crew.workers == {worker}  # it has outlived both


def test_a_generator_function_is_refused_where_it_would_do_nothing():
    def steps():
        yield

    async def async_steps():
        yield

    for call in (steps, async_steps, partial(steps)):
        with pytest.raises(TypeError, match="steps is a generator function"):
            TaskQueue().task(call)


@pytest.mark.parametrize("retry_on", ["ValueError", 5, None, (ValueError, "OSError"), ValueError()])
def test_what_is_no_type_of_errors_is_refused_before_a_job_waits_for_ever(retry_on):
    with pytest.raises(ValueError, match="retry_on is a type of errors"):
        TaskQueue().task(retries=1, retry_on=retry_on)(noop)


async def noop():
    return None


@in_virtual_time
async def test_a_call_that_was_made_already_is_no_task():
    async with queue_of() as queue:
        made = noop()
        for wrong in (made, 5, None):
            with pytest.raises(TypeError, match="a task is a function"):
                await queue.submit(wrong)
        made.close()


@in_virtual_time
async def test_a_task_above_a_class_or_static_method_is_called_as_that_is():
    async with queue_of() as queue:

        class Shop:
            @queue.task
            @classmethod
            async def name(cls, count):
                return cls.__name__, count

            @queue.task(retries=1)
            @staticmethod
            async def price(count):
                return 3 * count

            @staticmethod
            @queue.task
            async def tax(count):
                return 0.2 * count

        class Branch(Shop):
            pass

        jobs = [await Shop.name.enqueue(2), await Branch().name.options(retries=1).enqueue(5)]
        jobs += [await of.price.enqueue(4) for of in (Shop, Branch())]
        jobs += [await of.tax.enqueue(5) for of in (Shop, Branch())]
        results = [(await job.wait(timeout_s=60)).result() for job in jobs]
        assert results == [("Shop", 2), ("Branch", 5), 12, 12, 1.0, 1.0]
        assert (await Branch.name(1), await Shop().price(1)) == (("Branch", 1), 3)


@in_virtual_time
async def test_a_task_below_a_classmethod_is_its_classs_or_warned_of():
    async with queue_of() as queue:

        def shop():
            class Shop:
                @classmethod
                @queue.task
                async def name(cls, count):
                    return cls.__name__, count

            return Shop

        if sys.version_info >= (3, 13):
            with pytest.warns(RuntimeWarning, match="stands above @classmethod"):
                shop()
        else:
            job = await shop().name.enqueue(2)
            assert (await job.wait(timeout_s=60)).result() == ("Shop", 2)


def test_a_function_whose_first_argument_is_called_cls_may_be_a_task():
    def made(cls):
        return cls

    assert TaskQueue().task(made)(5) == 5

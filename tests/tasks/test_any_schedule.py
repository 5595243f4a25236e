"""Whatever is submitted, fails, is cancelled and stopped: no job is lost, stuck or run twice."""

import asyncio
import logging
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware import QueueClosedError, QueueFullError, QueueLimits, TaskQueue
from perf_middleware.tasks.queue.states import FINISHED
from tests.tasks.virtual_time import clock_us, run


@dataclass
class Record:
    """What is seen of one call from inside of it."""

    steps: tuple
    begun: int = 0
    running: int = 0
    returned: int = 0
    jobs: list = field(default_factory=list)


async def behave(record):
    record.begun += 1
    record.running += 1
    assert record.running == 1, "two attempts at once"
    try:
        for step in record.steps:
            match step:
                case float():
                    await asyncio.sleep(step)
                case "deaf":
                    try:
                        await asyncio.sleep(0.2)  # all three are over before the queue gives up
                    except asyncio.CancelledError:
                        await asyncio.sleep(0.1)
                case "raise":
                    raise ValueError
                case "flaky" if record.begun < 2:
                    raise OSError
                case "end itself":
                    raise asyncio.CancelledError
                case "be cancelled":
                    record.jobs[0].cancel()
                case "shoot the worker":
                    asyncio.current_task().cancel()
                    await asyncio.sleep(0)
        record.returned += 1
        return record
    finally:
        record.running -= 1


STEPS = st.lists(
    st.sampled_from(
        [0.0, 0.01, 0.5, 3.0, "raise", "flaky", "deaf", "end itself", "be cancelled",
         "shoot the worker"]
    ),
    max_size=3,
).map(tuple)  # fmt: skip
SUBMIT = st.fixed_dictionaries(
    {
        "steps": STEPS,
        "priority": st.sampled_from(["critical", "high", "normal", "low"]),
        "retries": st.sampled_from([0, 0, 1, 3]),
        "timeout_s": st.sampled_from([None, 0.02, 1.0]),
        "delay_s": st.sampled_from([None, None, 0.0, 0.3, 30.0]),
        "unique_key": st.sampled_from([None, None, "a", "b"]),
        "wait_s": st.sampled_from([0.0, 0.2]),
    }
)
OPS = st.lists(
    st.one_of(
        SUBMIT,
        SUBMIT,
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.sampled_from([0.0, 0.005, 0.3, 2.0])),
        st.tuples(st.just("level"), st.integers(0, 2)),
        st.just(("leave while waiting", 0)),
    ),
    max_size=30,
)
LIMITS = st.builds(
    QueueLimits,
    workers=st.sampled_from([1, 2, 5]),
    backlog_max=st.sampled_from([1, 3, 50]),
    fair_every=st.sampled_from([1, 3]),
    drain_s=st.sampled_from([0.0, 0.4, 60.0]),
    finished_max=st.just(100),
)


@pytest.fixture(autouse=True)
def _nothing_to_read(caplog):
    caplog.set_level(logging.CRITICAL, logger="perf_middleware.tasks")


@settings(max_examples=120)
@given(limits=LIMITS, before=OPS, after=OPS, opens_again=st.booleans())
def test_no_job_is_lost_or_run_twice_or_stuck(limits, before, after, opens_again):
    run(lambda: play(limits, before, after, opens_again))


async def play(limits, before, after, opens_again):
    level = [0]
    queue = TaskQueue(limits, level=lambda: level[0], clock=clock_us, draw=lambda: 0.5)
    task = queue.task(name="any")(behave)
    records, accepted, rejected = [], {}, 0

    async def play_some(ops):
        nonlocal rejected
        for op in ops:
            match op:
                case dict():
                    options = dict(op)
                    record = Record(options.pop("steps"))
                    try:
                        job = await task.options(**options).enqueue(record)
                    except (QueueFullError, QueueClosedError):
                        rejected += 1
                        continue
                    record.jobs.append(job)
                    if job.id not in accepted:
                        accepted[job.id] = job
                        records.append((job, record))
                case ("cancel", number) if number < len(records):
                    job = records[number][0]
                    was_finished = job.is_finished
                    assert job.cancel() is not was_finished
                case ("pass", seconds):
                    await asyncio.sleep(seconds)
                case ("level", to):
                    level[0] = to
                case ("leave while waiting", _) if records:
                    waiting = asyncio.ensure_future(records[-1][0].wait())
                    await asyncio.sleep(0)
                    waiting.cancel()

    await play_some(before)
    await queue.open()
    await play_some(after)
    waiters = [asyncio.ensure_future(job.wait()) for job in accepted.values()]
    await queue.close()
    if opens_again:
        async with queue:
            await play_some(after)
    await asyncio.wait_for(asyncio.gather(*waiters), 1)

    totals = queue.status()["tasks"].get("any", {})
    ends = dict.fromkeys(FINISHED, 0)
    for job, record in records:
        ends[job.status] += 1
        assert job.is_finished, job
        assert record.running == 0
        assert record.begun == job.attempts <= job.retries + 1
        assert record.returned == (job.status == "succeeded")
        if job.status == "succeeded":
            assert job.result() is record
        else:
            with pytest.raises(BaseException):  # noqa: B017, PT011 - there is no result, at any rate
                job.result()
    if totals:
        assert totals["enqueued"] == len(accepted) == len(records)
        assert totals["rejected"] == rejected
        assert totals["started"] == sum(record.begun for _, record in records)
        assert (totals["succeeded"], totals["dead"]) == (ends["succeeded"], ends["failed"])
        assert (totals["cancelled"], totals["handed_back"]) == (
            ends["cancelled"], ends["handed_back"],
        )  # fmt: skip
    status = queue.status()
    assert (status["in_progress"], status["scheduled"], status["backlog_bytes"]) == (0, 0, 0)
    assert not any(status["backlog"].values())


def test_a_job_that_nobody_would_run_is_seen_as_stuck():
    async def forget():
        queue = TaskQueue(clock=clock_us)
        job = await queue.submit(asyncio.sleep)
        await job.wait()

    with pytest.raises(AssertionError):
        run(forget)

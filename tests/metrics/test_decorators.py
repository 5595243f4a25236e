"""Timers measure and change nothing: natures, signatures, exceptions, cancellation, contexts."""

import asyncio
import contextvars
import functools
import inspect
import logging
from contextlib import suppress
from typing import Annotated

import anyio
import pytest
from fastapi import Depends, FastAPI, HTTPException
from starlette.testclient import TestClient

from perf_middleware.errors import ConfigurationError, MetricUseError
from perf_middleware.metrics import decorators
from perf_middleware.metrics.custom.instruments import LabelOverflow
from perf_middleware.metrics.decorators import (
    EXCEPTION_NAMES_MAX,
    Timers,
    log_label_overflow,
)


@pytest.fixture
def timers():
    return Timers(overflow=LabelOverflow())


def counts(timers):
    """{(name, category): how often} of everything timed."""
    by_name = {family.name: family for family in timers.families()}
    return {
        tuple(value for _, value in point.labels.pairs): point.cumulative[-1]
        for point in by_name["perf_timer_seconds"].points
    }


def errors(timers):
    by_name = {family.name: family for family in timers.families()}
    return {
        tuple(value for _, value in point.labels.pairs): point.value
        for point in by_name["perf_timer_errors"].points
    }


def seconds(timers, name):
    by_name = {family.name: family for family in timers.families()}
    return sum(
        point.sum
        for point in by_name["perf_timer_seconds"].points
        if point.labels.pairs[0] == ("name", name)
    )


def test_a_block_is_timed_in_a_sync_and_in_an_async_with(timers):
    with timers.timer("load", category="db") as timing:
        pass
    assert timing.elapsed_us >= 0

    async def block():
        async with timers.timer("load", category="db"):
            await asyncio.sleep(0.02)
        async with timers.timer("load"):
            pass

    asyncio.run(block())
    assert counts(timers) == {("load", "db"): 2, ("load", "app"): 1}
    assert 0.02 <= seconds(timers, "load") < 10


def test_an_exception_passes_through_and_is_counted(timers):
    with pytest.raises(KeyError, match="missing"), timers.timer("load"):
        raise KeyError("missing")
    assert counts(timers) == {("load", "app"): 1}
    assert errors(timers) == {("load", "app", "KeyError"): 1}


def test_one_timing_cannot_be_entered_twice_at_once_but_again(timers):
    timing = timers.timer("load")
    with timing, pytest.raises(MetricUseError, match="one for each"), timing:
        pass
    with timing:
        pass
    assert counts(timers) == {("load", "app"): 2}


def test_the_note_hears_of_every_end_and_may_fail(caplog):
    heard = []
    timers = Timers(
        overflow=LabelOverflow(),
        note=lambda category, elapsed_us: heard.append((category, elapsed_us)),
    )

    @timers.track("load", category="db")
    def load():
        return 1

    with timers.timer("think"):
        load()
    assert [category for category, _ in heard] == ["db", "app"]
    assert all(isinstance(elapsed_us, int) for _, elapsed_us in heard)

    timers.note = lambda category, elapsed_us: 1 / 0
    with caplog.at_level(logging.ERROR):
        assert load() == 1
        assert load() == 1
    assert len(caplog.records) == 1
    timers.note = None
    assert load() == 1


def test_tracked_callables_keep_their_nature_name_and_signature(timers):
    def function(a: int, *, b: str = "x") -> str:
        """Say b."""
        return b * a

    async def coroutine(a: int) -> int:
        return a

    def generator(a: int):
        yield a

    async def async_generator(a: int):
        yield a

    for original, is_kind in (
        (function, inspect.isfunction),
        (coroutine, inspect.iscoroutinefunction),
        (generator, inspect.isgeneratorfunction),
        (async_generator, inspect.isasyncgenfunction),
    ):
        tracked = timers.track("t")(original)
        assert is_kind(tracked)
        assert inspect.signature(tracked) == inspect.signature(original)
        assert (tracked.__name__, tracked.__doc__) == (original.__name__, original.__doc__)
        assert tracked.__wrapped__ is original
        kinds = (
            inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction
        )  # fmt: skip
        assert [kind(tracked) for kind in kinds] == [kind(original) for kind in kinds]
    assert timers.track("t")(function)(2, b="y") == "yy"


def test_methods_partials_and_async_objects_are_timed(timers):
    class Repository:
        @timers.track("method")
        def load(self, key):
            return (self, key)

        @timers.track("static")
        @staticmethod
        def static(key):
            return key

        @timers.track("class")
        @classmethod
        def build(cls):
            return cls

    class AsyncCall:
        async def __call__(self):
            await asyncio.sleep(0.02)
            return 5

    repository = Repository()
    assert repository.load(1) == (repository, 1)
    assert repository.static(2) == 2
    assert Repository.build() is Repository
    assert timers.track("partial")(functools.partial(int, "7"))() == 7
    assert asyncio.run(timers.track("object")(AsyncCall())()) == 5
    assert seconds(timers, "object") >= 0.02
    assert set(counts(timers).values()) == {1}
    assert len(counts(timers)) == 5


@pytest.mark.parametrize("wrong", [int, 5, property(lambda self: 1)])
def test_only_functions_can_be_tracked(timers, wrong):
    with pytest.raises(ConfigurationError, match="only functions"):
        timers.track("t")(wrong)


def test_track_without_a_name_is_an_error_at_once(timers):
    with pytest.raises(ConfigurationError, match="needs a name"):
        timers.track(lambda: None)


def test_functions_return_and_raise_as_before(timers):
    @timers.track("sync")
    def divide(a, b):
        return a / b

    @timers.track("async")
    async def async_divide(a, b):
        await asyncio.sleep(0)
        return a / b

    assert divide(4, 2) == 2
    assert asyncio.run(async_divide(4, b=2)) == 2
    with pytest.raises(ZeroDivisionError):
        divide(1, 0)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(async_divide(1, 0))
    assert counts(timers) == {("sync", "app"): 2, ("async", "app"): 2}
    assert errors(timers) == {
        ("sync", "app", "ZeroDivisionError"): 1,
        ("async", "app", "ZeroDivisionError"): 1,
    }


def test_cancellation_passes_through_a_tracked_function(timers):
    @timers.track("wait")
    async def wait():
        await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert errors(timers) == {("wait", "app", "CancelledError"): 1}


def test_tracked_functions_run_on_trio(timers):
    @timers.track("nap")
    async def nap():
        await anyio.sleep(0)
        return 1

    @timers.track("count")
    async def count():
        for number in range(3):
            await anyio.sleep(0)
            yield number

    async def main():
        assert [number async for number in count()] == [0, 1, 2]
        return await nap()

    assert anyio.run(main, backend="trio") == 1
    assert counts(timers) == {("nap", "app"): 1, ("count", "app"): 1}


def conversation():
    """Answers what it is sent and survives a ValueError."""
    heard = []
    try:
        while len(heard) < 4:
            try:
                heard.append((yield len(heard)))
            except ValueError as error:
                heard.append(str(error))
    finally:
        heard.append("closed")
    return heard


def drive(generator):
    steps = [next(generator), generator.send("a"), generator.throw(ValueError("b"))]
    steps.append(generator.send("c"))
    with pytest.raises(StopIteration) as stop:
        generator.send("d")
    return steps, stop.value.value


def test_a_tracked_generator_forwards_send_throw_and_the_result(timers):
    tracked = timers.track("talk")(conversation)
    assert drive(tracked()) == drive(conversation())
    assert counts(timers) == {("talk", "app"): 1}
    assert errors(timers) == {}


def test_a_tracked_generator_forwards_close_and_failures(timers):
    closed = []

    @timers.track("numbers")
    def numbers():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    steps = numbers()
    next(steps)
    steps.close()
    assert closed == [True]
    assert errors(timers) == {}

    steps = numbers()
    next(steps)
    with pytest.raises(LookupError):
        steps.throw(LookupError("x"))
    assert closed == [True, True]
    assert errors(timers) == {("numbers", "app", "LookupError"): 1}
    numbers()  # never started: nothing runs, nothing is counted
    assert counts(timers) == {("numbers", "app"): 2}


def test_a_generator_that_will_not_close_says_so_as_before(timers):
    @timers.track("stubborn")
    def stubborn():
        for number in range(2):
            with suppress(GeneratorExit):
                yield number

    steps = stubborn()
    next(steps)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        steps.close()


async def async_conversation(heard):
    try:
        while len(heard) < 4:
            try:
                await asyncio.sleep(0)
                heard.append((yield len(heard)))
            except ValueError as error:
                heard.append(str(error))
    finally:
        await asyncio.sleep(0)
        heard.append("closed")


async def drive_async(function):
    heard: list = []
    steps = function(heard)
    got = [await anext(steps), await steps.asend("a"), await steps.athrow(ValueError("b"))]
    got.append(await steps.asend("c"))
    with pytest.raises(StopAsyncIteration):
        await steps.asend("d")
    return got, heard


def test_a_tracked_async_generator_forwards_asend_athrow_and_its_end(timers):
    tracked = timers.track("talk")(async_conversation)
    assert asyncio.run(drive_async(tracked)) == asyncio.run(drive_async(async_conversation))
    assert counts(timers) == {("talk", "app"): 1}


def test_a_tracked_async_generator_is_closed_where_its_consumer_stops(timers):
    closed = []

    @timers.track("numbers")
    async def numbers():
        try:
            for number in range(10):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def stop_early():
        steps = numbers()
        async for _ in steps:
            break
        await steps.aclose()
        assert closed == [True]

    async def left_behind():
        async for _ in numbers():
            break
        await asyncio.sleep(0.05)  # the loop closes what was dropped
        assert closed == [True, True]

    async def failing():
        steps = numbers()
        await anext(steps)
        with pytest.raises(LookupError):
            await steps.athrow(LookupError("x"))
        assert closed == [True, True, True]

    async def cancelled():
        async def consume():
            async for _ in numbers():
                await asyncio.sleep(60)

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.02)
        assert closed == [True, True, True, True]

    for part in (stop_early, left_behind, failing, cancelled):
        asyncio.run(part())
    assert errors(timers) == {("numbers", "app", "LookupError"): 1}
    assert counts(timers) == {("numbers", "app"): 4}


def test_generators_still_open_when_the_loop_ends_are_closed_without_noise(timers, caplog):
    closed = []

    @timers.track("numbers")
    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    kept = []

    async def main():
        steps = numbers()
        kept.append(steps)
        await anext(steps)

    asyncio.run(main())
    assert closed == [True]
    assert caplog.records == []


def test_a_generator_is_not_charged_for_its_slow_consumer(timers):
    @timers.track("fast")
    async def fast():
        for number in range(3):
            yield number

    async def main():
        async for _ in fast():
            await asyncio.sleep(0.1)

    asyncio.run(main())
    assert seconds(timers, "fast") < 0.1


def test_context_variables_cross_a_tracked_callable_both_ways(timers):
    variable = contextvars.ContextVar("variable", default=0)

    @timers.track("set")
    async def set_it():
        variable.set(variable.get() + 1)

    @timers.track("generate")
    async def generate():
        variable.set(variable.get() + 1)
        yield variable.get()

    async def main():
        variable.set(1)
        await set_it()
        return [value async for value in generate()], variable.get()

    assert asyncio.run(main()) == ([3], 3)


def test_fastapi_still_sees_parameters_dependencies_and_their_kinds(timers):
    app = FastAPI()
    events = []

    @timers.track("session", category="db")
    async def session(limit: int = 5):
        events.append("open")
        yield limit
        events.append("close")

    @timers.track("sync session", category="db")
    def sync_session():
        yield "sync"
        events.append("sync close")

    @timers.track("user")
    def user(name: str) -> str:
        return name.upper()

    @app.get("/items/{item}")
    @timers.track("endpoint")
    async def endpoint(
        item: int,
        limit: Annotated[int, Depends(session)],
        sync: Annotated[str, Depends(sync_session)],
        who: Annotated[str, Depends(user)],
    ) -> dict:
        if item == 0:
            raise HTTPException(404)
        return {"item": item, "limit": limit, "sync": sync, "who": who}

    app.get("/sync")(timers.track("sync endpoint")(lambda q=1: {"q": q}))

    client = TestClient(app)
    answer = client.get("/items/3?name=ann&limit=9")
    assert answer.json() == {"item": 3, "limit": 9, "sync": "sync", "who": "ANN"}
    assert events == ["open", "sync close", "close"]
    assert client.get("/items/x?name=ann").status_code == 422
    assert client.get("/items/0?name=ann").status_code == 404
    assert client.get("/sync?q=2").status_code == 200
    parameters = client.get("/openapi.json").json()["paths"]["/items/{item}"]["get"]["parameters"]
    assert {parameter["name"] for parameter in parameters} == {"item", "limit", "name"}
    assert errors(timers)["endpoint", "app", "HTTPException"] == 1


def test_memory_growth_is_recorded_where_it_is_asked_for(timers, monkeypatch):
    readings = iter([1_000_000, 1_500_000, 9_000_000, 2_000_000, -1, 5, 7, 7])
    monkeypatch.setattr(decorators, "resident_bytes", lambda: next(readings))

    @timers.track("load", memory=True)
    def load():
        return None

    with timers.timer("block", memory=True):
        pass
    load()  # shrank: no growth
    load()  # unreadable: left out
    load()
    by_name = {family.name: family for family in timers.families()}
    family = by_name["perf_timer_memory_bytes"]
    points = {point.labels.pairs[0][1]: point for point in family.points}
    assert (points["block"].sum, points["block"].cumulative[-1]) == (500_000, 1)
    assert (points["load"].sum, points["load"].cumulative[-1]) == (0, 2)


def test_names_beyond_the_limit_go_to_other_and_are_logged_once(caplog):
    overflow = LabelOverflow(log_label_overflow)
    timers = Timers(label_sets_max=2, overflow=overflow)
    for number in range(50):
        with timers.timer(f"t{number}", category="db"):
            pass
    assert counts(timers) == {("t0", "db"): 1, ("t1", "db"): 1, ("other", "other"): 48}
    assert [record.getMessage().split()[0] for record in caplog.records] == ["perf_timer_seconds"]
    assert len(timers._series) == 2
    assert overflow.count("perf_timer_seconds") == 48
    # The app's own figures count in the same object, so it is offered by its owner only.
    assert {family.name for family in timers.families()} == {
        "perf_timer_seconds",
        "perf_timer_memory_bytes",
        "perf_timer_errors",
    }


def test_exception_names_are_bounded(timers):
    for number in range(EXCEPTION_NAMES_MAX + 20):
        made = type(f"Error{number}", (Exception,), {})
        with pytest.raises(made), timers.timer("load"):
            raise made
    found = errors(timers)
    assert len(found) == EXCEPTION_NAMES_MAX + 1
    assert found["load", "app", "other"] == 20


def test_reset_sets_all_timers_to_zero(timers):
    with pytest.raises(KeyError), timers.timer("load", memory=True):
        raise KeyError
    timers.reset()
    assert counts(timers) == {("load", "app"): 0}
    assert errors(timers) == {("load", "app", "KeyError"): 0}
    with timers.timer("load"):
        pass
    assert counts(timers) == {("load", "app"): 1}

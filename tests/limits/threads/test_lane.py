"""The watched limiter, on both kinds of loops: as before for all, with a reserve for probes."""

import contextlib
import logging
import threading

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.limits.threads.drivers.lane import (
    LANE,
    QueueCounts,
    ThreadLane,
    UnexpectedLimiterError,
    _limiter_in_use,
    lane_here,
)
from perf_middleware.limits.threads.drivers.mark import PROBE, ProbeMark
from perf_middleware.limits.threads.runtime import ThreadOffload
from perf_middleware.limits.threads.settings import ThreadSettings
from perf_middleware.limits.threads.sizing import SizeBounds
from perf_middleware.resource import Resources

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
US = 1_000_000


def limiter_here():
    return anyio.to_thread.current_default_thread_limiter()


def run(main, backend):
    async def bounded():
        with anyio.fail_after(120):
            return await main()

    return anyio.run(bounded, backend=backend)


@contextlib.asynccontextmanager
async def holding(tasks, threads):
    """So many calls hold a thread inside of the block, the rest of them wait for one."""
    release = threading.Event()
    started = threading.Semaphore(0)

    def call():
        started.release()
        release.wait(20)

    for _ in range(threads):
        tasks.start_soon(anyio.to_thread.run_sync, call)
    limiter = limiter_here()
    while limiter.borrowed_tokens < min(threads, limiter.total_tokens):
        await anyio.sleep(0.001)
    while limiter.borrowed_tokens + limiter.statistics().tasks_waiting < threads:
        await anyio.sleep(0.001)
    try:
        yield
    finally:
        release.set()


async def as_probe(call):
    mark = ProbeMark()
    token = PROBE.set(mark)
    try:
        return await anyio.to_thread.run_sync(call)
    finally:
        mark.is_on = False
        PROBE.reset(token)


@BACKENDS
def test_a_probe_gets_a_thread_though_all_are_taken(backend):
    async def main():
        limiter_here().total_tokens = 2
        threads = ThreadOffload(reserved_max=1)
        async with (
            Resources([threads]).opened(),
            anyio.create_task_group() as tasks,
            holding(tasks, 5),
        ):
            assert await as_probe(lambda: "alive") == "alive"
            status = threads.status()
            assert (status["borrowed"], status["waiting"]) == (2, 3)
            assert threads.queue_s() > 0
        return threads.counts.reserved_used, threads.counts.queued, limiter_here().borrowed_tokens

    assert run(main, backend) == (1, 3, 0)


@BACKENDS
def test_without_a_mark_nobody_passes_the_line(backend):
    async def main():
        limiter_here().total_tokens = 1
        threads = ThreadOffload(reserved_max=4)
        async with (
            Resources([threads]).opened(),
            anyio.create_task_group() as tasks,
            holding(tasks, 1),
        ):
            with anyio.move_on_after(0.05) as scope:
                await anyio.to_thread.run_sync(lambda: None)
            assert threads.status()["waiting"] == 0  # given up, and counted as a wait
        return scope.cancelled_caught, threads.counts.queued, threads.counts.reserved_used

    assert run(main, backend) == (True, 1, 0)


@BACKENDS
def test_the_reserve_is_bounded_and_beyond_it_a_probe_waits_as_ever(backend):
    async def main():
        limiter_here().total_tokens = 1
        threads = ThreadOffload(reserved_max=2)
        hold = threading.Event()
        async with (
            Resources([threads]).opened(),
            anyio.create_task_group() as tasks,
            holding(tasks, 1),
        ):
            for _ in range(3):
                tasks.start_soon(as_probe, lambda: hold.wait(20))
            while threads.status()["reserve_borrowed"] + threads.status()["waiting"] < 3:
                await anyio.sleep(0.001)
            seen = threads.status()["reserve_borrowed"], threads.status()["waiting"]
            hold.set()
        return seen, threads.status()["watching"], limiter_here().borrowed_tokens

    assert run(main, backend) == ((2, 1), False, 0)


@BACKENDS
def test_a_mark_ends_with_its_request(backend):
    """A task that a probe has left behind must not use the reserve for ever."""

    async def main():
        limiter_here().total_tokens = 1
        threads = ThreadOffload(reserved_max=2)
        async with (
            Resources([threads]).opened(),
            anyio.create_task_group() as tasks,
            holding(tasks, 1),
        ):
            mark = ProbeMark()
            PROBE.set(mark)
            mark.is_on = False
            with anyio.move_on_after(0.05) as scope:
                await anyio.to_thread.run_sync(lambda: None)
        return scope.cancelled_caught

    assert run(main, backend)


@BACKENDS
def test_closing_leaves_the_limiter_as_it_was(backend):
    async def main():
        used = _limiter_in_use()
        before = type(used), dict(getattr(used, "__dict__", {}))
        threads = ThreadOffload()
        async with Resources([threads]).opened():
            assert isinstance(getattr(used, LANE), ThreadLane)
            assert isinstance(used, before[0])
            assert type(used).__name__ == before[0].__name__
            await anyio.to_thread.run_sync(lambda: None)
        own = dict(getattr(used, "__dict__", {}))
        assert (type(used), own.keys()) == (before[0], before[1].keys())
        return threads.counts.acquired

    assert run(main, backend) == 1


@BACKENDS
def test_a_probe_that_still_runs_at_the_close_gives_its_reserve_back(backend):
    async def main():
        limiter_here().total_tokens = 1
        threads = ThreadOffload(reserved_max=1)
        hold = threading.Event()
        async with anyio.create_task_group() as tasks, holding(tasks, 1):
            async with Resources([threads]).opened():
                tasks.start_soon(as_probe, lambda: hold.wait(20))
                while not threads.status()["reserve_borrowed"]:
                    await anyio.sleep(0.001)
            assert hasattr(_limiter_in_use(), LANE)  # it is still needed
            hold.set()
            while hasattr(_limiter_in_use(), LANE):
                await anyio.sleep(0.001)
        return limiter_here().borrowed_tokens

    assert run(main, backend) == 0


@BACKENDS
def test_two_bundles_on_one_loop_share_the_lane(backend):
    async def main():
        limiter_here().total_tokens = 1
        first, second = ThreadOffload(reserved_max=1), ThreadOffload(reserved_max=3)
        outer, inner = Resources([first]), Resources([second])
        async with anyio.create_task_group() as tasks:
            async with outer.opened():
                async with inner.opened():
                    assert first._lane is second._lane
                    assert first._lane._reserved_max == 3
                assert first._lane._reserved_max == 1
                async with holding(tasks, 1):
                    assert await as_probe(lambda: "alive") == "alive"
            assert not hasattr(_limiter_in_use(), LANE)
        return first.counts.acquired, second.counts.acquired

    assert run(main, backend) == (2, 0)


@BACKENDS
@pytest.mark.parametrize("free", [True, False], ids=["a thread is free", "none is"])
def test_a_cancelled_call_leaves_nothing_behind(backend, free):
    async def main():
        limiter_here().total_tokens = 2 if free else 1
        threads = ThreadOffload(reserved_max=1)
        async with (
            Resources([threads]).opened(),
            anyio.create_task_group() as tasks,
            holding(tasks, 1),
        ):
            for call in (anyio.to_thread.run_sync, as_probe):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await call(lambda: None)
            status = threads.status()
            return status["borrowed"], status["waiting"], status["reserve_borrowed"]

    assert run(main, backend) == (1, 0, 0)


@BACKENDS
def test_who_holds_a_token_is_told_so_as_before(backend):
    async def main():
        used = _limiter_in_use()
        used.total_tokens = 1
        threads = ThreadOffload()
        async with Resources([threads]).opened():
            async with used:
                PROBE.set(ProbeMark())
                with pytest.raises(RuntimeError, match="already holding"):
                    await used.acquire()
            with pytest.raises(RuntimeError, match="isn't holding"):
                used.release()

    run(main, backend)


calls = st.lists(
    st.tuples(
        st.booleans(),  # a probe
        st.integers(0, 6),  # turns of the loop until it asks
        st.integers(0, 6),  # turns that it holds a thread
        st.one_of(st.none(), st.integers(0, 12)),  # turns until it is cancelled
    ),
    max_size=12,
)


@BACKENDS
@settings(max_examples=60, deadline=None)
@given(calls, st.integers(1, 3), st.integers(0, 2))
def test_whatever_comes_and_goes_the_bounds_hold_and_all_is_given_back(
    backend, requests, total, reserved_max
):
    most = [0, 0]

    async def main():
        used = _limiter_in_use()
        used.total_tokens = total
        threads = ThreadOffload(reserved_max=reserved_max)

        async def call(probe, before, held, cancelled):
            with anyio.CancelScope() as scope:
                if cancelled is not None:
                    tasks.start_soon(cancel, scope, cancelled)
                PROBE.set(ProbeMark() if probe else None)
                await turns(before)
                async with used:
                    status = threads.status()
                    most[:] = map(max, most, (status["borrowed"], status["reserve_borrowed"]))
                    await turns(held)

        async def cancel(scope, after):
            await turns(after)
            scope.cancel()

        async with Resources([threads]).opened():
            async with anyio.create_task_group() as tasks:
                for request in requests:
                    tasks.start_soon(call, *request)
            status = threads.status()
            left = status["borrowed"], status["waiting"], status["reserve_borrowed"]
        return left, hasattr(used, LANE)

    assert run(main, backend) == ((0, 0, 0), False)
    assert most[0] <= total
    assert most[1] <= reserved_max


async def turns(count):
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


# --- limiters that are not as expected ------------------------------------------------------------


class Bare:
    """A limiter of some other make."""

    total_tokens = 3
    available_tokens = 3


class Deaf(Bare):
    """It has the methods, and does not use them."""

    async def acquire_on_behalf_of(self, borrower):
        pass

    def acquire_on_behalf_of_nowait(self, borrower):
        pass

    def release_on_behalf_of(self, borrower):
        pass

    async def __aenter__(self):
        pass

    async def __aexit__(self, *_):
        pass


@pytest.mark.parametrize(
    ("limiter", "said"), [(Bare, "it has no"), (Deaf, "by another way")], ids=["bare", "deaf"]
)
def test_a_limiter_of_another_shape_is_left_alone_with_one_log_line(
    monkeypatch, caplog, limiter, said
):
    odd = limiter()
    monkeypatch.setattr("perf_middleware.limits.threads.drivers.lane._limiter_in_use", lambda: odd)
    threads = ThreadOffload(bounds=SizeBounds())

    async def main():
        for _ in range(2):
            async with Resources([threads]).opened():
                assert threads.status() == {"watching": False}
                assert threads.queue_s() is None
                await threads.reserve_here()

    with caplog.at_level(logging.WARNING, "perf_middleware.limits"):
        anyio.run(main)
    assert [said in record.getMessage() for record in caplog.records] == [True]
    assert vars(odd) == {}
    assert list(threads.families()) == []


class Final(Deaf):
    """Nobody may be of a class below it, nor set anything on it."""

    __slots__ = ()
    __dict__ = property(lambda _: (_ for _ in ()).throw(AttributeError))

    def __init_subclass__(cls):
        raise TypeError("it is final")


def test_a_limiter_whose_class_cannot_change_is_told():
    async def main():
        with pytest.raises(UnexpectedLimiterError, match="final"):
            await ThreadLane(Final()).join(QueueCounts(reserved_max=1))

    anyio.run(main)


def test_what_somebody_has_put_on_top_stays():
    async def main():
        limiter = limiter_here()
        threads = ThreadOffload()
        async with Resources([threads]).opened():
            theirs = type("Theirs", (type(limiter),), {"__slots__": ()})
            limiter.__class__ = theirs
        assert type(limiter) is theirs
        assert await anyio.to_thread.run_sync(lambda: "works") == "works"
        async with Resources([threads]).opened():
            await anyio.to_thread.run_sync(lambda: None)
        return threads.counts.acquired

    assert anyio.run(main) == 1


def test_on_trio_its_own_limiter_is_watched():
    async def main():
        lane = lane_here()
        assert lane.limiter is trio.to_thread.current_default_thread_limiter()

    trio.run(main)


# --- the number of threads ------------------------------------------------------------------------


class FakeClock:
    def __init__(self):
        self.now_us = US

    def __call__(self):
        return self.now_us


def sizing(**options):
    """Never asked by its own timer: the test takes the samples."""
    clock = FakeClock()
    bounds = SizeBounds(threads_min=2, threads_max=4)
    return ThreadOffload(bounds=bounds, interval_s=3_600, clock=clock, **options), clock


@BACKENDS
def test_calls_that_wait_get_more_threads_and_closing_takes_them_back(backend):
    async def main():
        limiter = limiter_here()
        limiter.total_tokens = 2
        threads, clock = sizing()
        async with anyio.create_task_group() as tasks:
            async with holding(tasks, 6), Resources([threads]).opened():
                # Three of six were not counted: they stood in line before we came.
                for _ in range(2):
                    tasks.start_soon(anyio.to_thread.run_sync, lambda: None)
                while threads.status()["waiting"] < 2:
                    await anyio.sleep(0.001)
                for _ in range(2):
                    threads.sample()
                    clock.now_us += 21 * US
                grown = limiter.total_tokens
            assert limiter.total_tokens == 2
        return grown, threads.resizes

    assert run(main, backend) == (4, 1)


@BACKENDS
def test_without_being_told_to_it_never_changes_the_number(backend):
    async def main():
        limiter_here().total_tokens = 3
        threads = ThreadSettings(interval_s=0.05).make_threads()
        async with Resources([threads]).opened():
            assert not threads.sample()
            assert threads.status()["adaptive"] is False
            return limiter_here().total_tokens

    assert run(main, backend) == 3


def test_the_apps_own_number_wins(caplog):
    async def main():
        limiter = limiter_here()
        threads, _ = sizing()
        async with Resources([threads]).opened():
            assert threads.sample()
            assert limiter.total_tokens == 4  # within the bounds
            limiter.total_tokens = 100
            assert not threads.sample()
        return limiter.total_tokens

    assert anyio.run(main) == 100
    assert "the app has set" in caplog.text


def test_a_pool_without_a_limit_is_not_sized():
    async def main():
        limiter_here().total_tokens = float("inf")
        threads, _ = sizing()
        async with Resources([threads]).opened():
            assert not threads.sample()
            assert threads.status()["total"] is None
        return limiter_here().total_tokens

    assert anyio.run(main) == float("inf")


def test_the_second_that_sizes_waits_for_the_first_to_go():
    async def main():
        limiter = limiter_here()
        (first, _), (second, _) = sizing(), sizing()
        async with Resources([second]).opened():
            async with Resources([first]).opened():
                assert first.sample()
                assert limiter.total_tokens == 4
                assert second.sample()
                assert second.status()["adaptive"] is False
            assert limiter.total_tokens == 40  # the first has put it back
            second.sample()
            assert limiter.total_tokens == 4
        return limiter.total_tokens

    assert anyio.run(main) == 40


def test_the_sizer_looks_by_itself():
    async def main():
        threads = ThreadOffload(bounds=SizeBounds(threads_min=2, threads_max=4), interval_s=0.001)
        async with Resources([threads]).opened():
            with anyio.fail_after(120):
                while limiter_here().total_tokens != 4:
                    await anyio.sleep(0.001)
        return limiter_here().total_tokens

    assert anyio.run(main) == 40


def test_figures_have_their_names_and_can_be_reset():
    async def main():
        limiter_here().total_tokens = 1
        threads = ThreadOffload()
        async with Resources([threads]).opened(), anyio.create_task_group() as tasks:
            async with holding(tasks, 3):
                pass
            while limiter_here().borrowed_tokens or threads.status()["waiting"]:
                await anyio.sleep(0.001)
            figures = {f.name: next(iter(f.points)).value for f in threads.families()}
            threads.reset_counts()
            again = {f.name: next(iter(f.points)).value for f in threads.families()}
            return figures, again

    figures, again = anyio.run(main)
    assert figures["perf_threads_limit"] == 1
    assert (figures["perf_threads_acquired"], figures["perf_threads_queued"]) == (3, 2)
    assert 0 < figures["perf_threads_queue_max_seconds"] <= figures["perf_threads_queue_seconds"]
    assert again["perf_threads_queue_seconds"] == again["perf_threads_acquired"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"reserved_max": -1}, {"threads_min": 0}, {"threads_min": 300}, {"interval_s": 0},
        {"probe_paths": ("health",)}, {"idle_s": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_setting_fails_when_it_is_made(wrong):
    with pytest.raises(ValueError, match="validation error"):
        ThreadSettings(**wrong)

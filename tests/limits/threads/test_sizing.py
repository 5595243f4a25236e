"""How many threads: proved on simulated pools, where what a thread brings is known."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.limits.threads.sizing import (
    BACK_OFF_US_MAX,
    JUDGE_US_MAX,
    SizeBounds,
    Sizing,
    ThreadSample,
    after,
    judge_us,
)

US = 1_000_000
STEP_US = US // 4
BOUNDS = SizeBounds(threads_min=40, threads_max=200, idle_us=5 * US)


@dataclass
class Pool:
    """Calls that come at `arrivals` a second and are served at `rate(threads)` a second."""

    arrivals: float
    rate: "object"
    cpu_share: float | None = 0.1
    line: float = 0.0
    completed: float = 0.0

    def step(self, threads):
        seconds = STEP_US / US
        there = self.line + self.arrivals * seconds
        done = min(there, self.rate(threads) * seconds)
        self.line = there - done
        self.completed += done
        full = self.line > 1e-9
        # Where the pool keeps up, as many threads are in use as Little's law says.
        borrowed = (
            threads
            if full
            else min(threads, round(threads * done / seconds / max(self.rate(threads), 1e-9)))
        )
        return ThreadSample(
            borrowed=borrowed, waiting=round(self.line), completed=round(self.completed),
            cpu_share=self.cpu_share,
        )  # fmt: skip


def run(pool, seconds, *, state=None, bounds=BOUNDS, start_us=0):
    """The number of threads after each step, and the state at the end."""
    state, totals = state or Sizing(bounds.threads_min), []
    for number in range(int(seconds * US / STEP_US)):
        sample = pool.step(state.total)
        state = after(state, sample, now_us=start_us + number * STEP_US, bounds=bounds)
        totals.append(state.total)
    return totals, state


def waiting_calls(service_s):
    """Each thread serves one call in `service_s`, whatever the others do."""
    return lambda threads: threads / service_s


def held_by_the_interpreter_lock(_threads):
    return 500.0


def ten_connections(threads):
    return min(threads, 10) / 0.05


def test_calls_that_wait_get_as_many_threads_as_they_need():
    pool = Pool(arrivals=1_000, rate=waiting_calls(0.1))  # a hundred threads' worth
    totals, _ = run(pool, 60)
    assert totals[0] == 40
    assert 100 <= totals[-1] < 200  # what has gathered meanwhile is served, too
    assert pool.line < 1


def test_they_come_within_seconds():
    totals, _ = run(Pool(arrivals=1_000, rate=waiting_calls(0.1)), 6)
    assert max(totals) >= 100


@pytest.mark.parametrize(
    "rate", [held_by_the_interpreter_lock, ten_connections], ids=["gil", "connections"]
)
def test_what_more_threads_do_not_help_gets_none(rate):
    pool = Pool(arrivals=10_000, rate=rate)
    totals, state = run(pool, 600)
    assert max(totals) <= 50  # one trial at a time, taken back
    on_trial = sum(total > 40 for total in totals) / len(totals)
    assert on_trial < 0.05  # and ever more seldom
    assert state.back_off_us == BACK_OFF_US_MAX


def test_a_full_processor_gets_no_trial_at_all():
    totals, _ = run(Pool(arrivals=10_000, rate=waiting_calls(0.1), cpu_share=0.95), 60)
    assert set(totals) == {40}


def test_an_unknown_processor_share_is_no_reason_against_a_trial():
    totals, _ = run(Pool(arrivals=1_000, rate=waiting_calls(0.1), cpu_share=None), 20)
    assert totals[-1] >= 100


def test_slow_calls_are_judged_by_their_own_time():
    """Calls of four seconds: what a new thread brings shows only after those."""
    totals, _ = run(Pool(arrivals=25, rate=waiting_calls(4.0)), 120)
    assert totals[-1] >= 100


def test_idle_threads_are_given_up_slowly():
    pool = Pool(arrivals=1_000, rate=waiting_calls(0.1))
    _, state = run(pool, 30)
    high = state.total
    pool.arrivals = 10
    totals, _ = run(pool, 60, state=state, start_us=30 * US)
    assert totals[0] == high
    assert totals[int(4 * US / STEP_US)] == high
    assert totals[-1] == 40


def test_calls_that_never_end_get_threads_up_to_the_bound_and_slowly():
    totals, _ = run(Pool(arrivals=10, rate=lambda _: 0.0), 19)
    assert set(totals) == {40}
    totals, _ = run(Pool(arrivals=10, rate=lambda _: 0.0), 3_600)
    assert max(totals) <= 50


samples = st.lists(
    st.builds(
        ThreadSample, borrowed=st.integers(0, 400), waiting=st.integers(0, 50),
        completed=st.integers(0, 10_000), cpu_share=st.one_of(st.none(), st.floats(0, 1)),
    ),
    max_size=100,
)  # fmt: skip


@given(samples, st.integers(0, 1_000), st.integers(1_000, 30 * US))
def test_the_number_is_always_within_its_bounds(seen, start, step_us):
    state = Sizing(start)
    for number, sample in enumerate(seen):
        before = state
        state = after(state, sample, now_us=number * step_us, bounds=BOUNDS)
        assert BOUNDS.threads_min <= state.total <= BOUNDS.threads_max
        if number:
            assert state.total <= before.total + max(2, before.total // 4)


@pytest.mark.parametrize(
    ("done", "passed_us", "in_progress", "expected"),
    [
        pytest.param(0, US, 40, JUDGE_US_MAX, id="nothing is known"),
        pytest.param(400, US, 40, US, id="calls of 0.1 s: a second is enough"),
        pytest.param(10, US, 40, 8 * US, id="calls of 4 s: two of them"),
        pytest.param(1, US, 40, JUDGE_US_MAX, id="not for ever"),
    ],
)
def test_a_trial_takes_two_service_times(done, passed_us, in_progress, expected):
    assert judge_us(done, passed_us=passed_us, in_progress=in_progress) == expected


def test_a_good_trial_ends_the_waiting_after_bad_ones():
    _, state = run(Pool(arrivals=10_000, rate=held_by_the_interpreter_lock), 100)
    assert state.back_off_us > 10 * US
    _, state = run(
        Pool(arrivals=1_000, rate=waiting_calls(0.1)), 200,
        state=replace(state, no_trial_before_us=0), start_us=100 * US,
    )  # fmt: skip
    assert state.total >= 100
    assert state.back_off_us == 10 * US


@pytest.mark.parametrize(
    "wrong", [{"threads_min": 0}, {"threads_min": 50, "threads_max": 40}, {"idle_us": 0}], ids=str
)
def test_bounds_that_contradict_themselves_are_refused(wrong):
    with pytest.raises(ValueError, match="threads_min <= threads_max"):
        SizeBounds(**wrong)

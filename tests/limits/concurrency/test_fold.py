"""Windows are summed and folded at their end; refusals are made beforehand."""

import json

import pytest

from perf_middleware.limits.concurrency.estimate import FixedState
from perf_middleware.limits.concurrency.fold import LimitFold
from perf_middleware.refusals import Refusals


class Recording:
    """An estimator that keeps its windows; the limit is how many it has seen, and one."""

    window_us, window_us_max, samples_min = 100, 1_000, 3

    def __init__(self):
        self.windows = []

    def first(self):
        return FixedState(limit=1)

    def after(self, state, window):
        self.windows.append(window)
        return FixedState(limit=state.limit + 1)


def folded(heads):
    """The windows of heads (latency, status, at), with two in flight at each fold."""
    estimator = Recording()
    fold = LimitFold(estimator)
    changed = [fold.note(*head, 2) for head in heads]
    assert fold.limit == 1 + sum(changed) == 1 + len(estimator.windows)
    return estimator.windows


def test_a_window_has_its_time_and_its_samples():
    (window,) = folded([(50, 200, 10), (10, 200, 20), (30, 200, 50), (20, 404, 110)])
    assert (window.started_us, window.ended_us) == (10, 110)
    assert (window.samples, window.latency_sum_us, window.latency_min_us) == (4, 110, 10)


def test_few_samples_make_a_longer_window_but_not_for_ever():
    assert folded([(5, 200, 0), (5, 200, 500)]) == []
    (window,) = folded([(5, 200, 0), (5, 200, 1_000)])
    assert window.samples == 2


@pytest.mark.parametrize("status", [503, 504])
def test_an_app_that_is_overloaded_below_gives_no_sample(status):
    (window,) = folded([(0, 200, 0), (9, status, 500), (9, status, 1_000)])
    assert (window.samples, window.dropped, window.latency_min_us) == (1, 2, 1)


def test_whatever_an_app_calls_its_status_is_not_ours_to_complain_of():
    assert folded([(5, "200 OK", 0), (5, None, 1), (5, [], 2)]) == []


def test_each_client_is_told_another_second_between_the_bounds():
    drawn = iter([0.0, 0.34, 0.999999])
    refusals = Refusals(detail="Later.", min_s=2, max_s=4, random=lambda: next(drawn))
    told = [dict(refusals.headers())[b"retry-after"] for _ in range(3)]
    assert told == [b"2", b"3", b"4"]
    assert json.loads(refusals.body)["status"] == 503


def test_a_refusal_is_not_shared_with_who_writes_into_it():
    refusals = Refusals(detail="Later.", min_s=1, max_s=1, random=lambda: 0.0)
    refusals.headers().append((b"x-seen", b"1"))
    assert (b"x-seen", b"1") not in refusals.headers()


def test_the_bounds_of_retry_after_are_in_order():
    with pytest.raises(ValueError, match="min_s <= max_s"):
        Refusals(detail="Later.", min_s=3, max_s=2, random=lambda: 0.0)


def test_a_window_of_a_starved_loop_does_not_wait_for_its_samples():
    estimator = Recording()
    fold = LimitFold(estimator)
    fold.is_starved = lambda: True
    assert not fold.note(50, 200, 10, 2)
    assert fold.note(50, 200, 110, 2)
    (window,) = estimator.windows
    assert (window.samples, window.is_starved) == (2, True)

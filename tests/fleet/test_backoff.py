"""How long a lost connection is waited for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.fleet.backoff import Backoff


def test_it_doubles_up_to_a_bound():
    backoff = Backoff(lambda: 1.0, first_s=0.05, most_s=1.0)
    assert [backoff.next_s() for _ in range(7)] == pytest.approx(
        [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    )


def test_it_begins_anew_when_all_was_well():
    backoff = Backoff(lambda: 1.0, first_s=0.05, most_s=1.0)
    for _ in range(4):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.05


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=60))
def test_it_is_never_nothing_and_never_more_than_the_bound(drawn):
    numbers = iter(drawn)
    backoff = Backoff(lambda: next(numbers))
    assert all(0.05 <= backoff.next_s() <= 2.0 for _ in drawn)

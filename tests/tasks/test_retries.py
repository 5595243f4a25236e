"""Attempts: which are made again, how long after, and what becomes of the others."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.tasks.queue.outcomes import outcome
from perf_middleware.tasks.queue.retries import Backoff
from perf_middleware.tasks.queue.sizes import approximate_bytes, call_bytes


@given(failures=st.integers(1, 10_000), draw=st.floats(0, 1))
def test_a_wait_is_anywhere_below_a_bound_that_doubles(failures, draw):
    backoff = Backoff(first_us=100, most_us=5_000)
    delay_us = backoff.delay_us(failures, draw)
    assert 0 <= delay_us <= min(5_000, 100 * 2 ** min(failures - 1, 20))
    assert backoff.delay_us(failures, 1) == min(5_000, 100 * 2 ** min(failures - 1, 20))


@pytest.mark.parametrize(("first_us", "most_us"), [(0, 5), (6, 5)])
def test_bounds_that_are_none_are_refused(first_us, most_us):
    with pytest.raises(ValueError, match="first_us"):
        Backoff(first_us=first_us, most_us=most_us)


CANCELLED = asyncio.CancelledError()


@pytest.mark.parametrize(
    ("error", "given", "verdict"),
    [
        pytest.param(None, {}, "succeeded", id="returned"),
        pytest.param(None, {"asked": "cancel"}, "succeeded", id="returned although cancelled"),
        pytest.param(OSError(), {}, "retried", id="raised, and may be tried again"),
        pytest.param(OSError(), {"attempts": 3}, "failed", id="the last attempt"),
        pytest.param(KeyError(), {}, "failed", id="an error that is not tried again"),
        pytest.param(SystemExit(), {}, "failed", id="the end of the process is not tried again"),
        pytest.param(OSError(), {"asked": "timeout"}, "retried", id="a timeout as any error"),
        pytest.param(
            OSError(), {"asked": "timeout", "is_threaded": True}, "failed",
            id="its thread goes on: not twice at once",
        ),
        pytest.param(OSError(), {"asked": "cancel"}, "failed", id="raised as it was cancelled"),
        pytest.param(OSError(), {"asked": "drain"}, "failed", id="raised as the queue closed"),
        pytest.param(CANCELLED, {"is_cancellation": True}, "cancelled", id="ended itself"),
        pytest.param(
            CANCELLED, {"is_cancellation": True, "asked": "cancel"}, "cancelled", id="cancelled"
        ),
    ],
)  # fmt: skip
def test_what_becomes_of_an_attempt(error, given, verdict):
    facts = {
        "is_cancellation": False, "asked": "", "is_threaded": False, "attempts": 1, "retries": 2,
        "retry_on": (OSError,),
    }  # fmt: skip
    assert outcome(error, **facts | given) == verdict


def test_what_a_call_was_given_is_weighed():
    small = call_bytes((), {})
    assert call_bytes((b"x" * 100_000,), {}) > small + 100_000
    assert call_bytes((), {"rows": ["x" * 1_000] * 1_000}) > small + 1_000_000
    assert approximate_bytes({"a": b"x" * 5_000}) > 5_000
    assert approximate_bytes(int) == 0
    assert approximate_bytes([int, []]) > 0

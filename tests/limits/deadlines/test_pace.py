"""How long a client may take over its body."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.limits.deadlines.pace import Pace

S = 1_000_000


@pytest.mark.parametrize(
    ("pace", "waited_us", "body_bytes", "wait_us"),
    [
        pytest.param(Pace(), 9 * S, 0, None, id="no limit: for ever"),
        pytest.param(Pace(idle_us=2 * S), 90 * S, 0, 2 * S, id="idle: for each piece anew"),
        pytest.param(Pace(bytes_per_s_min=100, grace_us=5 * S), 0, 0, 5 * S, id="a grace at first"),
        pytest.param(
            Pace(bytes_per_s_min=100, grace_us=5 * S), 4 * S, 0, 1 * S, id="what is left of it"
        ),
        pytest.param(
            Pace(bytes_per_s_min=100, grace_us=5 * S), 4 * S, 200, 3 * S, id="bytes earn time"
        ),
        pytest.param(
            Pace(bytes_per_s_min=100, grace_us=5 * S), 8 * S, 200, 0, id="too slow is no time"
        ),
        pytest.param(
            Pace(idle_us=2 * S, bytes_per_s_min=100, grace_us=5 * S), 0, 0, 2 * S, id="the shorter"
        ),
    ],
)
def test_the_next_piece_may_be_waited_for(pace, waited_us, body_bytes, wait_us):
    assert pace.wait_us(waited_us=waited_us, body_bytes=body_bytes) == wait_us


@given(
    st.integers(1, 10**6), st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**7))),
)  # fmt: skip
def test_who_keeps_to_the_rate_is_never_too_slow(rate, pieces):
    pace = Pace(bytes_per_s_min=rate, grace_us=S)
    waited_us = body_bytes = 0
    for piece_bytes, faster_us in pieces:
        needed_us = max(piece_bytes * S // rate - faster_us, 0)
        assert pace.wait_us(waited_us=waited_us, body_bytes=body_bytes) >= S
        waited_us += needed_us
        body_bytes += piece_bytes

"""When a transaction may be tried again: attempts, tokens, deadline, jitter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.database.retry.budget import (
    MILLI,
    Backoff,
    Budget,
    GiveUp,
    RetryAfter,
    decide,
    kind_of,
)

BACKOFF = Backoff(attempts_max=4, first_us=20_000, most_us=50_000)


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        pytest.param({}, RetryAfter(10_000, 1_000), id="half of the first bound, for one token"),
        pytest.param({"attempts": 2}, RetryAfter(20_000, 1_000), id="the bound doubles"),
        pytest.param({"attempts": 3}, RetryAfter(25_000, 1_000), id="up to the longest"),
        pytest.param({"draw": 0.0}, RetryAfter(0, 1_000), id="full jitter begins at nothing"),
        pytest.param({"attempts": 4}, GiveUp("attempts"), id="the last attempt"),
        pytest.param({"tokens_milli": 999}, GiveUp("budget"), id="less than a token"),
        pytest.param({"tokens_milli": 1_000}, RetryAfter(10_000, 0), id="the last token"),
        pytest.param({"remaining_us": 10_000}, GiveUp("deadline"), id="the wait takes it all"),
        pytest.param({"remaining_us": 10_001}, RetryAfter(10_000, 1_000), id="some time is left"),
        pytest.param({"remaining_us": 0, "draw": 0.0}, GiveUp("deadline"), id="it is reached"),
        pytest.param(
            {"remaining_us": 0, "tokens_milli": 0}, GiveUp("deadline"),
            id="a deadline is not the budget's fault",
        ),
    ],
)  # fmt: skip
def test_a_failure_is_judged(asked, verdict):
    given = {"attempts": 1, "tokens_milli": 2_000, "remaining_us": None, "draw": 0.5, **asked}
    assert decide(BACKOFF, **given) == verdict


@given(
    tokens_max=st.integers(1, 30),
    ratio_milli=st.integers(0, MILLI),
    succeeds=st.lists(st.booleans(), max_size=300),
)
def test_retries_never_exceed_the_tokens_and_what_successes_bring(
    tokens_max, ratio_milli, succeeds
):
    budget = Budget(tokens_max_milli=tokens_max * MILLI, ratio_milli=ratio_milli)
    tokens, retries, successes = budget.tokens_max_milli, 0, 0
    for success in succeeds:
        if success:
            tokens = budget.after_success(tokens)
            successes += 1
        else:
            verdict = decide(BACKOFF, attempts=1, tokens_milli=tokens, remaining_us=None, draw=1.0)
            if isinstance(verdict, RetryAfter):
                tokens = verdict.tokens_milli
                retries += 1
        assert 0 <= tokens <= budget.tokens_max_milli
    assert retries * MILLI <= tokens_max * MILLI + ratio_milli * successes


@given(
    first_us=st.integers(1, 10**7), more_us=st.integers(0, 10**8),
    failures=st.integers(1, 10_000), draw=st.floats(0, 1),
)  # fmt: skip
def test_a_wait_is_between_nothing_and_the_longest(first_us, more_us, failures, draw):
    backoff = Backoff(attempts_max=9, first_us=first_us, most_us=first_us + more_us)
    assert 0 <= backoff.delay_us(failures, draw) <= backoff.most_us
    assert backoff.delay_us(failures, 0.0) == 0


def test_conflicts_and_lost_connections_have_tokens_of_their_own():
    assert [kind_of(reason) for reason in ("serialization", "deadlock", "busy", "connection")] == [
        "conflict", "conflict", "conflict", "connection",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Budget(tokens_max_milli=999, ratio_milli=0), id="not one token"),
        pytest.param(lambda: Budget(tokens_max_milli=1_000, ratio_milli=1_001), id="ratio over 1"),
        pytest.param(lambda: Backoff(attempts_max=0, first_us=1, most_us=1), id="no attempt"),
        pytest.param(lambda: Backoff(attempts_max=1, first_us=2, most_us=1), id="first over most"),
    ],
)
def test_a_wrong_value_is_refused(make):
    with pytest.raises(ValueError, match=r"or more|<="):
        make()

"""Which classes of requests are refused at which step and share: tables and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.shedding import (
    CRITICAL,
    EVERYBODY,
    HARD,
    NOBODY,
    SOFT,
    refused_in_words,
    shed_from,
)

BETWEEN = {"hard_share": 0.6, "critical_share": 0.9}


@pytest.mark.parametrize(
    ("step", "share", "refused_from"),
    [
        pytest.param(0, 0.99, NOBODY, id="what is used does not count before the step says so"),
        pytest.param(SOFT, 0.8, NOBODY, id="at soft caches shrink, and everybody is served"),
        pytest.param(HARD, 0.6, 3, id="hard begins with the lowest class"),
        pytest.param(HARD, 0.699, 3, id="alone for a third of the way"),
        pytest.param(HARD, 0.701, 2, id="then both sheddable classes"),
        pytest.param(HARD, 0.801, 1, id="then what users see"),
        pytest.param(HARD, 0.99, 1, id="but the highest not before the critical step"),
        pytest.param(HARD, 0.57, 3, id="on the way back, below hard, still the lowest"),
        pytest.param(HARD, None, 3, id="without a share the lowest"),
        pytest.param(CRITICAL, 0.9, EVERYBODY, id="at critical everybody"),
        pytest.param(CRITICAL, None, EVERYBODY, id="also without a share"),
    ],
)
def test_the_least_critical_go_first(step, share, refused_from):
    assert shed_from(step, share, has_classes=True, **BETWEEN) == refused_from


@pytest.mark.parametrize("step", range(4))
def test_without_classes_all_requests_are_alike(step):
    expected = EVERYBODY if step >= HARD else NOBODY
    assert shed_from(step, 0.61, has_classes=False, **BETWEEN) == expected


@given(
    st.integers(0, 3), st.integers(0, 3), st.floats(0, 2), st.floats(0, 2), st.booleans(),
)  # fmt: skip
def test_more_memory_in_use_never_lets_more_requests_in(step, higher, share, more, has_classes):
    step, higher = sorted((step, higher))
    share, more = sorted((share, more))
    before = shed_from(step, share, has_classes=has_classes, **BETWEEN)
    after = shed_from(higher, more, has_classes=has_classes, **BETWEEN)
    assert EVERYBODY <= after <= before <= NOBODY


def test_who_is_refused_is_said_in_words():
    assert [refused_in_words(code) for code in range(5)] == [
        "all",
        "critical and sheddable_plus and sheddable",
        "sheddable_plus and sheddable",
        "sheddable",
        "none",
    ]

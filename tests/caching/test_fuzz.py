"""A hundred thousand random requests and answers through the cache, each judged by the oracle.

A cache with any one of the oracle's sixty mistakes is caught within six thousand (test_oracle.py).
"""

import pytest

from tests.caching.oracle.driver import fuzz
from tests.caching.oracle.subject import make_cache
from tests.repeated import MORE

PAIRS = 12_500 * MORE  # for each of the eight runs below


@pytest.mark.parametrize("at_once", [False, True], ids=["in order", "at once"])
@pytest.mark.parametrize("seed", [1, 20, 300, 4_000])
def test_no_unsafe_answer_in_a_hundred_thousand_pairs(seed, at_once):
    outcome = fuzz(make_cache, seed=seed, pairs=PAIRS, at_once=at_once)
    report = "\n".join(
        [f"{count} x {said}" for said, count in outcome.sentences().most_common()]
        + [str(fault) for fault in outcome.faults[:3]]
    )
    assert not outcome.faults, report
    assert outcome.pairs >= PAIRS
    assert outcome.answers["reused"] > PAIRS / 10  # else it proves nothing

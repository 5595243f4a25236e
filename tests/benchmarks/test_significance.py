"""The statistics of the regression gate, beside tables, enumeration and their own definition."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.significance import (
    Bar,
    hodges_lehmann,
    holm,
    interval,
    pairs_min,
    signed_rank_p,
    verdicts,
)

# Distinct sizes, so that no ranks are shared; and of the kind that is measured: some percent.
SAMPLES = st.lists(
    st.integers(-10_000, 10_000).filter(bool), min_size=1, max_size=11, unique_by=abs
).map(lambda sizes: [size / 100_000 for size in sizes])


def enumerated_p(values):
    """Every choice of signs, counted."""
    sizes = sorted(map(abs, values))
    ranks = {size: rank for rank, size in enumerate(sizes, start=1)}
    seen = sum(ranks[abs(value)] for value in values if value > 0)
    total = sum(ranks.values())
    least = min(seen, total - seen)
    sums = [
        sum(rank for rank, up in zip(ranks.values(), ups, strict=True) if up)
        for ups in itertools.product((False, True), repeat=len(values))
    ]
    return min(1.0, 2 * sum(each <= least for each in sums) / len(sums))


class TestSignedRank:
    @pytest.mark.parametrize(
        ("values", "p"),
        [
            pytest.param([1, 2, 3, 4, 5, 6, 7, 8], 2 / 2**8, id="all above: twice one of 256"),
            pytest.param([-1, 2, 3, 4, 5, 6, 7, 8], 4 / 2**8, id="the smallest below"),
            pytest.param([1, 2, 3, 4, 5, 6, 7, -8], 2 * 25 / 2**8, id="the largest below"),
            pytest.param([0, 0, 1, 2, 3], 2 / 2**3, id="zeros say nothing"),
            pytest.param([1, 1, 1, 1], 2 / 2**4, id="equal sizes share a rank"),
            pytest.param([1, -1], 1.0, id="even"),
            pytest.param([0.0], 1.0, id="nothing but zeros"),
        ],
    )
    def test_it_is_exact(self, values, p):
        assert signed_rank_p(values) == pytest.approx(p)

    @given(SAMPLES)
    def test_it_is_what_counting_every_choice_of_signs_gives(self, values):
        assert signed_rank_p(values) == pytest.approx(enumerated_p(values))

    @given(SAMPLES)
    def test_base_and_head_may_change_places(self, values):
        assert signed_rank_p(values) == signed_rank_p([-value for value in values])


class TestInterval:
    @pytest.mark.parametrize(
        ("pairs", "place"),
        # How many of the Walsh averages are cut off at each end for 95 %: the critical value of
        # the two-sided test (Hollander, Wolfe, Chicken, table of the signed-rank statistic).
        [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (12, 13), (15, 25), (20, 52)],
    )
    def test_it_ends_where_the_tables_say(self, pairs, place):
        values = [2.0**n for n in range(pairs)]
        averages = sorted(
            (a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2)
        )
        assert interval(values, alpha=0.05) == (averages[place], averages[-1 - place])

    def test_of_too_few_pairs_it_is_everything(self):
        assert interval([0.1] * 5, alpha=0.05) == (-math.inf, math.inf)

    @given(SAMPLES, st.integers(-30_000, 30_000))
    def test_it_holds_what_the_test_does_not_refuse(self, values, shift):
        # Halves of a step: no shifted value is zero or as large as another.
        centre = (shift + 0.25) / 100_000
        shifted = [value - centre for value in values]
        low, high = interval(values, alpha=0.1)
        assert (low <= centre <= high) == (signed_rank_p(shifted) > 0.1)

    @given(SAMPLES)
    def test_the_estimate_lies_in_it_and_moves_with_the_values(self, values):
        low, high = interval(values, alpha=0.1)
        assert low <= hodges_lehmann(values) <= high
        moved = [value + 0.5 for value in values]
        assert hodges_lehmann(moved) == pytest.approx(hodges_lehmann(values) + 0.5)


class TestHolm:
    @pytest.mark.parametrize(
        ("ps", "adjusted"),
        [
            pytest.param([0.01, 0.04, 0.03], [0.03, 0.06, 0.06], id="step by step, never falling"),
            pytest.param([0.5], [0.5], id="one case stays as it is"),
            pytest.param([0.6, 0.7], [1.0, 1.0], id="at most one"),
            pytest.param([], [], id="none"),
        ],
    )
    def test_it_is_the_step_down_of_1979(self, ps, adjusted):
        assert holm(ps) == pytest.approx(adjusted)

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_it_lies_between_the_plain_value_and_bonferroni(self, ps):
        for p, adjusted in zip(ps, holm(ps), strict=True):
            assert p <= adjusted <= min(1.0, p * len(ps)) + 1e-12


def pairs_around(ratio, *, off=0.004, pairs=10):
    """Pairs that scatter around a ratio, evenly."""
    return [math.log(ratio) + off * (n - (pairs - 1) / 2) / pairs for n in range(pairs)]


class TestVerdict:
    @pytest.mark.parametrize(
        ("values", "outcome"),
        [
            pytest.param(pairs_around(1.0), "same", id="the same"),
            pytest.param(pairs_around(1.02), "same", id="significant, and too small to matter"),
            pytest.param(pairs_around(1.05), "slower", id="slower"),
            pytest.param(pairs_around(0.9), "faster", id="faster"),
            pytest.param(pairs_around(1.05, off=0.5), "same", id="large, and not significant"),
            pytest.param(pairs_around(1.05, pairs=5), "same", id="of too few pairs"),
        ],
    )
    def test_slower_is_significant_and_by_more_than_the_threshold(self, values, outcome):
        assert verdicts({"case": values}, Bar())["case"].outcome == outcome

    def test_a_case_among_many_needs_more(self):
        weak = [*pairs_around(1.1, pairs=6)]  # p = 2 / 64: enough alone, not of two
        alone = verdicts({"weak": weak}, Bar())["weak"]
        of_two = verdicts({"weak": weak, "none": pairs_around(1.0)}, Bar())["weak"]
        assert (alone.outcome, of_two.outcome) == ("slower", "same")
        assert of_two.p == alone.p < of_two.p_holm

    @pytest.mark.parametrize(("cases", "pairs"), [(1, 6), (2, 7), (5, 8), (6, 8), (7, 9)])
    def test_so_many_pairs_are_the_fewest_that_can_find_something(self, cases, pairs):
        assert pairs_min(0.05, cases) == pairs
        assert signed_rank_p([1.0 + n for n in range(pairs)]) * cases <= 0.05
        assert signed_rank_p([1.0 + n for n in range(pairs - 1)]) * cases > 0.05

    def test_what_makes_no_sense_is_refused(self):
        with pytest.raises(ValueError, match="alpha"):
            Bar(alpha=1.0)
        with pytest.raises(ValueError, match="threshold"):
            Bar(threshold=-0.1)
        with pytest.raises(ValueError, match="no pair"):
            verdicts({"case": []}, Bar())

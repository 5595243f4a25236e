"""The shape of a growth: steady, slowing, or none."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.leaks.growth import growth_of
from perf_middleware.memory_watch.leaks.verdict import Rules, is_in_pieces, is_suspect
from tests.memory_watch.leaks.synthetic import KB, MB, RATE, points_of, witness

RULES = Rules()


def growth(look, **options):
    return growth_of(points_of(look, **options), level=0)


def ramp_of_requests(second):
    return RATE * second * second / 40


def requests_until_25(second):
    return RATE * min(second, 25)


SERIES = [
    pytest.param(lambda s: witness(s, 0), False, id="nothing grows"),
    pytest.param(lambda s: witness(s, 200 * KB * s), True, id="a leak"),
    pytest.param(lambda s: witness(s, 200 * KB * s, noise=MB), True, id="a leak in noise"),
    pytest.param(lambda s: witness(s, 200 * KB * s, malloc=False), True, id="malloc untold"),
    pytest.param(lambda s: witness(s, 20 * KB * s), False, id="too little to look into"),
    pytest.param(lambda s: witness(s, 50 * MB * (s > 24)), False, id="one step"),
    pytest.param(lambda s: witness(s, 10 * MB * (s // 13)), False, id="two steps"),
    pytest.param(lambda s: witness(s, 2 * MB * (s % 12)), False, id="a saw-tooth"),
    pytest.param(lambda s: witness(s, 20 * MB * (s % 5 == 0)), False, id="batches"),
    pytest.param(lambda s: witness(s, 9 * MB * math.log(s)), False, id="growth like a logarithm"),
    pytest.param(lambda s: witness(s, 500 * KB * min(s, 24)), False, id="a ramp, then flat"),
    pytest.param(lambda s: witness(s, 500 * KB * max(s, 24)), False, id="flat, then a ramp"),
    pytest.param(lambda s: witness(s, -200 * KB * s), False, id="it shrinks"),
    pytest.param(
        lambda s: witness(s, KB * ramp_of_requests(s), requests=ramp_of_requests(s)),
        True,
        id="a leak while the load rises",
    ),
    pytest.param(
        lambda s: witness(s, 4 * MB * math.sqrt(s + 2), requests=RATE * s**1.7),
        False,
        id="a cache that fills while the load rises",
    ),
    pytest.param(
        lambda s: witness(s, 200 * KB * s, requests=ramp_of_requests(s)),
        False,
        id="steady over time while the load rises: not before it is at its height",
    ),
    pytest.param(
        lambda s: witness(s, KB * requests_until_25(s), requests=requests_until_25(s)),
        False,
        id="a leak whose load stops: nothing is sure",
    ),
    pytest.param(
        lambda s: witness(s, 200 * KB * s, requests=RATE * s + 900 * math.sin(s / 3)),
        True,
        id="a leak of a background task, whatever the load",
    ),
    pytest.param(
        lambda s: witness(s, 200 * KB * s, known=200 * KB * s, block_bytes=500),
        False,
        id="a cache that says what it holds",
    ),
    pytest.param(
        lambda s: witness(s, 200 * KB * s, occupied=0), True, id="a leak into holes of the heap"
    ),
    pytest.param(lambda s: witness(s, 0, occupied=2 * MB * s), False, id="fragmentation"),
    pytest.param(
        lambda s: witness(s, 300 * KB * s, blocks=0), True, id="growth outside Python's allocator"
    ),
]


@pytest.mark.parametrize(("look", "suspect"), SERIES)
def test_only_what_grows_steadily_is_looked_into(look, suspect):
    assert is_suspect(growth(look), RULES) is suspect


@pytest.mark.parametrize(
    ("look", "shape"),
    [
        pytest.param(lambda s: witness(s, 0), "flat", id="nothing"),
        pytest.param(lambda s: witness(s, 200 * KB * s), "steady", id="a line"),
        pytest.param(lambda s: witness(s, 50 * MB * (s > 24)), "flat", id="a step"),
        pytest.param(lambda s: witness(s, 9 * MB * math.log(s)), "slowing", id="a logarithm"),
        pytest.param(lambda s: witness(s, 500 * KB * min(s, 28)), "slowing", id="a ramp that ends"),
        pytest.param(
            lambda s: witness(s, KB * RATE * min(s, 28), requests=RATE * min(s, 28)),
            "flat",
            id="the load stopped: that is no levelling off",
        ),
        pytest.param(
            lambda s: witness(s, KB * RATE * (s - s * s / 90), requests=RATE * (s - s * s / 90)),
            "steady",
            id="the load falls: a request leaves as much as before",
        ),
    ],
)
def test_the_shape_of_a_growth(look, shape):
    assert growth(look).blocks.shape == shape


def test_it_tells_how_much():
    found = growth(lambda s: witness(s, 200 * KB * s, noise=300 * KB))
    assert found.amount.per_s.low <= 200 * KB <= found.amount.per_s.high
    assert found.amount.per_request.slope == pytest.approx(KB, rel=0.1)
    assert found.requests_per_s == pytest.approx(RATE)
    assert found.span_s == pytest.approx(26)


def test_a_longer_time_asks_for_more():
    points = points_of(lambda s: witness(s, 60 * KB * s))
    assert is_suspect(growth_of(points, level=0), RULES)
    assert not is_suspect(growth_of(points, level=1), RULES)


@pytest.mark.parametrize(
    ("look", "in_pieces"),
    [
        pytest.param(lambda s: witness(s, 0, occupied=2 * MB * s), True, id="no more given out"),
        pytest.param(
            lambda s: witness(s, 0, occupied=2 * MB * s, malloc=False), False, id="malloc untold"
        ),
        pytest.param(lambda s: witness(s, 2 * MB * s), False, id="as much more given out"),
        pytest.param(lambda s: witness(s, 0, occupied=100 * KB * s), False, id="slowly"),
        pytest.param(
            lambda s: witness(s, 2 * MB * s, occupied=2 * MB * s, blocks=0), False, id="native"
        ),
    ],
)
def test_fragmentation_is_occupied_and_not_given_out(look, in_pieces):
    assert is_in_pieces(growth(look), RULES) is in_pieces


def test_few_points_are_refused():
    with pytest.raises(ValueError, match="6 points"):
        growth_of(points_of(lambda s: witness(s, 0))[:5], level=0)


@given(st.integers(0, 2**32), st.integers(0, 50 * MB))
def test_noise_of_any_size_around_a_constant_is_not_looked_into_twice_in_a_row(seed, size):
    """Noise may look like growth once in a while; what follows must not."""
    chance = random.Random(seed)
    seen = [chance.randint(0, size) for _ in range(28 * 3)]
    suspects = [
        is_suspect(growth(lambda s, at=at: witness(s, seen[s - 10 + at])), RULES)
        for at in (0, 28, 56)
    ]
    assert not all(suspects)


@given(st.integers(0, 2**32), st.integers(60, 5_000), st.floats(0, 0.3))
def test_a_leak_in_little_noise_is_always_looked_into(seed, rate_kb, share):
    chance = random.Random(seed)
    noise = [chance.uniform(0, share * rate_kb * KB * 4) for _ in range(40)]
    assert is_suspect(growth(lambda s: witness(s, rate_kb * KB * s + noise[s])), RULES)


@given(st.integers(0, 2**32))
def test_growth_is_the_same_from_any_base(seed):
    chance = random.Random(seed)
    series = [chance.randint(0, 5 * MB) + 100 * KB * s for s in range(40)]
    low = growth(lambda s: witness(s, series[s]))
    high = growth(lambda s: witness(s, series[s] + 700 * MB, block_bytes=1_000))
    assert low.amount.per_s == high.amount.per_s
    assert low.malloc.shape == high.malloc.shape

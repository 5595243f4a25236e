"""The health score: what was measured, placed between fine and bad, weighted."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perf_middleware.insight.health import HealthInput, health


def measured(value, *, fine=0.0, bad=1.0, weight=1.0, name="share"):
    return HealthInput(name=name, value=value, fine=fine, bad=bad, weight=weight, reason="measured")


@pytest.mark.parametrize(
    ("value", "fine", "bad", "grade"),
    [
        pytest.param(0.0, 0.0, 0.05, 1.0, id="fine"),
        pytest.param(-1.0, 0.0, 0.05, 1.0, id="better than fine"),
        pytest.param(0.025, 0.0, 0.05, 0.5, id="half way"),
        pytest.param(0.05, 0.0, 0.05, 0.0, id="bad"),
        pytest.param(7.0, 0.0, 0.05, 0.0, id="worse than bad"),
        pytest.param(float("inf"), 0.0, 0.05, 0.0, id="without end"),
        pytest.param(float("nan"), 0.0, 0.05, 0.0, id="not a number is not fine"),
        pytest.param(0.9, 0.9, 0.5, 1.0, id="more is better: fine"),
        pytest.param(0.7, 0.9, 0.5, 0.5, id="more is better: half way"),
        pytest.param(0.1, 0.9, 0.5, 0.0, id="more is better: bad"),
    ],
)
def test_a_value_is_graded_between_its_two_ends(value, fine, bad, grade):
    assert measured(value, fine=fine, bad=bad).grade == pytest.approx(grade)


@pytest.mark.parametrize(
    ("inputs", "score"),
    [
        pytest.param([], None, id="nothing measured"),
        pytest.param([measured(0)], 100, id="all is fine"),
        pytest.param([measured(1)], 0, id="all is bad"),
        pytest.param([measured(0), measured(1)], 50, id="equal weights"),
        pytest.param([measured(0, weight=3), measured(1)], 75, id="three to one"),
        pytest.param([measured(0.5), measured(0.5, weight=9)], 50, id="weights of equals"),
    ],
)
def test_the_score_is_the_weighted_mean(inputs, score):
    assert health(inputs)["score"] == score


def test_each_input_is_told_with_what_it_costs_worst_first():
    fine = measured(0.0, name="fine", weight=2)
    lame = measured(0.5, name="lame", weight=1)
    dead = measured(9.0, name="dead", weight=1)
    rows = health([fine, lame, dead])["inputs"]
    assert [(row["name"], row["grade"], row["points_lost"]) for row in rows] == [
        ("dead", 0.0, 25.0),
        ("lame", 0.5, 12.5),
        ("fine", 1.0, 0.0),
    ]
    assert rows[0] | {"grade": 0, "points_lost": 0} == {
        "name": "dead", "value": 9.0, "fine": 0.0, "bad": 1.0, "weight": 1, "reason": "measured",
        "grade": 0, "points_lost": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"weight": 0.0}, {"weight": -1.0}, {"weight": float("nan")}, {"weight": float("inf")},
     {"fine": 1.0, "bad": 1.0}, {"bad": float("nan")}, {"fine": float("-inf")}],
    ids=str,
)  # fmt: skip
def test_an_input_that_makes_no_sense_cannot_be_made(wrong):
    with pytest.raises(ValueError, match="needs a weight above 0 and two different ends"):
        measured(0.5, **wrong)


ENDS = st.floats(-1e9, 1e9)
VALUES = st.floats(-1e12, 1e12)
INPUTS = st.builds(
    measured, VALUES, fine=st.floats(-1e9, 0), bad=st.floats(1e-3, 1e9), weight=st.floats(1e-3, 1e3)
)


@given(st.lists(INPUTS, min_size=1, max_size=8))
def test_a_score_is_between_0_and_100_and_losses_add_up_to_it(inputs):
    said = health(inputs)
    assert 0 <= said["score"] <= 100
    lost = sum(row["points_lost"] for row in said["inputs"])
    assert 100 - lost == pytest.approx(said["score"], abs=0.5 + 0.05 * len(inputs) + 1e-6)


@given(st.lists(INPUTS, min_size=1, max_size=8))
def test_inputs_are_told_worst_first(inputs):
    lost = [row["points_lost"] for row in health(inputs)["inputs"]]
    assert lost == sorted(lost, reverse=True)
    assert len(lost) == len(inputs)


@given(st.lists(INPUTS, min_size=1, max_size=8), st.data())
def test_a_value_nearer_to_bad_never_raises_the_score(inputs, data):
    index = data.draw(st.integers(0, len(inputs) - 1))
    worse_by = data.draw(st.floats(0, 1e12))
    worse = list(inputs)
    worse[index] = replace(inputs[index], value=inputs[index].value + worse_by)
    assert health(worse)["score"] <= health(inputs)["score"]


@given(ENDS, ENDS, VALUES)
def test_a_grade_is_between_0_and_1_whichever_end_is_the_greater(fine, bad, value):
    assume(fine != bad)
    given_input = measured(value, fine=fine, bad=bad)
    assert 0.0 <= given_input.grade <= 1.0
    assert replace(given_input, value=fine).grade == 1.0
    assert replace(given_input, value=bad).grade == 0.0


@given(st.lists(INPUTS, max_size=8), st.randoms())
def test_the_order_of_the_inputs_does_not_matter_to_the_score(inputs, random):
    shuffled = list(inputs)
    random.shuffle(shuffled)
    scores = {health(inputs)["score"], health(shuffled)["score"]}
    assert len(scores) == 1 or max(scores) - min(scores) <= 1, "rounding of a sum, at most"

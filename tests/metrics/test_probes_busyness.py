"""How busy the event loop is, as one number."""

import pytest

from perf_middleware.metrics.probes.busyness import LoopBusyness

S = 1_000_000_000


def probe(*, lag_s=None, cpus=None):
    clocks = {"thread": 0, "wall": 0}
    busyness = LoopBusyness(
        lag_s=None if lag_s is None else lambda: lag_s,
        thread_ns=lambda: clocks["thread"],
        wall_ns=lambda: clocks["wall"],
        usable_cpus=lambda: cpus,
    )

    def after(*, thread_s, wall_s):
        clocks["thread"] += int(thread_s * S)
        clocks["wall"] += int(wall_s * S)
        return busyness.read()

    return after


@pytest.mark.parametrize(
    ("thread_s", "cpus", "lag_s", "expected"),
    [
        pytest.param(0.5, None, None, 0.5, id="half of the time"),
        pytest.param(1.0, 8, None, 1.0, id="a loop uses one processor of many"),
        pytest.param(0.4, 0.5, None, 0.8, id="of half a processor"),
        pytest.param(0.6, 0.5, None, 1.0, id="no more than all"),
        pytest.param(0.1, None, 0.125, 0.5, id="kept from running"),
        pytest.param(0.1, None, 9.0, 1.0, id="stuck"),
        pytest.param(0.9, None, 0.01, 0.9, id="busy and on time"),
    ],
)
def test_it_is_the_larger_of_share_and_lag(thread_s, cpus, lag_s, expected):
    after = probe(lag_s=lag_s, cpus=cpus)
    after(thread_s=0, wall_s=0)
    assert after(thread_s=thread_s, wall_s=1) == pytest.approx(expected)


def test_the_first_question_and_one_that_comes_too_soon_know_nothing_new():
    after = probe()
    assert after(thread_s=5, wall_s=5) == 0
    assert after(thread_s=1, wall_s=1) == 1
    assert after(thread_s=0, wall_s=0.05) == 1
    assert after(thread_s=0, wall_s=1) == pytest.approx(0)


def test_another_thread_begins_anew():
    after = probe()
    after(thread_s=9, wall_s=9)
    assert after(thread_s=1, wall_s=1) == 1
    assert after(thread_s=-8, wall_s=1) == 0


def test_it_reads_the_clocks_of_this_machine():
    busyness = LoopBusyness()
    assert all(0 <= busyness.read() <= 1 for _ in range(3))

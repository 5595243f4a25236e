"""What grows is told from what its floor grows, and every table runs through."""

import pytest

from benchmarks import growth, growth_cases
from benchmarks.growth import Floor, Plan, in_process, keys_in_redis, markdown, targets
from benchmarks.growth import growth as made_of
from benchmarks.runner import on_loop
from tests.fleet.servers import RedisServer

TINY = Plan(rounds=2, requests=3, loop="asyncio")


class TestFigures:
    def test_growth_is_taken_within_a_round(self):
        # The machine was twice as slow in the second round of each size.
        taken = {"hit": [[10.0, 20.0, 10.0], [12.0, 24.0, 12.0]]}
        (line,) = made_of("t", (1, 9), taken, {"hit": Floor()}, TINY).lines
        assert line.growth == pytest.approx(1.2)
        assert line.grown_us == 2.0

    def test_of_routes_what_is_added_to_as_many_bare_ones_counts(self):
        taken = {"bare": [[50.0], [500.0]], "ours": [[60.0], [515.0]]}
        floors = {"bare": Floor(is_ours=False), "ours": Floor("bare", added=True)}
        bare, ours = made_of("t", (5, 500), taken, floors, TINY).lines
        assert (bare.growth, ours.growth) == (10.0, 1.5)
        assert (ours.grown_us, ours.floor_us) == (5.0, 450.0)

    def test_a_difference_that_is_none_has_no_ratio(self):
        taken = {"bare": [[50.0], [50.0]], "ours": [[49.0], [51.0]]}
        floors = {"bare": Floor(is_ours=False), "ours": Floor("bare", added=True)}
        line = made_of("t", (5, 500), taken, floors, TINY).lines[1]
        assert line.growth is None
        made = made_of("t", (5, 500), taken, floors, TINY)
        assert targets(made) == []

    def test_each_row_of_ours_is_told_beside_the_target_with_what_its_floor_grew(self):
        taken = {"dict": [[1.0], [2.0]], "hit": [[5.0], [7.0]], "miss": [[50.0], [55.0]]}
        floors = {"dict": Floor(is_ours=False), "hit": Floor("dict"), "miss": Floor()}
        made = made_of("entries", (10, 1000), taken, floors, TINY)
        assert targets(made) == [
            (
                "- entries, hit: 1.40 x from 10 to 1,000 (at most 1.2): MISSED; 2.00 us more, "
                "dict: 1.00 us more"
            ),
            "- entries, miss: 1.10 x from 10 to 1,000 (at most 1.2): met",
        ]
        assert "| hit | 5.00 | 7.00 | 1.40 | 2.00 | 1.00 |" in markdown(made)


@pytest.mark.parametrize(
    "rows_of",
    [
        growth_cases.stored_entries,
        growth_cases.routes,
        growth_cases.limiter_keys,
        growth_cases.whole_requests,
    ],
)
def test_every_row_answers_at_every_size_and_is_measured(rows_of):
    made = in_process("t", (1, 3), rows_of, TINY)
    assert made.rounds == TINY.rounds
    assert all(us.median > 0 for line in made.lines for us in line.request_us)
    assert {line.is_ours for line in made.lines} == {True, False}
    assert all(f"| {line.name}" in markdown(made) for line in made.lines)


def test_keys_in_redis_are_measured_and_nothing_is_left_there(tmp_path):
    server = RedisServer(tmp_path).start()
    try:
        made = on_loop("asyncio", keys_in_redis(server.url, (1, 3), TINY))
        assert [len(line.request_us) for line in made.lines] == [2, 2]
        assert server.say("DBSIZE") == b":0"
    finally:
        server.stop()


def test_only_the_parts_that_are_asked_for_are_run(monkeypatch):
    monkeypatch.setattr(growth, "with_workers", lambda sizes, plan: ("workers", sizes))
    assert growth.run(TINY, parts=["workers"]) == [("workers", growth.WORKERS)]


def test_what_is_drawn_is_every_number_and_the_same_again():
    first, again = (growth_cases.drawn(4) for _ in range(2))
    numbers = [first() for _ in range(200)]
    assert set(numbers) == {0, 1, 2, 3}
    assert numbers == [again() for _ in range(200)]

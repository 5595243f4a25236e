"""What is kept of long pauses, and how they are told."""

import pytest

from perf_middleware.memory_watch.collector.pauses import (
    ROUTES_MAX,
    LinesPerMinute,
    LongPauses,
    Pause,
)


def pause(took_us=200_000, **more):
    told = {"at_us": 0, "generation": 2, "collected": 5, "uncollectable": 0, "on_loop": True}
    return Pause(**(told | {"took_us": took_us} | more))


@pytest.mark.parametrize(
    ("more", "end"),
    [
        pytest.param({}, "took 0.200 s, freed 5 objects", id="all that is known"),
        pytest.param(
            {"route": "GET /a", "load": "3 requests in flight", "where": "app.py:5 (make)"},
            "freed 5 objects, while GET /a was served, 3 requests in flight, at app.py:5 (make)",
            id="what it met",
        ),
        pytest.param(
            {"on_loop": False, "uncollectable": 2},
            "2 could not be freed, in another thread than the event loop's",
            id="elsewhere",
        ),
    ],
)
def test_a_pause_is_one_sentence(more, end):
    assert pause(**more).sentence().endswith(end)


def points(pauses):
    return {
        (family.name, point.labels.text): point.value
        for family in pauses.families()
        for point in family.points
    }


def test_they_add_up_by_route_and_only_the_last_are_kept():
    pauses = LongPauses(pauses_max=2)
    for route in ("/a", None, "/a"):
        pauses.add(pause(route=route))
    assert [one.route for one in pauses.last] == [None, "/a"]
    assert pauses.count == 3
    told = points(pauses)
    assert told["perf_memory_gc_long_pauses", 'route="/a"'] == 2
    assert told["perf_memory_gc_long_pause_seconds", 'route="/a"'] == 0.4
    assert told["perf_memory_gc_long_pauses", 'route="none"'] == 1
    pauses.reset()
    assert (pauses.count, list(pauses.last), points(pauses)) == (0, [], {})


def test_more_routes_than_are_counted_are_others():
    pauses = LongPauses(pauses_max=2)
    for number in range(ROUTES_MAX + 5):
        pauses.add(pause(route=f"/{number}"))
    assert points(pauses)["perf_memory_gc_long_pauses", 'route="other"'] == 5


def test_lines_are_held_back_within_a_minute():
    lines = LinesPerMinute(2)
    assert [lines.spend(at) for at in (1, 2, 3, 4, 60_000_001)] == [0, 0, None, None, 2]
    assert LinesPerMinute(0).spend(1) is None

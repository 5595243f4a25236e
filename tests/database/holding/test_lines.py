"""Which lines of the app a loan names, and that they are found without a walk the next time."""

from collections import Counter

import pytest
from greenlet import greenlet

from perf_middleware.database.holding.runtime.lines import AppLines

ROLES = {"/app.py": "own", "/pool.py": "library", "/routing.py": "framework"}
CALLING = "def run(callers, end):\n    return callers[0](callers[1:], end) if callers else end()\n"


class Roots:
    def role_of(self, file):
        return ROLES.get(file, "machinery")


class Asked(dict):
    """Counts how often it is asked whose code a file is."""

    def __init__(self):
        self.times = Counter()

    def __getitem__(self, file):
        self.times[file] += 1
        return super().__getitem__(file)

    def get(self, file):
        self.times[file] += 1
        return super().get(file)


SPAWNING = "def run(callers, end):\n    return greenlet(callers[0]).switch(callers[1:], end)\n"


def caller(file, code=CALLING):
    named = {"greenlet": greenlet}
    exec(compile(code, file, "exec"), named)
    return named["run"]


APP, POOL, ROUTING = (caller(file) for file in ROLES)
SPAWN, TASK = caller("/pool.py", SPAWNING), caller("/loop.py", SPAWNING)


def taken(lines, *callers):
    spots = callers[0](callers[1:], lines.now)
    return len(lines.lines_of(spots))


@pytest.mark.parametrize(
    ("callers", "count"),
    [
        pytest.param([APP, POOL], 1, id="the line that took it"),
        pytest.param([APP, APP, POOL, POOL], 2, id="and who called it"),
        pytest.param([APP, POOL, POOL, APP, POOL], 2, id="by a library too"),
        pytest.param([APP, ROUTING, APP, POOL], 1, id="not what a framework was called by"),
        pytest.param([APP] * 9 + [POOL], 3, id="a few"),
        pytest.param([ROUTING, POOL], 0, id="none where none is the app's"),
        pytest.param([ROUTING, APP, POOL, SPAWN, POOL], 1, id="beyond a greenlet"),
        pytest.param([ROUTING, APP, APP, SPAWN, POOL], 2, id="right beyond it"),
        pytest.param([TASK, APP, POOL, SPAWN, POOL], 1, id="once, where nobody has called it"),
        pytest.param([TASK, APP, SPAWN, POOL, SPAWN, POOL], 1, id="beyond two"),
        pytest.param([ROUTING, APP, POOL, SPAWN, POOL, APP, POOL], 2, id="on both sides"),
        pytest.param([ROUTING, POOL, SPAWN, POOL], 0, id="none beyond a greenlet"),
    ],
)
def test_a_loan_names_the_lines_that_led_to_it(callers, count):
    lines = AppLines(Roots())
    assert [taken(lines, *callers) for _ in range(3)] == [count] * 3


def test_the_library_is_not_walked_through_again():
    lines = AppLines(Roots())
    asked = lines._kinds = Asked()
    for times in (20, 0, 0):
        asked.times.clear()
        assert taken(lines, ROUTING, APP, *[POOL] * 20) == 1
        assert asked.times["/pool.py"] >= times
        if not times:
            # Who calls the app is known by itself, and needs no question.
            assert asked.times == {"/app.py": 1}


def test_beyond_a_greenlet_the_library_is_not_walked_through_again():
    lines = AppLines(Roots())
    asked = lines._kinds = Asked()
    for _ in range(2):  # the way to the greenlet's begin, then a shorter one beyond
        taken(lines, ROUTING, APP, SPAWN, *[POOL] * 5)
    for is_known in (False, True, True):
        asked.times.clear()
        assert taken(lines, ROUTING, APP, *[POOL] * 5, SPAWN, *[POOL] * 5) == 1
        assert (asked.times == {"/app.py": 1}) == is_known


def test_loans_from_elsewhere_name_their_own_lines_whatever_came_before():
    lines = AppLines(Roots())
    chains = [
        [outermost, *[APP] * own, *[POOL] * library, SPAWN, POOL]
        for outermost in (ROUTING, TASK)
        for own in (1, 2, 3)
        for library in (0, 1, 4)
    ]
    for chain in [*chains, *chains[::-1], *chains[::2], *chains[1::2]]:
        for _ in range(2):
            assert taken(lines, *chain) == chain.count(APP)

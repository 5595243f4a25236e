"""Who may wait for a connection: tables, and a model of a pool that knows what will be."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.database.holding.admission import (
    KINDS_MAX,
    LINE_MAX,
    SCATTER,
    Lengths,
    Running,
    Waiter,
    judge_line,
    shortest_us,
)

MS = 1_000


def run_for(age_ms, kind="a"):
    return Running(kind, age_ms * MS, age_ms * MS)


def wait_with(remaining_ms, kind="a"):
    return Waiter(kind, None if remaining_ms is None else remaining_ms * MS)


@pytest.mark.parametrize(
    ("running", "waiting", "connections", "too_late", "next_ms"),
    [
        pytest.param([0], [], 1, [], 100, id="the next waits for the one that runs"),
        pytest.param([30], [], 1, [], 70, id="of which a part is over"),
        pytest.param([300], [], 1, [], 0, id="one that is late itself may end at any time"),
        pytest.param([], [], 1, [], 0, id="a connection that is not lent is free"),
        pytest.param([0, 0], [None] * 5, 2, [], 300, id="two at a time"),
        pytest.param([60, 10], [None], 2, [], 90, id="the oldest loan is over first"),
        pytest.param([0], [200, 300], 1, [], 300, id="both are served in time: with their loans"),
        pytest.param([0], [199, 200], 1, [0], 200, id="who leaves lets those behind move up"),
        pytest.param([0], [None, 250], 1, [1], 200, id="without a deadline nobody is late"),
        pytest.param([], [0], 1, [0], 0, id="its time is over"),
    ],
)
def test_a_line_is_judged_by_when_each_would_be_served(
    running, waiting, connections, too_late, next_ms
):
    line = judge_line(
        [run_for(age) for age in running],
        [wait_with(remaining) for remaining in waiting],
        connections=connections,
        taken_us={"a": 100 * MS},
    )
    assert (line.too_late, line.next_start_us) == (too_late, next_ms * MS)


def test_a_kind_of_which_nothing_is_known_takes_no_time():
    line = judge_line([run_for(0)], [wait_with(1, "b")], connections=1, taken_us={})
    assert line.too_late == []


def test_a_long_line_is_judged_by_its_beginning():
    waiting = [wait_with(None)] * LINE_MAX + [wait_with(1), wait_with(10**9)]
    line = judge_line([run_for(0)], waiting, connections=1, taken_us={"a": 100 * MS})
    assert line.too_late == [LINE_MAX]


@pytest.mark.parametrize(
    ("ended", "running", "expected_ms"),
    [
        pytest.param([], [], None, id="nothing is known"),
        pytest.param([], [run_for(300)], 300, id="a loan lasts at least as long as it does by now"),
        pytest.param([5], [run_for(300)], 300, id="also where they were short"),
        pytest.param([200], [run_for(1)], 200, id="one that has just begun says nothing new"),
        pytest.param([5], [run_for(300), run_for(1)], 152.5, id="one of several is not all"),
        pytest.param([5], [run_for(300, "b")], 5, id="another kind says nothing of this one"),
        pytest.param([], [Running("a", 900 * MS, None)], None, id="a ping is no measure"),
        pytest.param(
            [], [Running("a", 900 * MS, 8 * MS)], 8, id="what only sends its response, has worked"
        ),
    ],
)
def test_what_loans_take_is_known_from_those_that_ended_and_those_that_run(
    ended, running, expected_ms
):
    lengths = Lengths()
    for ms in ended:
        lengths.note("a", ms * MS)
    expected = lengths.expected_us(running).get("a")
    assert expected == (None if expected_ms is None else round(expected_ms * MS))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_a_length_lies_between_those_that_were_seen(samples):
    lengths = Lengths()
    for sample in samples:
        lengths.note("a", sample)
    assert min(samples) - 1 <= lengths.expected_us([])["a"] <= max(samples)


def test_kinds_beyond_the_bound_are_not_known():
    lengths = Lengths()
    for number in range(KINDS_MAX + 5):
        lengths.note(f"/{number}", MS)
    assert len(lengths.expected_us([])) == KINDS_MAX


# --- a pool of which the model knows all loans beforehand -----------------------------------------


@dataclass(eq=False)
class Request:
    """Comes `at`, must be served `by`, and holds its connection for `length`; us."""

    at: int
    by: int
    length: int
    kind: str
    begun: int | None = None
    left: int | None = None

    @property
    def is_served_in_time(self):
        return self.begun is not None and self.begun + self.length <= self.by


@dataclass
class Pool:
    """First come, first served; who waits leaves at its deadline, or is refused when `judges`.

    `leaves`: who is sent away at which time, whatever may be.
    """

    connections: int
    judges: bool = False
    leaves: dict[int, int] = field(default_factory=dict)
    look_us: int = 20 * MS

    def serve(self, requests):
        """The numbers of those refused, with the time, in their order."""
        lengths, running, waiting, refused = Lengths(), [], [], []
        coming = sorted(requests, key=lambda request: request.at)
        times = {request.at for request in requests} | set(self.leaves.values())
        now = 0
        while coming or waiting or running:
            ends = [request.begun + request.length for request in running]
            by = [request.by for request in waiting]
            look = [now + self.look_us] if self.judges and waiting else []
            now = min(t for t in [*times, *ends, *by, *look] if t > now or t in ends)
            for request in [r for r in running if r.begun + r.length <= now]:
                running.remove(request)
                lengths.note(request.kind, request.length)
            waiting = [
                r for r in waiting
                if r.by > now and self.leaves.get(requests.index(r), now + 1) > now
            ]  # fmt: skip
            times.discard(now)
            while coming and coming[0].at <= now:
                if self.leaves.get(requests.index(coming[0])) != now:
                    waiting.append(coming[0])
                coming.pop(0)
            self._lend(running, waiting, now)
            if self.judges and waiting:
                loans = [Running(r.kind, now - r.begun, now - r.begun) for r in running]
                line = judge_line(
                    loans,
                    [Waiter(r.kind, r.by - now) for r in waiting],
                    connections=self.connections,
                    taken_us=shortest_us(lengths.expected_us(loans)),
                )
                for request in [waiting[place] for place in line.too_late]:
                    waiting.remove(request)
                    refused.append((requests.index(request), now))
        return refused

    def _lend(self, running, waiting, now):
        while waiting and len(running) < self.connections:
            request = waiting.pop(0)
            request.begun = now
            running.append(request)


def anew(requests):
    return [Request(r.at, r.by, r.length, r.kind) for r in requests]


def refused_in_vain(connections, requests):
    """How many were refused, and how many of them would have been served had they stayed.

    Had each stayed alone: those refused before it are gone, and nobody is refused any more.
    """
    refused = Pool(connections, judges=True).serve(anew(requests))
    wrong = 0
    for count, (number, _) in enumerate(refused):
        again = anew(requests)
        Pool(connections, leaves=dict(refused[:count])).serve(again)
        wrong += again[number].is_served_in_time
    return len(refused), wrong


SHORTEST = {"a": 10 * MS, "b": 200 * MS}


@st.composite
def crowds(draw):
    """Requests of two kinds, no loan of a kind more than three times as long as another."""
    requests = []
    for _ in range(draw(st.integers(2, 14))):
        kind = draw(st.sampled_from("ab"))
        at = draw(st.integers(1, 600)) * MS
        length = draw(st.integers(SHORTEST[kind], SCATTER * SHORTEST[kind]))
        by = at + draw(st.integers(1, 1_500)) * MS
        requests.append(Request(at, by, length, kind))
    return requests


@given(crowds(), st.integers(1, 4))
def test_nobody_is_refused_who_would_have_been_served(requests, connections):
    _, wrong = refused_in_vain(connections, requests)
    assert wrong == 0


def test_who_stands_in_a_hopeless_line_is_refused_long_before_its_deadline():
    """Six at once on one connection, and nothing is known before."""
    requests = [Request(1, 600 * MS, 2_000 * MS, "a") for _ in range(6)]
    refused = Pool(1, judges=True).serve(requests)
    assert [number for number, _ in refused] == [5, 4, 3, 2, 1]
    assert [time // MS for _, time in refused] == [240, 260, 300, 360, 460]


def test_of_loans_that_last_at_random_few_are_refused_in_vain_and_more_are_served():
    """Exponential lengths of 200 ms on average, half as many again as two connections can take."""
    rng = random.Random(7)
    refused = wrong = served_with = served_without = 0
    for _ in range(6):
        at, requests = 0, []
        for _ in range(50):
            at += round(rng.expovariate(2 * 1.5 / (200 * MS))) + 1
            by = at + rng.randrange(100, 1_500) * MS
            requests.append(Request(at, by, round(rng.expovariate(1 / (200 * MS))) + 1, "a"))
        more, in_vain = refused_in_vain(2, requests)
        refused, wrong = refused + more, wrong + in_vain
        for judges in (True, False):
            served = anew(requests)
            Pool(2, judges=judges).serve(served)
            count = sum(request.is_served_in_time for request in served)
            served_with += count * judges
            served_without += count * (not judges)
    assert refused > 30
    assert wrong < refused / 5
    assert served_with >= served_without

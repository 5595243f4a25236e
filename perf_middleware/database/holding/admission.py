"""May a request wait for a connection?  Not where it would be past its deadline when it is served.

    running   |--- age ---|·· what is left ··|             connections of the pool, one each
    waiting                 a    b    c   next             first come, first served

    start of the next  =  when the connection is free that all before it have left it
    served             =  its start and a loan of its own

How long loans last is known by their kind (the route that takes them), from those that ended; one
that runs counts with its age: it lasts at least so long.  Starts never come sooner where loans last
longer (Kiefer and Wolfowitz 1955, "On the theory of queues with many servers"), so with each loan
taken for a third of what is expected the result is a bound from below: while no loan of a kind
lasts more than SCATTER times as long as another, nobody is refused who would have been served.
Where they scatter more, some are: of lengths at random (exponential) about one in ten of those
refused; and yet more are served than without, because nobody takes a connection who is late anyway.
A kind of which nothing is known yet counts as no time at all.
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind: TypeAlias = str | None  # the route; None outside of requests, and where routes are not known

SCATTER: Final = 3  # one loan may be so many times as long as another of its kind
MEAN_OF_BITS: Final = 4  # the smoothed mean remembers about two to the power of this many loans
KINDS_MAX: Final = 500
LINE_MAX: Final = 256  # waiters whose loans are added up: those behind start no sooner than they
US_PER_S: Final = 1_000_000
NS_PER_US: Final = 1_000


class Running(NamedTuple):
    """A loan that lasts for `age_us` by now; `work_us` of it is what its request needed, or None.

    A request that has begun its response and keeps the connection is done with its work: how long
    it keeps it says nothing of how long others take.  None: it is no request's, and says nothing.
    """

    kind: Kind
    age_us: int
    work_us: int | None


class Waiter(NamedTuple):
    """One who waits, and what is left of its time; None without a deadline."""

    kind: Kind
    remaining_us: int | None


class Lengths:
    """How long loans last, by kind: smoothed means.  Kinds beyond KINDS_MAX are not known.

    `means_ns` may be moved on in place of `note`, by who sees each loan end: on its own clock.
    """

    __slots__ = ("means_ns",)

    def __init__(self) -> None:
        self.means_ns: dict[Kind, int] = {}

    def note(self, kind: Kind, us: int) -> None:
        """A loan has ended; the first of its kind is taken as it is."""
        means, ns = self.means_ns, us * NS_PER_US
        mean_ns = means.get(kind)
        if mean_ns is not None:
            means[kind] = mean_ns + (ns - mean_ns >> MEAN_OF_BITS)
        elif len(means) < KINDS_MAX:
            means[kind] = ns

    def expected_us(self, running: Sequence[Running]) -> dict[Kind, int]:
        """What a loan of each kind takes, as it looks with those that run.

        Of a kind that runs it is the mean over them of what is longer: what is known, or their age.
        """
        known = {kind: ns // NS_PER_US for kind, ns in self.means_ns.copy().items()}
        sums: dict[Kind, tuple[int, int]] = {}
        for kind, _, work_us in running:
            if work_us is not None:
                total_us, count = sums.get(kind, (0, 0))
                sums[kind] = (total_us + max(known.get(kind, 0), work_us), count + 1)
        return {**known, **{kind: total_us // count for kind, (total_us, count) in sums.items()}}


TakenUs: TypeAlias = "Mapping[Kind, int]"


class Line(NamedTuple):
    """Those of a line who are too late, by their place in it, and when the next could start, us."""

    too_late: list[int]
    next_start_us: int


def shortest_us(expected_us: TakenUs) -> dict[Kind, int]:
    """What loans take at least, where they are expected to take so long."""
    return {kind: us // SCATTER for kind, us in expected_us.items()}


def judge_line(
    running: Sequence[Running],
    waiting: Sequence[Waiter],
    *,
    connections: int,
    taken_us: TakenUs,
) -> Line:
    """Who of `waiting`, first come first, would not be served in time, loans taking `taken_us`.

    Connections that are not lent are free: they are on their way to somebody, or just being made.
    Who is refused takes none, and those behind move up.
    """
    free_us = [max(0, taken_us.get(kind, 0) - age_us) for kind, age_us, _ in running]
    free_us += [0] * (max(1, connections) - len(free_us))
    heapify(free_us)
    too_late = []
    for place, (kind, remaining_us) in enumerate(waiting):
        served_us = free_us[0] + taken_us.get(kind, 0)
        if remaining_us is not None and (remaining_us <= 0 or served_us > remaining_us):
            too_late.append(place)
        elif place < LINE_MAX:
            heapreplace(free_us, served_us)
    return Line(too_late, free_us[0])


def retry_after_s(expected_us: int) -> int:
    """Whole seconds for Retry-After, at least 1 and at most a minute."""
    return min(60, max(1, -(-expected_us // US_PER_S)))

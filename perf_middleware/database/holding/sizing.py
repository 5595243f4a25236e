r"""How many connections a pool needs, from what was seen of it.

    in use on average  =  time held / time looked at          Little's law: L = λ · W
    needed             =  L + 2 √L                            square-root staffing

With arrivals at random the number in use scatters around L with deviation √L; two of them above it
few have to wait (Halfin and Whitt 1981, "Heavy-traffic limits for queues with many exponential
servers").  More connections do not help where they are held for something else than the database,
so long holds are told first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

US_PER_S: Final = 1_000_000
LOANS_MIN: Final = 200  # with less any advice is a guess
WINDOW_US_MIN: Final = 60 * US_PER_S
WAITED_SHARE_TOLD: Final = 0.01
LONG_HOLD_US: Final = US_PER_S
ROUTE_SHARE_TOLD: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSeen:
    """A pool over `window_us`: how often and how long its connections were lent.

    `size` and `overflow_max` are its settings; `waits` those who did not get one at once, also who
    got none; `held_by_route` the time that each route held them, us.
    """

    size: int
    overflow_max: int
    window_us: int
    loans: int = 0
    held_us: int = 0
    most_lent: int = 0
    waits: int = 0
    waited_us: int = 0
    most_waiting: int = 0
    held_by_route: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Advice:
    """How many connections would do, None where too little was seen, and why, in sentences."""

    connections: int | None
    sentences: tuple[str, ...]


def needed_connections(in_use: float) -> int:
    """Connections for so many in use on average."""
    return max(1, ceil(in_use + 2 * sqrt(max(0.0, in_use))))


def advise(seen: PoolSeen) -> Advice:
    """Advice on the size of a pool; never a size of which less than what was needed is left."""
    if seen.loans < LOANS_MIN or seen.window_us < WINDOW_US_MIN:
        return Advice(
            None,
            (f"Too little seen: {seen.loans} loans in {seen.window_us / US_PER_S:.0f} s.",),
        )
    in_use = seen.held_us / seen.window_us
    hold_us = seen.held_us // seen.loans
    allowed = seen.size + seen.overflow_max
    waited = seen.waits / max(seen.loans, seen.waits)
    needed = needed_connections(in_use)
    summary = (
        f"{in_use:.1f} of {allowed} connections were in use on average and {seen.most_lent} at "
        f"most, each for {_time(hold_us)}."
    )
    sentences = [summary]
    if waited > WAITED_SHARE_TOLD:
        sentences.append(
            f"{waited:.1%} had to wait, {_time(seen.waited_us // seen.waits)} on average, up to "
            f"{seen.most_waiting} at once."
        )
        sentences += _what_holds(seen, hold_us)
        if needed <= allowed:
            # On average there was room: they came all at once.
            needed = allowed + min(seen.most_waiting, allowed)
            sentences.append(
                f"They came in bursts: {needed} connections would have taken them, and so would "
                "a limit on how many requests are let in at once."
            )
        else:
            sentences.append(f"{needed} connections would let few of them wait.")
    elif seen.most_lent * 2 < seen.size and needed < seen.size:
        needed = max(needed, seen.most_lent)
        sentences.append(f"{needed} would have been enough: the others cost the server memory.")
    else:
        needed = seen.size
        sentences.append("The pool fits.")
    return Advice(needed, tuple(sentences))


def _what_holds(seen: PoolSeen, hold_us: int) -> list[str]:
    sentences = []
    if seen.held_by_route and seen.held_us:
        route, held_us = max(seen.held_by_route.items(), key=lambda item: item[1])
        share = held_us / seen.held_us
        if share > ROUTE_SHARE_TOLD and len(seen.held_by_route) > 1:
            sentences.append(f"{route} held them for {share:.0%} of that time: look there first.")
    if hold_us > LONG_HOLD_US:
        sentences.append(
            "They are held for long: let none be held while something else than the database is "
            "waited for."
        )
    return sentences


def _time(us: int) -> str:
    if us < 1_000:
        return f"{us} us"
    return f"{us / 1_000:.0f} ms" if us < US_PER_S else f"{us / US_PER_S:.1f} s"

"""Memory as it would be seen once a second, made of formulas."""

import random
from dataclasses import dataclass

from perf_middleware.memory_watch.leaks.history import POINTS, of_witness, trough_of
from perf_middleware.memory_watch.reading import Witness

US = 1_000_000
KB = 1_000
MB = 1_000_000
BASE_BYTES = 80 * MB
BASE_BLOCKS = 400_000
RATE = 200  # requests a second


@dataclass(frozen=True)
class Grown:
    where: str
    bytes_per_s: float
    bytes: int = 5_000
    count: int = 5
    is_momentary: bool = False
    is_own: bool = True

    @property
    def sure_bytes_per_s(self):
        return 0.0 if self.is_momentary else self.bytes_per_s


@dataclass(frozen=True)
class Report:
    sites: tuple[Grown, ...] = ()
    ended_early: str = ""


def witness(
    second,
    grown,
    *,
    block_bytes=1_000,
    occupied=None,
    malloc=True,
    requests=None,
    noise=0,
    known=0,
    blocks=None,
):
    """One look: `grown` bytes are given out, of `block_bytes` each; `occupied` where more is."""
    wander = random.Random(second).uniform(0, noise) if noise else 0
    return Witness(
        at_us=round(second * US),
        anonymous_bytes=round(BASE_BYTES + (grown if occupied is None else occupied) + wander),
        blocks=round(BASE_BLOCKS + (grown / block_bytes if blocks is None else blocks)),
        malloc_bytes=round(BASE_BYTES / 2 + grown + wander) if malloc else None,
        known_bytes=round(known),
        requests=round(RATE * second) if requests is None else round(requests),
    )


def points_of(look, *, seconds=2 * POINTS, start=10):
    """The points of the finest level, where `look(second)` gives what was seen."""
    seen = [of_witness(look(start + second)) for second in range(seconds)]
    step = seconds // POINTS
    return [trough_of(seen[at : at + step]) for at in range(0, seconds, step)]

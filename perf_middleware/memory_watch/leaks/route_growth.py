"""What requests of each route leave behind, from samples of requests that run alone.

From the beginning of a request that runs alone to the beginning of the next one, which finds the
process as that found it, what the allocators have given out more is what it left: its leak, what it
put into a cache, and garbage that waits for a collection.  At its end it would be too early: the
request itself, its scope and its task are still there.  The
first samples of a route are dropped (imports, caches that fill once), the mean is a trimmed one: a
cache that grows its table, or a collection that falls into the time, is one outlier.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping
    from typing import Any, TypeAlias

    InUse: TypeAlias = tuple[int, int | None]  # blocks, bytes of malloc
    Scope: TypeAlias = MutableMapping[str, Any]

DROPPED: Final = 5  # first samples of a route
SAMPLES_MAX: Final = 128  # newest of a route
SAMPLES_MIN: Final = 10  # before anything is said
TRIMMED_SHARE: Final = 0.1  # on each side
Z: Final = 1.96
OTHER: Final = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowingRoute:
    """The mean of what a request of a route leaves; `bytes` of malloc, None where it is not told.

    Of `samples` requests, the newest of which count.
    """

    route: str
    samples: int
    blocks: float
    bytes: float | None
    is_sure: bool


class RouteGrowth:
    """Tallies by route; of more than `routes_max` routes the later ones are one, `other`.

    `in_use` reads what is given out now, `may_read` tells whether that can be afforded; `route_of`
    names the route of a scope after routing.
    """

    __slots__ = (
        "_in_use",
        "_is_malloc_told",
        "_may_read",
        "_own_blocks",
        "_pending",
        "_route_of",
        "_routes",
        "_routes_max",
        "samples",
    )

    def __init__(
        self,
        *,
        in_use: Callable[[], InUse],
        route_of: Callable[[Scope], str],
        may_read: Callable[[], bool] | None = None,
        routes_max: int = 200,
    ) -> None:
        if routes_max < 1:
            raise ValueError(f"routes_max must be >= 1: {routes_max}")
        self._in_use = in_use
        self._may_read = may_read
        self._pending: tuple[InUse, str] | None = None
        self._own_blocks = self._kept_by_readings()
        self._is_malloc_told = self._in_use()[1] is not None
        self._route_of = route_of
        self._routes_max = routes_max
        self._routes: dict[str, _Tally] = {}
        self.samples = 0

    def _kept_by_readings(self) -> int:
        """What is remembered from one reading to the next is given out as well: blocks."""
        return min(self._kept_by_a_reading() for _ in range(5))

    def _kept_by_a_reading(self) -> int:
        self._pending = self._in_use(), OTHER
        blocks, _ = self._in_use()
        kept = blocks - self._pending[0][0]
        self._pending = None
        return kept

    def begin(self, scope: Scope) -> InUse | None:
        """Before a request that is alone; hand what it returns to `end`, or drop it.

        None: not this time; it closes the sample of the one before, or it would cost too much.
        """
        if self._pending is not None:
            token, route = self._pending
            self._pending = None
            self._add(route, token, self._in_use())
            return None
        if self._may_read is not None and not self._may_read():
            return None
        return self._in_use()

    def end(self, token: InUse, scope: Scope) -> bool:
        """After the same request, if no other ran in between.

        True: `begin` is to be called for the very next request, whatever its turn.
        """
        self._pending = token, self._route_of(scope)
        return True

    def forget(self) -> None:
        """A request has run that was not told of: the sample that waits for its end is none."""
        self._pending = None

    def _add(self, route: str, before: InUse, after: InUse) -> None:
        (blocks_before, malloc_before), (blocks, malloc) = before, after
        if self._is_malloc_told and malloc is None:  # left out from now on: a reading keeps less
            self._is_malloc_told = False
            self._own_blocks = self._kept_by_readings()
            return
        tally = self._routes.get(route)
        if tally is None:
            if len(self._routes) >= self._routes_max:
                route = OTHER
            tally = self._routes.setdefault(route, _Tally())
        self.samples += 1
        is_told = malloc is not None and malloc_before is not None
        tally.add(
            blocks - blocks_before - self._own_blocks,
            malloc - malloc_before if malloc is not None and malloc_before is not None else 0,
            is_told=is_told,
        )

    def clear(self) -> None:
        """Forget all samples."""
        self._routes = {}
        self._pending = None
        self.samples = 0

    def routes(self) -> list[GrowingRoute]:
        """Every route with enough samples, what leaves most first."""
        found = [
            tally.judged(route)
            for route, tally in list(self._routes.items())
            if len(tally.blocks) >= SAMPLES_MIN
        ]
        return sorted(found, key=lambda route: (-(route.bytes or 0.0), -route.blocks, route.route))

    def growing(self) -> list[GrowingRoute]:
        """The routes whose requests surely leave something."""
        return [route for route in self.routes() if route.is_sure]


class _Tally:
    __slots__ = ("_judged", "blocks", "bytes", "is_told", "seen")

    def __init__(self) -> None:
        self.seen = 0
        self.blocks: deque[int] = deque(maxlen=SAMPLES_MAX)
        self.bytes: deque[int] = deque(maxlen=SAMPLES_MAX)
        self.is_told = True
        self._judged: GrowingRoute | None = None

    def add(self, blocks: int, bytes_: int, *, is_told: bool) -> None:
        if self.seen >= DROPPED:
            self.blocks.append(blocks)
            self.bytes.append(bytes_)
            self.is_told = is_told
        self.seen += 1

    def judged(self, route: str) -> GrowingRoute:
        """As it is now, reckoned once for each sample: of 200 routes that takes 11 ms, and a scrape
        asks for all of them on the event loop.
        """
        seen, judged = self.seen, self._judged
        if judged is None or judged.samples != seen:
            judged = self._judged = GrowingRoute(
                route=route,
                samples=seen,
                blocks=self.mean_blocks()[0],
                bytes=self.mean_bytes()[0] if self.is_told else None,
                is_sure=self.is_sure(),
            )
        return judged

    def mean_blocks(self) -> tuple[float, float]:
        return trimmed_mean(list(self.blocks))

    def mean_bytes(self) -> tuple[float, float]:
        return trimmed_mean(list(self.bytes))

    def is_sure(self) -> bool:
        """By blocks, or by bytes: a block may be one that was replaced by a larger one."""
        mean, error = self.mean_blocks()
        if mean - Z * error > 0.05:
            return True
        mean, error = self.mean_bytes()
        return mean - Z * error > 16


def trimmed_mean(values: Iterable[float]) -> tuple[float, float]:
    """The mean without the ends, and its standard error; (0, 0) of nothing.

    Source: J. W. Tukey and D. H. McLaughlin, Less vulnerable confidence and significance procedures
    for location based on a single sample, Sankhya A 25 (1963): the error of the winsorised sample.
    """
    ordered = sorted(values)
    count = len(ordered)
    if not count:
        return 0.0, 0.0
    cut = int(count * TRIMMED_SHARE)
    kept = ordered[cut : count - cut]
    mean = sum(kept) / len(kept)
    if count < 2:
        return mean, 0.0
    winsorised = [kept[0]] * cut + kept + [kept[-1]] * cut
    middle = sum(winsorised) / count
    variance = sum((value - middle) ** 2 for value in winsorised) / (count - 1)
    return mean, sqrt(variance / count) / (1 - 2 * TRIMMED_SHARE)

"""Whether answers of a path are likely to be stored, by what its routes have answered so far.

Who waits for another's answer waits in vain if that is not stored; before the router has run, only
the templates of routes that have answered tell which one a path belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.path_patterns import PathPattern
from perf_middleware.route_templates import UNMATCHED

if TYPE_CHECKING:
    from perf_middleware.caching.figures import CacheFigures, RouteCounts


class Evidence:
    """Reads the figures: a route that had something stored will have so again."""

    def __init__(self, figures: CacheFigures) -> None:
        self._figures = figures
        self._patterns: dict[str, PathPattern | None] = {}  # at most as many as there are routes
        self._last_stored: tuple[PathPattern, RouteCounts] | None = None
        """The route that had something stored at the last look: most often it is that again."""

    def of(self, path: str) -> bool | None:
        """True where a route that `path` may belong to had one stored; None: nothing is known."""
        last = self._last_stored
        if last is not None and _has_stored(last[1]) and last[0].matches(path):
            return True
        known: bool | None = None
        by_route = self._figures.by_route
        if len(by_route) == 1 and UNMATCHED in by_route:  # an app without routes: all are alike
            counts = by_route[UNMATCHED]
            return _has_stored(counts) or (False if _has_refused(counts) else None)
        for route, counts in by_route.items():
            pattern = self._pattern_of(route)
            if pattern is None or not pattern.matches(path):
                continue
            if _has_stored(counts):
                self._last_stored = pattern, counts
                return True
            if _has_refused(counts):
                known = False
        return known

    def _pattern_of(self, route: str) -> PathPattern | None:
        try:
            return self._patterns[route]
        except KeyError:
            try:
                pattern = PathPattern.of(route)
            except ValueError:
                pattern = None  # the label of what has no template
            self._patterns[route] = pattern
            return pattern


def _has_stored(counts: RouteCounts) -> bool:
    return bool(counts.stored or counts.shared_hits)


def _has_refused(counts: RouteCounts) -> bool:
    return bool(counts.refused or counts.silent)

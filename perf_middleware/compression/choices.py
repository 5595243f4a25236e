"""What routes choose: not to be encoded at all, or with a length that tells less.

A rule in the settings, by path, or a decorator on the endpoint.  The rule has the last word: who
runs the app may know what its author did not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.coding_choice import Choice
    from perf_middleware.path_patterns import PathPattern

PATHS_MAX: Final = 10_000  # whose rule is remembered
PATH_CHARS_MAX: Final = 512  # of those; a longer one is looked up each time


class PathChoices:
    """The choice of the first rule whose pattern matches a path."""

    def __init__(self, rules: Sequence[tuple[PathPattern, Choice]] = ()) -> None:
        self._rules = tuple(rules)
        self._of_path: dict[str, Choice | None] = {}
        self.has_any = bool(self._rules)

    def choice_for(self, path: str) -> Choice | None:
        """The choice for a decoded path, or None where no rule speaks of it."""
        try:
            return self._of_path[path]
        except KeyError:
            choice = next((choice for rule, choice in self._rules if rule.matches(path)), None)
        if len(path) <= PATH_CHARS_MAX:
            if len(self._of_path) >= PATHS_MAX:
                self._of_path.clear()
            self._of_path[path] = choice
        return choice

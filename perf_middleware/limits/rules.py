"""What holds for one request: a rule of the settings, by path, or a mark on its endpoint.

The first rule of the settings that matches counts, and takes the place of the mark: who runs the
app has the last word.  Both are known before the request is routed, from the first one on: which
endpoint it will reach is asked ahead.  An answer is remembered by path and method (and by host,
where the app has routes by host), so that a request costs one look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from perf_middleware.asgi import app_path, find_header
from perf_middleware.endpoint_marks import mark_on

if TYPE_CHECKING:
    from perf_middleware.path_patterns import PathPattern

R = TypeVar("R")

EndpointAhead: TypeAlias = Callable[[Mapping[str, Any]], Any]
"""From a scope that is not routed yet to the endpoint that it will reach, or None."""

PATHS_MAX: Final = 10_000  # whose rule is remembered
KEY_CHARS_MAX: Final = 512  # of path, method and host, which clients choose; else looked up anew


class RouteRules(Generic[R]):
    """The rules of one layer; `attribute` is where its decorator leaves its own on an endpoint.

    Each rule is (pattern, methods, value): `methods` None is any; GET is HEAD too, and a
    websocket's.
    `endpoint_ahead` is given where the app's routes are known, before the first request.
    """

    def __init__(
        self,
        rules: Sequence[tuple[PathPattern, frozenset[str] | None, R]] = (),
        *,
        attribute: str | None = None,
    ) -> None:
        # What answers a GET answers a HEAD as well: no way around a rule.
        self._rules = tuple(
            (pattern, methods | {"HEAD"} if methods and "GET" in methods else methods, rule)
            for pattern, methods, rule in rules
        )
        self.literals: dict[str, R] | None = None
        """By path, where no rule takes more than that to be found: who asks may look here."""
        if all(each.literal is not None and methods is None for each, methods, _ in self._rules):
            self.literals = {str(each.literal): rule for each, _, rule in reversed(self._rules)}
        self._attribute = attribute
        # By a method of None for a websocket: its endpoint is another one than that of a GET.
        self._known: dict[tuple[str, str | None, bytes | None], R | None] = {}
        self._endpoint_ahead: EndpointAhead | None = None
        self._is_by_host = False
        self.has_any = bool(self._rules)

    @property
    def patterns(self) -> list[PathPattern]:
        return [pattern for pattern, _, _ in self._rules]

    def read_endpoints(self, endpoint_ahead: EndpointAhead, *, is_by_host: bool = False) -> None:
        """Obey the marks on endpoints, too; `is_by_host`: which one depends on the host as well."""
        self._endpoint_ahead = endpoint_ahead
        self._is_by_host = is_by_host
        self.has_any = bool(self._rules) or self._attribute is not None
        if self._attribute is not None:
            self.literals = None
        self._known.clear()

    def rule_for(self, scope: Mapping[str, Any]) -> R | None:
        """What holds for the request (or the websocket) of `scope`; None where nothing does."""
        path: str = app_path(scope) if scope.get("root_path") else scope["path"]  # type: ignore[arg-type]
        host = find_header(scope["headers"], b"host") if self._is_by_host else None
        method: str | None = scope.get("method")
        key = (path, method, host)
        try:
            return self._known[key]
        except KeyError:
            rule = self._find(scope, path, method or "GET")
        if len(path) + len(method or "") + len(host or b"") <= KEY_CHARS_MAX:
            if len(self._known) >= PATHS_MAX:
                self._known.clear()
            self._known[key] = rule
        return rule

    def _find(self, scope: Mapping[str, Any], path: str, method: str) -> R | None:
        for pattern, methods, rule in self._rules:
            if (methods is None or method in methods) and pattern.matches(path):
                return rule
        if self._endpoint_ahead is None or self._attribute is None:
            return None
        mark: R | None = mark_on(self._endpoint_ahead(scope), method, self._attribute)
        return mark

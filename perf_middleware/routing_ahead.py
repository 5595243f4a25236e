"""Which endpoint a request will reach, asked before it is routed.

What a decorator says of its endpoint must hold from the first request on, and before anything is
spent on it: so the routes are gone through as the router will, once for each path and method (who
asks remembers the answer).  Routes of included routers count under their full paths, those of
mounts and mounted apps below their prefix, seen through the middlewares around them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.routing import WebSocketRoute

from perf_middleware.asgi import app_path
from perf_middleware.endpoint_marks import METHODS, bearers_of
from perf_middleware.own_routes import effective_routes

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator, Mapping

DEPTH_MAX: Final = 32  # of mounts in mounts, and of middlewares around a mounted app


class _Row(NamedTuple):
    """One route; `below` is what is mounted there, and `host` the route by host."""

    pattern: re.Pattern[str] | None
    methods: frozenset[str] | None
    endpoint: Any
    is_websocket: bool
    below: Any
    host: Any


class RoutingAhead:
    """Goes through the routes of a Starlette or FastAPI app; called with a scope."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._tables: dict[int, tuple[Any, int, list[_Row]]] = {}

    def __call__(self, scope: Mapping[str, Any]) -> Any:
        """The endpoint (a function, a class, a mounted app without routes), or None."""
        is_websocket = scope["type"] == "websocket"
        path = app_path(scope)  # type: ignore[arg-type]
        return self._find(self._app, path, scope, is_websocket=is_websocket, depth=0)

    def answers_any(self, paths: Iterable[str]) -> bool:
        """Whether some endpoint of the app answers a GET of one of `paths`."""
        return any(
            self({"type": "http", "method": "GET", "path": path, "headers": []}) is not None
            for path in paths
        )

    def endpoints(self) -> Iterator[Any]:
        """All of the app, in the order of its routes: the same in each of its processes."""
        return self._endpoints(self._app, 0)

    def marks(self, attribute: str) -> list[Any]:
        """What decorators have left under this name on the endpoints of the app."""
        return [
            getattr(bearer, attribute)
            for endpoint in self.endpoints()
            for method in METHODS
            for bearer in bearers_of(endpoint, method, attribute)
        ]

    def _find(
        self, app: Any, path: str, scope: Mapping[str, Any], *, is_websocket: bool, depth: int
    ) -> Any:
        for row in self._rows(app):
            if row.host is not None:
                if row.host.matches(scope)[0].value and depth < DEPTH_MAX:
                    return self._find(
                        row.below, path, scope, is_websocket=is_websocket, depth=depth + 1
                    )
                continue
            match = row.pattern.match(path) if row.pattern is not None else None
            if match is None:
                continue
            if row.below is not None:
                if depth >= DEPTH_MAX:
                    return None
                if not self._rows(row.below):
                    return row.below
                rest = "/" + match["path"]
                return self._find(
                    row.below, rest, scope, is_websocket=is_websocket, depth=depth + 1
                )
            if row.is_websocket is is_websocket and (
                is_websocket or row.methods is None or scope["method"] in row.methods
            ):
                return row.endpoint
        return None

    def _endpoints(self, app: Any, depth: int) -> Iterator[Any]:
        for row in self._rows(app):
            if row.below is None:
                yield row.endpoint
            elif depth < DEPTH_MAX:
                yield row.below
                yield from self._endpoints(row.below, depth + 1)

    def _rows(self, app: Any) -> list[_Row]:
        """The routes of `app`, read once for as long as there are as many."""
        routes = _routes_of(app)
        known = self._tables.get(id(app))
        if known is not None and known[0] is app and known[1] == len(routes):
            return known[2]
        rows = [row for route in effective_routes(routes) if (row := _row(route)) is not None]
        self._tables[id(app)] = app, len(routes), rows
        return rows


def _row(route: Any) -> _Row | None:
    pattern = getattr(route, "path_regex", None)
    if getattr(route, "host_regex", None) is not None:
        return _Row(None, None, None, False, route.app, route)
    if pattern is None:
        return None
    endpoint = getattr(route, "endpoint", None)
    if endpoint is None:
        return _Row(pattern, None, None, False, getattr(route, "app", None), None)
    methods = getattr(route, "methods", None)
    is_websocket = isinstance(getattr(route, "original_route", route), WebSocketRoute)
    return _Row(
        pattern, frozenset(methods) if methods else None, endpoint, is_websocket, None, None
    )


def _routes_of(app: Any) -> Any:
    """The routes of an app or a router, seen through the middlewares around it."""
    for _ in range(DEPTH_MAX):
        router = getattr(app, "router", None)
        routes = getattr(app if router is None else router, "routes", None)
        if routes or app is None:
            return routes or ()
        app = getattr(app, "app", None)
    return ()

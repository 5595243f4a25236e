"""Which endpoint a request will reach, asked before it is routed.

What a decorator says of its endpoint must hold from the first request on, and before anything is
spent on it: so the routes are gone through as the router will, once for each path and method (who
asks remembers the answer; several who ask of one request share it).  Routes of included routers
count under their full paths, those of mounts and mounted apps below their prefix, seen through the
middlewares around them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.routing import WebSocketRoute

from perf_middleware.asgi import path_below
from perf_middleware.endpoint_marks import METHODS, bearers_of
from perf_middleware.own_routes import effective_routes

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator, Mapping

DEPTH_MAX: Final = 32  # of mounts in mounts, and of middlewares around a mounted app


class _Table(NamedTuple):
    """The routes of `app`, as long as each of the lists that they were read from is as long."""

    app: Any
    lists: list[tuple[Any, int]]
    rows: list[_Row]

    def is_as_read(self) -> bool:
        if self.lists[0][1] != len(_routes_of(self.app)):
            return False
        return all(len(routes) == length for routes, length in self.lists)


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
        self._tables: dict[int, _Table] = {}
        self._last: tuple[Any, Any, Any, Any, Any] = (None, None, None, None, None)

    def __call__(self, scope: Mapping[str, Any]) -> Any:
        """The endpoint (a function, a class, a mounted app without routes), or None."""
        # Of one request: no other has these headers, and its host is among them.
        headers, path, method = scope["headers"], scope["path"], scope.get("method")
        root_path = scope.get("root_path") or ""
        last = self._last
        if last[0] is headers and last[1:4] == (path, root_path, method):
            return last[4]
        endpoint = self._find(self._app, scope, root_path, depth=0)
        self._last = headers, path, root_path, method, endpoint
        return endpoint

    @property
    def has_hosts(self) -> bool:
        """Whether the endpoint depends on the request's host, too."""
        return self._has_hosts(self._app, 0)

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

    def _find(self, app: Any, scope: Mapping[str, Any], root_path: str, *, depth: int) -> Any:
        # Of the whole path each time, as the routers do: where a proxy has cut root_path off the
        # path, it is not what they find below a mount.
        path = path_below(root_path, scope["path"])
        is_websocket = scope["type"] == "websocket"
        for row in self._rows(app):
            if row.host is not None:
                if row.host.matches(scope)[0].value and depth < DEPTH_MAX:
                    return self._find(row.below, scope, root_path, depth=depth + 1)
                continue
            match = row.pattern.match(path) if row.pattern is not None else None
            if match is None:
                continue
            if row.below is not None:
                if depth >= DEPTH_MAX:
                    return None
                if not self._rows(row.below):
                    return row.below
                mounted_at = path[: len(path) - len(match["path"]) - 1]
                return self._find(row.below, scope, root_path + mounted_at, depth=depth + 1)
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

    def _has_hosts(self, app: Any, depth: int) -> bool:
        rows = self._rows(app) if depth <= DEPTH_MAX else ()
        return any(
            row.host is not None
            or (row.below is not None and self._has_hosts(row.below, depth + 1))
            for row in rows
        )

    def _rows(self, app: Any) -> list[_Row]:
        """The routes of `app`, read once for as long as there are as many."""
        known = self._tables.get(id(app))
        if known is not None and known.app is app and known.is_as_read():
            return known.rows
        routes = _routes_of(app)
        lists = [(each, len(each)) for each in _lists_of(routes, 0)]
        rows = [row for route in effective_routes(routes) if (row := _row(route)) is not None]
        self._tables[id(app)] = _Table(app, lists, rows)
        return rows


def _row(route: Any) -> _Row | None:
    pattern = getattr(route, "path_regex", None)
    if getattr(route, "host_regex", None) is not None:
        return _Row(None, None, None, False, route.app, route)
    if pattern is None:
        return None
    endpoint = getattr(route, "endpoint", None)
    if endpoint is None:
        below = getattr(route, "app", None)
        if not _routes_of(below) and getattr(route, "routes", None):
            below = route._base_app  # noqa: SLF001 - behind middlewares that hide what is inside
        return _Row(pattern, None, None, False, below, None)
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


def _lists_of(routes: Any, depth: int) -> Iterator[Any]:
    """`routes`, and those of the routers that FastAPI has included there, which may grow later."""
    yield routes
    for route in routes if depth < DEPTH_MAX else ():
        included = getattr(getattr(route, "original_router", None), "routes", None)
        if included is not None:
            yield from _lists_of(included, depth + 1)

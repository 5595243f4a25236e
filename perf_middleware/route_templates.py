"""The route template of a request: `/items/{id}`, never the raw path.

The router writes what it matched into the scope.  What it writes differs by framework:

    Starlette             scope["route"] = the innermost route, path_format without mount prefixes
    FastAPI, direct       the same
    FastAPI, included     scope["fastapi"]["effective_route_context"].path_format, with the prefixes
    FastAPI, frontend     scope["fastapi"]["frontend_path"] = the path below the frontend's own
    FastAPI, plain Route  only scope["endpoint"]; so too for what it mounts
    a mount               scope["root_path"] grows by the *concrete* prefix

so a template is: the mounts that took the growth of root_path, then the path_format.
Templates are remembered by the route object, so that a request costs one look-up.  Only where the
router named no route at all is the endpoint looked for among the app's own routes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import app_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.asgi import Scope

UNMATCHED: Final = "unmatched"
REMEMBERED_MAX = 10_000  # routes of an app; beyond that (routes made per request) nothing is kept
MOUNTS_MAX = 32  # one in another, that are named
MIDDLEWARES_MAX = 32  # around a mounted app, that are looked through
HIDDEN: Final = (
    "/{prefix}"  # what something else than a mount took of the path, or one out of sight
)
_REST: Final = "/{path}"  # what lies below a mounted app that names no routes


class RouteTemplates:
    """Answers with the full template of the route that a scope was matched to.

    `known` may be read instead: by id(scope["route"]), for a scope whose root_path did not grow and
    that has no "fastapi".
    """

    __slots__ = ("known",)

    def __init__(self) -> None:
        # The matched object is kept beside its template: its id cannot be reused while it is here.
        self.known: dict[Any, tuple[Any, str]] = {}

    def template_of(self, scope: Scope, base: str) -> str:
        """The template, or UNMATCHED; `base` is the scope's root_path from before the routing."""
        matched = scope.get("route")
        fastapi = scope.get("fastapi")
        if fastapi:
            if "frontend_path" in fastapi:
                return _of_frontend(scope, base, fastapi["frontend_path"])
            context = fastapi.get("effective_route_context")
            # Mounted apps may leave an outer context behind: it counts only for the route it made.
            if context is not None and (matched is None or matched is context.original_route):
                matched = context
        if matched is None:
            return self._of_endpoint(scope, base)
        root: str = scope.get("root_path") or ""
        # The growth alone: a proxy's clients may choose the root_path that was there before.
        key = id(matched) if root == base else (id(matched), _growth(root, base))
        known = self.known.get(key)
        if known is not None:
            return known[1]
        template, stable = _composed(matched, scope, base)
        if stable and len(self.known) < REMEMBERED_MAX:
            self.known[key] = (matched, template)
        return template

    def _of_endpoint(self, scope: Scope, base: str) -> str:
        """Where no route was named; one function may serve routes of several apps."""
        endpoint, app = scope.get("endpoint"), scope.get("app")
        if endpoint is None:
            return UNMATCHED
        key = (id(endpoint), id(app), _growth(scope.get("root_path") or "", base))
        known = self.known.get(key)
        if known is not None:
            return known[1]
        template, stable = _of_endpoint(scope, base)
        if stable and len(self.known) < REMEMBERED_MAX:
            self.known[key] = ((endpoint, app), template)
        return template


def _composed(matched: Any, scope: Scope, base: str) -> tuple[str, bool]:
    """The template of a matched route, and whether it is the same for every request to it."""
    starlette_route = getattr(matched, "starlette_route", None)
    route = matched if starlette_route is None else starlette_route
    if _mounts(route):
        # Left by an outer router where what it mounted went on without naming a route.
        return _of_mount(route, scope, base), False
    path_format = getattr(route, "path_format", None) or getattr(route, "path", None)
    if not isinstance(path_format, str):
        return _of_endpoint(scope, base)
    prefix = _prefix(scope, base)
    return prefix + path_format or "/", "{" not in prefix


def _of_mount(mount: Any, scope: Scope, base: str) -> str:
    if scope.get("endpoint") is not mount.app:
        return _of_endpoint(scope, base)[0]
    return UNMATCHED if getattr(mount, "routes", None) else _prefix(scope, base) + _REST


def _of_endpoint(scope: Scope, base: str) -> tuple[str, bool]:
    """The template where the router left only the endpoint, by the routes of the innermost app.

    And whether it is the same for every request to that endpoint: it is then remembered, so that
    the routes are read once.
    """
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return UNMATCHED, False
    path = app_path(scope)
    prefix = _prefix(scope, base)
    literal = "{" not in prefix
    routes = getattr(scope.get("app"), "routes", None) or ()
    same = [route for route in routes if getattr(route, "endpoint", None) is endpoint]
    for route in same:
        pattern = getattr(route, "path_regex", None)
        if pattern is not None and pattern.match(path):
            return prefix + str(route.path_format) or "/", literal and len(same) == 1
    if getattr(endpoint, "routes", None):
        return UNMATCHED, False  # a mounted app that routes itself and found none
    # A mounted app, or inside a mounted router that is no app: no raw path may be told.
    return prefix + _REST, literal


def _of_frontend(scope: Scope, base: str, below: str) -> str:
    path = app_path(scope)
    own = path[: len(path) - len(below)].rstrip("/")  # matched literally: it has no parameters
    return _prefix(scope, base) + own + _REST


def _mounts(route: Any) -> bool:
    return hasattr(route, "app") and not hasattr(route, "endpoint")


def _growth(root: str, base: str) -> str:
    grown = root[len(base) :] if root.startswith(base) else ""
    return grown if grown.startswith("/") else ""


def _prefix(scope: Scope, base: str) -> str:
    """The template of what mounts took of the path, by their own; HIDDEN for what they do not tell.

    Their values cannot be put back from path_params: a parameter that a later one has the name of
    is in there no more.
    """
    root: str = scope.get("root_path") or ""
    growth = _growth(root, base)
    if not growth:
        return ""
    mounted: str | None = scope.get("app_root_path")  # left by the outermost mount
    if mounted is None:
        return HIDDEN  # no mount: something that dispatches by a rule of its own
    path: str = scope["path"]
    path = path.removeprefix(mounted)
    template = ""
    routes: Any = getattr(scope.get("router"), "routes", None)
    for _ in range(MOUNTS_MAX):
        if mounted == root:
            return template
        for route in _below(routes):
            pattern = getattr(route, "path_regex", None)
            match = pattern.match(path) if pattern is not None else _host(route, scope)
            if match is None:
                continue
            if pattern is not None:
                rest = "/" + match["path"]
                taken = path[: -len(rest)]
                if not root.startswith(mounted + taken):
                    continue
                if len(mounted) >= len(base):  # else it stands further out than we do
                    template += str(route.path_format).removesuffix("/{path}")
                mounted, path = mounted + taken, rest
            routes = _routes_of(route)
            break
        else:
            break
    return template + HIDDEN


def _below(routes: Any) -> Iterator[Any]:
    """What mounts and hosts stand in `routes`, those of included routers with their prefix."""
    for route in routes or ():
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            if _mounts(route):
                yield route
        else:
            for context in contexts():
                if _mounts(context.starlette_route):
                    yield context.starlette_route


def _host(route: Any, scope: Scope) -> Any:
    """Something where a route by host has the scope's, else None."""
    return route.matches(scope)[0].value or None if hasattr(route, "host_regex") else None


def _routes_of(app: Any) -> Any:
    """The routes of a mounted app, seen through the middlewares around it."""
    for _ in range(MIDDLEWARES_MAX):
        routes = getattr(app, "routes", None)
        if routes or app is None:
            return routes
        app = getattr(app, "app", None)
    return None

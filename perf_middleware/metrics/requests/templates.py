"""The route template of a request: `/items/{id}`, never the raw path.

The router writes what it matched into the scope.  What it writes differs by framework:

    Starlette             scope["route"] = the innermost route, path_format without mount prefixes
    FastAPI, direct       the same
    FastAPI, included     scope["fastapi"]["effective_route_context"].path_format, with the prefixes
    FastAPI, frontend     scope["fastapi"]["frontend_path"] = the path below the frontend's own
    FastAPI, plain Route  only scope["endpoint"]; so too for what it mounts
    a mount               scope["root_path"] grows by the *concrete* prefix

so a template is: the growth of root_path, its parameters put back in, then the path_format.
Templates are remembered by the route object, so that a request costs one look-up.  Only where the
router named no route at all is the endpoint looked for among the app's own routes.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import app_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from perf_middleware.asgi import Scope

UNMATCHED: Final = "unmatched"
REMEMBERED_MAX = 10_000  # routes of an app; beyond that (routes made per request) nothing is kept
CONVERTED_SEGMENTS_MAX = 32  # of a mount's prefix; a client may send thousands
_REST: Final = "/{path}"  # what lies below a mounted app that names no routes


class RouteTemplates:
    """Answers with the full template of the route that a scope was matched to."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # The matched object is kept beside its template: its id cannot be reused while it is here.
        self._known: dict[int | tuple[int, str], tuple[Any, str]] = {}

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
            matched = scope.get("endpoint")
            if matched is None:
                return UNMATCHED
        root: str = scope.get("root_path") or ""
        # The growth alone: a proxy's clients may choose the root_path that was there before.
        key = id(matched) if root == base else (id(matched), _growth(root, base))
        known = self._known.get(key)
        if known is not None:
            return known[1]
        if matched is scope.get("endpoint"):
            template, stable = _of_endpoint(scope, base)
        else:
            template, stable = _composed(matched, scope, base)
        if stable and len(self._known) < REMEMBERED_MAX:
            self._known[key] = (matched, template)
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
    prefix = _growth(scope.get("root_path") or "", base)
    own_names = getattr(route, "param_convertors", ())
    outer = {
        name: value
        for name, value in (scope.get("path_params") or {}).items()
        if name not in own_names
    }
    if prefix and own_names:
        # A parameter of a mount that has the name of one of ours is in path_params no more.
        mounts = _of_mounts(scope, base, depth=prefix.count("/"))
        if mounts is not None:
            return mounts + path_format, "{" not in mounts
    if prefix and outer:
        return _with_names(prefix, outer) + path_format, False
    return prefix + path_format or "/", True


def _of_mounts(scope: Scope, base: str, *, depth: int) -> str | None:
    """The template of the innermost `depth` path segments that mounts took, by the mounts' own.

    None where they cannot be told from the outermost router, as below an included router.
    """
    root: str = scope.get("app_root_path", base) or ""
    path: str = scope["path"]
    path = path.removeprefix(root)
    routes = getattr(scope.get("router"), "routes", None) or ()
    template = ""
    while True:
        for route in routes:
            pattern = getattr(route, "path_regex", None) if _mounts(route) else None
            match = pattern.match(path) if pattern is not None else None
            if match is not None:
                template += str(route.path_format).removesuffix("/{path}")
                path = "/" + match["path"]
                routes = getattr(route, "routes", None) or ()
                break
        else:
            segments = template.split("/")[1:]
            return "/" + "/".join(segments[-depth:]) if len(segments) >= depth else None


def _of_mount(mount: Any, scope: Scope, base: str) -> str:
    if scope.get("endpoint") is not mount.app:
        return _of_endpoint(scope, base)[0]
    return UNMATCHED if getattr(mount, "routes", None) else _named_prefix(scope, base) + _REST


def _of_endpoint(scope: Scope, base: str) -> tuple[str, bool]:
    """The template where the router left only the endpoint, by the routes of the innermost app.

    And whether it is the same for every request to that endpoint: it is then remembered, so that
    the routes are read once.
    """
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return UNMATCHED, False
    path = app_path(scope)
    prefix = _named_prefix(scope, base)
    literal = prefix == _growth(scope.get("root_path") or "", base)
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
    return _named_prefix(scope, base) + own + _REST


def _mounts(route: Any) -> bool:
    return hasattr(route, "app") and not hasattr(route, "endpoint")


def _named_prefix(scope: Scope, base: str) -> str:
    prefix = _growth(scope.get("root_path") or "", base)
    params = scope.get("path_params")
    return _with_names(prefix, params) if prefix and params else prefix


def _growth(root: str, base: str) -> str:
    grown = root[len(base) :] if root.startswith(base) else ""
    return grown if grown.startswith("/") else ""


def _with_names(prefix: str, params: Mapping[str, Any]) -> str:
    """`prefix` with each value of `params` replaced by its name in braces, from left to right.

    A mount's pattern took each value out of this prefix, but its text may differ (`007` became 7).
    A value that is not in it came from elsewhere: the host name, an app further out.
    """
    named, rest = "", prefix
    for name, value in params.items():
        place = _place_of(value, rest)
        if place is not None:
            start, end = place
            named += f"{rest[:start]}{{{name}}}"
            rest = rest[end:]
    return named + rest


def _place_of(value: Any, path: str) -> tuple[int, int] | None:
    """Where `value` stands in `path`: as a whole segment if it can, else over or inside some."""
    text = str(value)
    if not text:
        return None
    for start, end in _segments(path):
        if path[start:end] == text:
            return start, end
    if not isinstance(value, str) or text not in path:
        for _, (start, end) in zip(range(CONVERTED_SEGMENTS_MAX), _segments(path), strict=False):
            if _converts_to(value, path[start:end]):
                return start, end
    if text not in path:
        return None
    first, last = path.index(text), path.rindex(text)
    end = first + len(text)
    around = path[max(first - 1, 0) : first] + path[end : end + 1]
    if first == last and (isinstance(value, str) or not any(map(str.isdigit, around))):
        return first, end
    # It could be here or there: hide the segments from here to there, so that nothing raw is left.
    after = path.find("/", last + len(text))
    return path.rfind("/", 0, first) + 1, len(path) if after < 0 else after


def _segments(path: str) -> Iterator[tuple[int, int]]:
    start = 0
    while True:
        end = path.find("/", start)
        if end < 0:
            yield start, len(path)
            return
        yield start, end
        start = end + 1


def _converts_to(value: Any, segment: str) -> bool:
    """Whether one of the app's path convertors, built in or its own, makes `value` of `segment`."""
    from starlette.convertors import CONVERTOR_TYPES

    for convertor in CONVERTOR_TYPES.values():
        with suppress(Exception):  # the app's code, with text that may not be meant for it
            if re.fullmatch(convertor.regex, segment) and convertor.convert(segment) == value:
                return True
    return False

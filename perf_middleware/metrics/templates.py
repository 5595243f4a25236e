"""The route template of a request: `/items/{id}`, never the raw path.

The router writes what it matched into the scope; nothing here walks an app's routes.  What it
writes differs by framework:

    Starlette             scope["route"] = the innermost route, path_format without mount prefixes
    FastAPI, direct       the same
    FastAPI, included     scope["fastapi"]["effective_route_context"].path_format, with the prefixes
    FastAPI, plain Route  only scope["endpoint"] and scope["path_params"]
    a mount               scope["root_path"] grows by the *concrete* prefix

so a template is: the growth of root_path, its parameters put back in, then the path_format.
Templates are remembered by the route object, so that a request costs one look-up.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import app_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perf_middleware.asgi import Scope

UNMATCHED: Final = "unmatched"
REMEMBERED_MAX = 10_000  # routes of an app; beyond that (routes made per request) nothing is kept


class RouteTemplates:
    """Answers with the full template of the route that a scope was matched to."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # The matched object is kept beside its template: its id cannot be reused while it is here.
        self._known: dict[tuple[int, str], tuple[Any, str]] = {}

    def template_of(self, scope: Scope, base: str) -> str:
        """The template, or UNMATCHED; `base` is the scope's root_path from before the routing."""
        matched = scope.get("route")
        fastapi = scope.get("fastapi")
        if fastapi:
            context = fastapi.get("effective_route_context")
            # Mounted apps may leave an outer context behind: it counts only for the route it made.
            if context is not None and (matched is None or matched is context.original_route):
                matched = context
        if matched is None:
            return _inferred(scope, base)
        root: str = scope.get("root_path") or ""
        known = self._known.get((id(matched), root))
        if known is not None:
            return known[1]
        template, stable = _composed(matched, scope, root, base)
        if stable and len(self._known) < REMEMBERED_MAX:
            self._known[(id(matched), root)] = (matched, template)
        return template


def _composed(matched: Any, scope: Scope, root: str, base: str) -> tuple[str, bool]:
    """The template of a matched route, and whether it is the same for every request to it."""
    starlette_route = getattr(matched, "starlette_route", None)
    route = matched if starlette_route is None else starlette_route
    prefix = _growth(root, base)
    if _mounts(route):
        if _routes_inside(route):
            return UNMATCHED, False  # the mount matched, nothing inside it did
        own, own_names = "/{path}", frozenset[str]()
    else:
        path_format = getattr(route, "path_format", None) or getattr(route, "path", None)
        if not isinstance(path_format, str):
            return _inferred(scope, base), False
        own, own_names = path_format, frozenset(getattr(route, "param_convertors", ()))
    outer = {
        name: value
        for name, value in (scope.get("path_params") or {}).items()
        if name not in own_names
    }
    if prefix and outer:
        return _with_names(prefix, outer) + own, False
    return prefix + own or "/", True


def _inferred(scope: Scope, base: str) -> str:
    """The template where the router left only the endpoint: the path with its parameters' names."""
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return UNMATCHED
    root: str = scope.get("root_path") or ""
    prefix = _growth(root, base)
    params = scope.get("path_params") or {}
    if prefix and not (inspect.isroutine(endpoint) or inspect.isclass(endpoint)):
        # A mounted ASGI app.  One that routes itself and named no route had none for this path.
        return UNMATCHED if _routes_inside(endpoint) else _with_names(prefix, params) + "/{path}"
    return _with_names(prefix + app_path(scope), params) or "/"


def _mounts(route: Any) -> bool:
    return hasattr(route, "app") and not hasattr(route, "endpoint")


def _routes_inside(mount_or_app: Any) -> bool:
    return bool(getattr(mount_or_app, "routes", None))


def _growth(root: str, base: str) -> str:
    return root[len(base) :] if root.startswith(base) else ""


def _with_names(path: str, params: Mapping[str, Any]) -> str:
    """`path` with each value of `params` replaced by its name in braces, from left to right.

    A value was taken out of this path by its route's pattern, so it is looked for as a whole
    segment first (also when its text differs: `007` became 7), then anywhere.
    """
    segments = path.split("/")
    at = 0
    for name, value in params.items():
        text = str(value)
        for index in range(at, len(segments)):
            if segments[index] == text or _same_value(segments[index], value):
                segments[index] = f"{{{name}}}"
                at = index + 1
                break
        else:
            joined = "/".join(segments)
            if not text or text not in joined:
                continue
            return _with_rest(joined, text, name)
    return "/".join(segments)


def _with_rest(path: str, text: str, name: str) -> str:
    """A value that spans segments (`{path:path}`) or only a part of one (`report-{id}.csv`)."""
    head, _, tail = path.rpartition(text)
    return f"{head}{{{name}}}{tail}"


def _same_value(segment: str, value: Any) -> bool:
    if isinstance(value, str):
        return False
    try:
        return bool(type(value)(segment) == value)
    except (TypeError, ValueError, ArithmeticError):
        return False

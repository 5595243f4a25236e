"""Does the app answer a path of ours itself, and is there a route for each configured rule?

Asked once, when the app builds its stack.  An app that exposes its own `/metrics` keeps it (do no
harm); a rule that no route can match is told by name.  Which route a request matched is never found
this way; which it will reach, before it is routed, says routing_ahead.py.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.path_patterns import PathPattern

EXAMPLES = ("1", "a", "1.5", "6f9619ff-8b86-d011-b42d-00c04fc964ff")
_PARAMETER = re.compile(r"\{[^}]*\}")


def has_own_route(app: Any, path: str) -> bool:
    """Whether `app` (Starlette or FastAPI) has a route or a mount at exactly `path`.

    A pattern that would also match it (`/{path:path}`, a mount at the root) does not count.
    """
    return any(
        getattr(route, "path", None) == path for route in effective_routes(app.router.routes)
    )


def rules_without_route(app: Any, patterns: Iterable[PathPattern]) -> list[str]:
    """Those of `patterns` that no route or mount of the app (Starlette or FastAPI) can match.

    Judged by examples: a parameter is tried as a number, a word and a UUID.
    """
    routes = [getattr(route, "starlette_route", None) or route
              for route in effective_routes(app.router.routes)]  # fmt: skip
    return [pattern.text for pattern in patterns if not _has_route(pattern, routes)]


def _has_route(pattern: PathPattern, routes: Iterable[Any]) -> bool:
    for route in routes:
        regex = getattr(route, "path_regex", None)
        template = getattr(route, "path_format", None) or getattr(route, "path", None)
        if regex is None or template is None:
            return True  # a host, or what we cannot read: it may match anything
        if any(regex.match(pattern.example(word)) for word in EXAMPLES):
            return True
        if pattern.matches(_PARAMETER.sub("1", template)):
            return True
    return False


def effective_routes(routes: Iterable[Any]) -> Iterable[Any]:
    """The routes under their full paths: FastAPI since 0.137 keeps included routers in a tree."""
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:  # no FastAPI, or one that has only full paths
        return routes
    try:
        return list(iter_route_contexts(list(routes)))
    except Exception:  # noqa: BLE001 - a tree that we cannot read is not worth a failed start
        return routes

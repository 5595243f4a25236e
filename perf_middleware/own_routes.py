"""Does the app answer a path of ours itself?  Asked once, when the app builds its stack.

The only place that reads an app's routes, and only for whole literal paths: an app that exposes its
own `/metrics` keeps it (do no harm).  Which route a request matched is never found this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def has_own_route(app: Any, path: str) -> bool:
    """Whether `app` (Starlette or FastAPI) has a route or a mount at exactly `path`.

    A pattern that would also match it (`/{path:path}`, a mount at the root) does not count.
    """
    return any(getattr(route, "path", None) == path for route in _effective(app.router.routes))


def _effective(routes: Iterable[Any]) -> Iterable[Any]:
    """The routes under their full paths: FastAPI since 0.137 keeps included routers in a tree."""
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:  # no FastAPI, or one that has only full paths
        return routes
    try:
        return list(iter_route_contexts(list(routes)))
    except Exception:  # noqa: BLE001 - a tree that we cannot read is not worth a failed start
        return routes

"""Which dependency has given a session: the one whose generator has it among its variables.

FastAPI keeps the generators of a request's dependencies in an exit stack in the scope, each within
context managers of its own.  Looked at only to tell somebody, and then for each endpoint once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.runtime.sessions import session_steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.asgi import Scope

STACK: Final = "fastapi_inner_astack"
DEPTH_MAX: Final = 6
WRAPPERS: Final = frozenset(("fastapi", "contextlib"))
OURS: Final = "perf.database.session"


def dependency_of(scope: Scope, session: Any) -> str:
    """`get_session (/srv/app/db.py:12)`, or "" where none is found; never raises."""
    try:
        for _, leave in scope[STACK]._exit_callbacks:  # noqa: SLF001 - no other door
            for generator, variables in _generators(leave, DEPTH_MAX):
                if any(_is_of(value, session) for value in variables.values()):
                    return _named(generator)
    except Exception:  # noqa: BLE001 - a stack of another kind: then it is told without
        return ""
    return ""


def route_of(scope: Scope) -> str:
    """`GET /items/{id}`, as far as the router has written it down."""
    path = getattr(scope.get("route"), "path", None) or scope.get("path", "")
    return f"{scope.get('method', scope['type'])} {path}"


def _generators(found: Any, depth: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The generators within a context manager, the outermost first, with their variables."""
    manager = getattr(found, "__self__", found)
    generator = getattr(manager, "gen", None)
    generator = getattr(generator, "_steps", generator)
    frame = getattr(generator, "ag_frame", None) or getattr(generator, "gi_frame", None)
    if frame is None or depth == 0:
        return
    variables = frame.f_locals
    if frame.f_globals.get("__name__", "").partition(".")[0] not in WRAPPERS:
        yield generator, variables
    for value in list(variables.values()):
        if hasattr(value, "gen"):
            yield from _generators(value, depth - 1)


def _is_of(value: Any, session: Any) -> bool:
    return value is session or getattr(value, "sync_session", None) is session


def _named(generator: Any) -> str:
    code = getattr(generator, "ag_code", None) or generator.gi_code
    if code is session_steps.__code__:
        return OURS
    return f"{generator.__name__} ({code.co_filename}:{code.co_firstlineno})"

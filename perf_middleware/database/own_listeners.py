"""Our own listeners to events of SQLAlchemy, told from the app's: ours change no statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

F = TypeVar("F", bound="Callable[..., Any]")

MARK: Final = "perf_middleware_own"


def own_listener(listener: F) -> F:
    """Mark a listener as ours."""
    setattr(listener, MARK, True)
    return listener


def has_listener_of_app(listeners: Iterable[Any]) -> bool:
    """Whether one of these is not ours."""
    return any(not getattr(listener, MARK, False) for listener in listeners)

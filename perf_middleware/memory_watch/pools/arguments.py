"""The arguments of an async pool, for type checkers: its `create` may be async or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Required, TypedDict, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.clock import Clock

T = TypeVar("T")


class AsyncPoolArguments(TypedDict, Generic[T], total=False):
    """All but `create`, as AsyncObjectPool has them."""

    size_max: Required[int]
    size_min: int
    reset: Callable[[T], Any] | None
    check: Callable[[T], Any] | None
    close: Callable[[T], Any] | None
    check_after_idle_s: float
    idle_s_max: float | None
    age_s_max: float | None
    uses_max: int | None
    wait_s: float | None
    step_s_max: float
    drain_s: float
    waiting_max: int
    names_holders: bool
    name: str
    clock: Clock

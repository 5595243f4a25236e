"""`@timeout` and `@body_limit`: what an endpoint chooses for its requests."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, TypeVar

from perf_middleware.endpoint_marks import leave_mark
from perf_middleware.limits.deadlines.choices import (
    BODY_LIMIT_ATTRIBUTE,
    TIMEOUT_ATTRIBUTE,
    BodyChoice,
    TimeoutChoice,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.limits.deadlines.choices import Covers

F = TypeVar("F", bound="Callable[..., Any]")


def timeout(seconds: float | None, *, covers: Covers | None = None) -> Callable[[F], F]:
    """Requests of this endpoint have `seconds`, in place of `deadlines.timeout_s`; None: no end.

    `covers` says until when: the response's "head", or its "total".  Works above or below the
    framework's own decorator, on functions and endpoint classes.

    Raises ValueError for no time, TypeError for what is no number and for what can carry no mark,
    such as a bound method.
    """
    if seconds is not None and type(seconds) not in (int, float):
        raise TypeError(f"@timeout takes its seconds, as in @timeout(5), not {seconds!r}")
    if seconds is not None and not isfinite(seconds):
        raise ValueError(f"{seconds} is no time: None is no timeout")
    choice = TimeoutChoice(None if seconds is None else round(seconds * 1_000_000), covers)
    return _mark(TIMEOUT_ATTRIBUTE, choice, "timeout")


def body_limit(bytes_max: int | None) -> Callable[[F], F]:
    """Bodies of this endpoint have `bytes_max` at most, in place of `deadlines.body_bytes_max`.

    Raises ValueError for less than none, TypeError as timeout does.
    """
    if bytes_max is not None and type(bytes_max) is not int:
        raise TypeError(f"@body_limit takes its bytes, as in @body_limit(1000), not {bytes_max!r}")
    return _mark(BODY_LIMIT_ATTRIBUTE, BodyChoice(bytes_max), "body_limit")


def _mark(attribute: str, choice: TimeoutChoice | BodyChoice, name: str) -> Callable[[F], F]:
    def decorate(endpoint: F) -> F:
        return leave_mark(endpoint, attribute, choice, decorator=name)

    return decorate

"""`@criticality(...)`: how much an endpoint's requests matter under overload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from perf_middleware.endpoint_marks import leave_mark
from perf_middleware.limits.concurrency.criticality import ATTRIBUTE, CODES, Treatment

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.limits.concurrency.criticality import CriticalityName

F = TypeVar("F", bound="Callable[..., Any]")


def criticality(name: CriticalityName) -> Callable[[F], F]:
    """Requests of this endpoint are of the class `name`: the lowest one is shed first.

    Works above or below the framework's own decorator, on functions and endpoint classes.

    Raises ValueError for a class that does not exist, TypeError for what can carry no mark, such as
    a bound method.
    """
    if name not in CODES:
        raise ValueError(f"@criticality takes one of {', '.join(CODES)}, not {name!r}")
    treatment = Treatment(criticality=CODES[name])

    def decorate(endpoint: F) -> F:
        return leave_mark(endpoint, ATTRIBUTE, treatment, decorator="criticality")

    return decorate

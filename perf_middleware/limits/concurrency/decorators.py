"""`@criticality(...)`: how much an endpoint's requests matter under overload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

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

    def mark(endpoint: F) -> F:
        try:
            setattr(endpoint, ATTRIBUTE, treatment)
        except AttributeError:
            raise TypeError(
                f"@criticality stands on a function or a class, not on {endpoint!r}: "
                "decorate the function of a method"
            ) from None
        return endpoint

    return mark

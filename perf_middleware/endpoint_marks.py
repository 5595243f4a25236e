"""What a decorator has left on an endpoint: a function, or a class with a method for each verb."""

from __future__ import annotations

from typing import Any


def mark_on(endpoint: Any, method: str, attribute: str) -> Any:
    """The value of `attribute` on what answers `method`; None where there is none."""
    mark = getattr(endpoint, attribute, None)
    if mark is None and isinstance(endpoint, type):
        name = method.lower()
        if name == "head" and not hasattr(endpoint, name):
            name = "get"  # which answers it, in Starlette's HTTPEndpoint
        mark = getattr(getattr(endpoint, name, None), attribute, None)
    return mark

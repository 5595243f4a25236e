"""What a decorator has left on an endpoint: a function, or a class with a method for each verb."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
"""The verbs that a class of an endpoint may have a method for."""


def mark_on(endpoint: Any, method: str, attribute: str) -> Any:
    """The value of `attribute` on what answers `method`; None where there is none."""
    return getattr(bearer_of(endpoint, method, attribute), attribute, None)


def bearer_of(endpoint: Any, method: str, attribute: str) -> Any:
    """What bears `attribute`: the endpoint, its method for the verb, the function of a partial."""
    while getattr(endpoint, attribute, None) is None and isinstance(endpoint, partial):
        endpoint = endpoint.func
    if getattr(endpoint, attribute, None) is None and isinstance(endpoint, type):
        name = method.lower()
        if name == "head" and not hasattr(endpoint, name):
            name = "get"  # which answers it, in Starlette's HTTPEndpoint
        endpoint = getattr(endpoint, name, None)
    return endpoint if getattr(endpoint, attribute, None) is not None else None

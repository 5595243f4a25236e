"""What a decorator leaves on an endpoint: a function, or a class with a method for each verb."""

from __future__ import annotations

from functools import partial
from types import FunctionType
from typing import Any, Final, TypeVar

E = TypeVar("E")

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
"""The verbs that a class of an endpoint may have a method for."""


def leave_mark(endpoint: E, attribute: str, value: object, *, decorator: str) -> E:
    """`endpoint`, which now carries `value` under `attribute`.

    Raises TypeError, which names the `decorator`, for what can carry none, as a bound method.
    """
    try:
        setattr(endpoint, attribute, value)
    except AttributeError:
        raise TypeError(
            f"@{decorator} stands on a function or a class, not on {endpoint!r}: "
            "decorate the function of a method"
        ) from None
    return endpoint


def mark_on(endpoint: Any, method: str, attribute: str) -> Any:
    """The value of `attribute` on what answers `method`; None where there is none."""
    if type(endpoint) is FunctionType:  # most are: it stands on themselves or nowhere
        return getattr(endpoint, attribute, None)
    for bearer in bearers_of(endpoint, method, attribute):
        return getattr(bearer, attribute)
    return None


def bearers_of(endpoint: Any, method: str, attribute: str) -> list[Any]:
    """All that bear `attribute`: the endpoint, the function of a partial, the verb's method."""
    chain = [endpoint]
    while isinstance(chain[-1], partial):
        chain.append(chain[-1].func)
    last = chain[-1]
    if isinstance(last, type):
        name = method.lower()
        if name == "head" and not hasattr(last, name):
            name = "get"  # which answers it, in Starlette's HTTPEndpoint
        chain.append(getattr(last, name, None))
    return [each for each in chain if getattr(each, attribute, None) is not None]

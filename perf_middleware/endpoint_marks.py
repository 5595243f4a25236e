"""What a decorator leaves on an endpoint: a function, or a class with a method for each verb."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

E = TypeVar("E")


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
    """The value of `attribute` on what answers `method`; None where there is none.

    That of a `functools.partial` is its own, or else that of its function.
    """
    mark = getattr(endpoint, attribute, None)
    if mark is not None:
        return mark
    if isinstance(endpoint, partial):
        return mark_on(endpoint.func, method, attribute)
    if isinstance(endpoint, type):
        name = method.lower()
        if name == "head" and not hasattr(endpoint, name):
            name = "get"  # which answers it, in Starlette's HTTPEndpoint
        return getattr(getattr(endpoint, name, None), attribute, None)
    return None

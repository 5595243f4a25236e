"""What layers share that refuse a body in the middle: whose error comes out of the app."""

from __future__ import annotations


def comes_from(exc: BaseException | None, origin: BaseException | None) -> bool:
    """Whether `exc` is `origin`, or was raised because of it: alone, chained or in a group."""
    while exc is not None:
        if exc is origin:
            return True
        if isinstance(exc, BaseExceptionGroup):
            return any(comes_from(each, origin) for each in exc.exceptions)
        exc = exc.__cause__ or exc.__context__
    return False

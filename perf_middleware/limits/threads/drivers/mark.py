"""The mark of a request that asks whether the worker is alive: it travels as a context variable.

It ends with its request: a task that a probe has started and left behind inherits the variable, and
must not take from the reserve for ever.
"""

from __future__ import annotations

from contextvars import ContextVar


class ProbeMark:
    """On while its request is being answered."""

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        self.is_on = True


PROBE: ContextVar[ProbeMark | None] = ContextVar("perf_middleware.probe", default=None)


def is_probe() -> bool:
    """Whether this task answers a probe."""
    mark = PROBE.get()
    return mark is not None and mark.is_on

"""Whose look-ups may share a bulk call, and which contextvars that sees.

    sharing   who shares a call                               the call sees
    same      whose contextvars are all the very same ones    those
    named     for whom the named ones have equal values       the named ones, and no other
    empty     everybody                                       none
    first     everybody                                       those of the first who asked

`same` is the default: an identity, a session or a trace in a contextvar never meets another one's.
"""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UNSET: Final = object()

Group = Any
"""What those who share a call have in common."""


def same() -> tuple[Group, Context]:
    """By the identity of every variable and value, which the context keeps alive."""
    context = copy_context()
    # By id: a value's == may be anything, and two empty dicts of two requests are equal by it.
    return (tuple(map(id, context)), tuple(map(id, context.values()))), context


def empty() -> tuple[Group, Context]:
    """Nobody's variables."""
    return None, Context()


def first() -> tuple[Group, Context]:
    """Those of whoever asks first."""
    return None, copy_context()


def named(variables: Sequence[ContextVar[Any]]) -> Callable[[], tuple[Group, Context]]:
    """Equal by the value of each of `variables`, of the same type; what cannot be hashed by id."""

    def by_value() -> tuple[Group, Context]:
        context = Context()
        group: list[Any] = []
        for variable in variables:
            value = variable.get(UNSET)
            if value is not UNSET:
                context.run(variable.set, value)
            try:
                hash(value)
            except TypeError:
                group.append((id(value),))
            else:
                group.append((type(value), value))
        return tuple(group), context

    return by_value

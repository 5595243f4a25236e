"""`@no_compression` and `@hide_length`: what an endpoint chooses for its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from perf_middleware.coding_choice import ATTRIBUTE, Choice
from perf_middleware.endpoint_marks import leave_mark

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def no_compression(endpoint: F) -> F:
    """Answers of this endpoint leave as they are: one with a secret beside what a client chose.

    Works above or below the framework's own decorator, on functions and endpoint classes.

    Raises TypeError for what can carry no mark, such as a bound method.
    """
    return leave_mark(endpoint, ATTRIBUTE, Choice(encode=False), decorator="no_compression")


def hide_length(endpoint: F) -> F:
    """Coded answers of this endpoint get random bytes that decoders skip; see docs/compression.md.

    Raises TypeError as no_compression does.
    """
    return leave_mark(endpoint, ATTRIBUTE, Choice(hide_length=True), decorator="hide_length")

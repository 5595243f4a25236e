"""`@no_compression` and `@hide_length`: what an endpoint chooses for its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from perf_middleware.coding_choice import ATTRIBUTE, Choice

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def no_compression(endpoint: F) -> F:
    """Answers of this endpoint leave as they are: one with a secret beside what a client chose.

    Works above or below the framework's own decorator, on functions and endpoint classes.

    Raises TypeError for what can carry no mark, such as a bound method.
    """
    return _marked(endpoint, Choice(encode=False), "no_compression")


def hide_length(endpoint: F) -> F:
    """Coded answers of this endpoint get random bytes that decoders skip; see docs/compression.md.

    Raises TypeError as no_compression does.
    """
    return _marked(endpoint, Choice(hide_length=True), "hide_length")


def _marked(endpoint: F, choice: Choice, name: str) -> F:
    try:
        setattr(endpoint, ATTRIBUTE, choice)
    except AttributeError:
        raise TypeError(
            f"@{name} stands on a function or a class, not on {endpoint!r}: "
            "decorate the function of a method"
        ) from None
    return endpoint

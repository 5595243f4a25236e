"""`@no_compression` and `@hide_length`: what an endpoint chooses for its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from perf_middleware.compression.choices import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

ATTRIBUTE: Final = "__perf_compression_choice__"


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


def choice_of(endpoint: Any, method: str) -> Choice | None:
    """What the endpoint that the router found has chosen for this method."""
    choice = getattr(endpoint, ATTRIBUTE, None)
    if choice is None and isinstance(endpoint, type):
        name = method.lower()
        if name == "head" and not hasattr(endpoint, name):
            name = "get"  # which answers it, in Starlette's HTTPEndpoint
        choice = getattr(getattr(endpoint, name, None), ATTRIBUTE, None)
    return choice if isinstance(choice, Choice) else None


def _marked(endpoint: F, choice: Choice, name: str) -> F:
    try:
        setattr(endpoint, ATTRIBUTE, choice)
    except AttributeError:
        raise TypeError(
            f"@{name} stands on a function or a class, not on {endpoint!r}: "
            "decorate the function of a method"
        ) from None
    return endpoint

"""Coded forms of a body that something below keeps: with one at hand no codec is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from perf_middleware.asgi import Message

FORMS: Final = "perf_middleware.forms"
"""The key of a body message that carries them; it goes no further than to us."""


class Forms(Protocol):
    """The coded forms of one stored body."""

    @property
    def body(self) -> bytes:
        """The very object that the message carries."""

    def get(self, coding: str) -> bytes | None:
        """The form in this coding, where there is one."""

    def remember(self, coding: str, coded: bytes) -> None:
        """A form that was made just now."""


def forms_of(message: Message) -> Forms | None:
    """The forms of the body in `message`; None where something between has put in another body."""
    forms: Forms | None = message.get(FORMS)
    return forms if forms is not None and forms.body is message.get("body") else None

"""How a stored body's coded forms come from the cache to the layer that encodes answers.

    encoding layer -- scope[WANTED] = bytes --> cache             forms of bodies from so many bytes
    encoding layer <-- message[FORMS] --------- cache             the forms of the body beside them
                   <-- scope[FORMS] ----------                    the same, see forms_of

Neither needs the other, nor that nothing stands between them: a body that was changed on the way is
no more the one whose forms they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from typing import TypeAlias

    from perf_middleware.asgi import Message, Scope

    CodedHead: TypeAlias = tuple[
        bytes, list[tuple[bytes, bytes]], list[tuple[bytes, bytes]], str | None
    ]

WANTED: Final = "perf_middleware.forms_wanted"
"""Key of a scope: from how many bytes on a body's forms are of use."""
FORMS: Final = "perf_middleware.forms"
"""Key of a body message that comes from the store."""
NEW_FORMS: Final = "perf_middleware.new_forms"
"""The same of a body that was stored just now: its answer is no hit yet."""


class Forms(Protocol):
    """The coded forms of one stored body, as long as that is stored."""

    coded_head: CodedHead | None
    """The form that was sent last, the head that was to go with it, the head that went, and its
    coding where no better form of it will be made, else None.  It is the same again for all who
    come within one second: only its Age changes.  None again when a better form is being made, and
    when that is there.
    """

    @property
    def body(self) -> bytes:
        """The very object that the message carries."""

    def get(self, coding: str) -> bytes | None:
        """The form in this coding, where there is one."""

    def ask(self, coding: str) -> int:
        """Note that this coding was asked for once more; how often by now, 0: there is no room."""

    def claim(self, coding: str, effort: str) -> None:
        """The body is being encoded with this effort, for all later answers."""

    def is_claimed(self, coding: str, effort: str) -> bool:
        """Whether it was, or is."""

    def remember(self, coding: str, coded: bytes) -> None:
        """A form that was made just now; one that is longer than what is there is let go."""


def forms_of(message: Message, scope: Scope, key: str) -> Forms | None:
    """The forms of the body in `message`; None where something between has put in another body.

    A layer between may have made its own message of that body, then the scope has them.
    """
    forms: Forms | None = message.get(key) or scope.get(key)
    return forms if forms is not None and forms.body is message.get("body") else None

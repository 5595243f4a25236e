"""When a stored body earns another encoding: pure, from how often a coding was asked for.

    a hit without a form     sent in another coding, or plain; encoded behind it as in a hurry
    further hits             that form, or that of the answer that was stored
    the ASKED_MIN-th         encoded behind it once more, harder: the form for keeping

So what few ask for costs little, and no hit waits for a codec.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

ASKED_MIN: Final = 8  # a level for keeping takes 2 to 30 times as long as one in a hurry
KEPT_LEVEL_BYTES_MAX: Final = 256 * 1024
"""Of a larger body the level for keeping takes too long: br 10 half a second for a megabyte."""

Effort: TypeAlias = Literal["hurried", "kept"]


def earned(asked: int, *, has_form: bool) -> Effort | None:
    """What is to be made behind the answer that asked for a coding the `asked`-th time."""
    if asked >= ASKED_MIN:
        return "kept"
    return None if has_form or not asked else "hurried"

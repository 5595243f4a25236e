"""When a stored body earns another encoding: pure, from how often a coding was asked for.

    1st hit in a coding      no form yet: sent in another one, or plain; encoded behind the answer
    later hits               that form
    ASKED_MIN-th hit         the form of the first answer, made in a hurry, is made anew, harder

A body is so encoded once for each coding while it is stored, besides by its first answer.
"""

from __future__ import annotations

from typing import Final

ASKED_MIN: Final = 8  # a level for keeping takes 2 to 30 times as long as one in a hurry
KEPT_LEVEL_BYTES_MAX: Final = 256 * 1024
"""Of a larger body the level for keeping takes too long: br 10 half a second for a megabyte."""


def earns_encoding(asked: int, *, has_form: bool) -> bool:
    """Whether the body is to be encoded behind the answer that asked for it the `asked`-th time."""
    return asked >= ASKED_MIN or not has_form

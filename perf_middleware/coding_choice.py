"""What an endpoint has chosen for the codings of its answers, and how a stored answer keeps it.

The layer that encodes reads the choice from the endpoint that the router found.  An answer from the
cache has met no router: the cache keeps the choice beside it and tells it with each hit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from perf_middleware.endpoint_marks import mark_on

ATTRIBUTE: Final = "__perf_coding_choice__"
CHOSEN: Final = "perf_middleware.coding_choice"
"""Key of a scope and of a start message: two ways, for a layer between may copy either."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What holds for one route."""

    encode: bool = True
    hide_length: bool = False


def choice_of(endpoint: Any, method: str) -> Choice | None:
    """What the endpoint that the router found has chosen for this method."""
    choice = mark_on(endpoint, method, ATTRIBUTE)
    return choice if isinstance(choice, Choice) else None

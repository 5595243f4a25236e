"""The mark on a request that warming sends: by it the cache tells it from a client's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from perf_middleware.caching.warming.figures import Outcome

WARMING: Final = "perf_middleware.warming"
"""Its key in an ASGI scope, where no client can write."""
SPARED: Final = frozenset({302, 303, 307, 401, 403, 407, 429})
"""What an app says to nobody in particular, a way to its login too: it shows nothing of what is
stored for others.
"""


class Asked:
    """What the cache is to do with one request of warming's, and what has come of it.

    What is stored and stays fresh for longer than `margin_us` is left as it is.  `outcome` stays
    None where the request did not come as far as the cache.  `was_overtaken`: it is not stored, and
    something was purged while the app was asked.
    """

    __slots__ = ("is_over", "margin_us", "outcome", "primary", "was_overtaken", "why")

    def __init__(self, margin_us: int = 0) -> None:
        self.margin_us = margin_us
        self.outcome: Outcome | None = None
        self.why = ""
        self.primary = b""
        self.was_overtaken = False
        self.is_over = False

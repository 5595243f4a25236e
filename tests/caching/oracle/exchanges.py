"""What happened on both sides of a cache: the facts that the oracle judges.

    client --- Served --- [ cache ] --- Exchanged --- app

Times are Unix seconds of one clock that the driver moves.  Ticks count the driver's events, so that
"before" is known where the clock stands still.  Every answer of the app carries a field that no
other answer has (`x-answer-17`), and says its number in its body: what a client gets names all the
answers that it is made of, also after a 304 renewed the head of a stored response.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import NamedTuple

Headers = list[tuple[bytes, bytes]]

TRACE = b"x-answer-"
_SAYS_ITS_NUMBER = re.compile(rb"answer (\d+) ")


class Target(NamedTuple):
    """The target URI, as the app's server saw it."""

    scheme: str
    host: bytes
    path: bytes
    """The path as it was sent, and the query with its question mark."""


@dataclass(slots=True)
class Exchanged:
    """One call of the app, filled in while it answers."""

    number: int
    """Its place in the history."""
    request: int
    """Number of the client's request for which the app was called."""
    began: int
    at_s: float
    asked_s: float
    """When the client's request came to the cache."""
    method: str
    target: Target
    request_headers: Headers
    """As the app saw them: the cache may have added conditions."""
    request_body: bytes = b""
    status: int | None = None
    """None: the app raised, or has said nothing yet."""
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    trailers: Headers | None = None
    others: list[dict[str, object]] = field(default_factory=list)
    """Messages of ASGI extensions: early hints, pathsend."""
    complete: bool = False
    """The whole body came, and is as long as the app said."""
    raised: bool = False
    finished_s: float | None = None
    ended: int | None = None

    @property
    def failed(self) -> bool:
        """What RFC 5861 §4 calls an error."""
        return self.status in {500, 502, 503, 504} or (self.status is None and self.raised)

    @property
    def renews(self) -> bool:
        """It may only update the head of another answer."""
        return self.method == "HEAD" or self.status == 304

    def overlaps(self, other: Exchanged) -> bool:
        """Both calls were under way at the same time."""
        ends = [math.inf if each.ended is None else each.ended for each in (self, other)]
        return self.began < ends[1] and other.began < ends[0]


@dataclass(slots=True)
class Served:
    """What a client asked, and what it got."""

    number: int
    began: int
    at_s: float
    method: str
    target: Target
    request_headers: Headers
    request_body: bytes = b""
    status: int | None = None
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    trailers: Headers | None = None
    others: list[dict[str, object]] = field(default_factory=list)
    answered_s: float | None = None
    complete: bool = False
    cut: bool = False
    """The client left before the end."""
    raised: BaseException | None = None
    disorder: list[str] = field(default_factory=list)
    """Messages that ASGI does not allow where they came."""
    app_calls: tuple[int, ...] = ()
    """Numbers of the app's answers to this very request."""


def traced(served: Served, history: list[Exchanged]) -> list[Exchanged]:
    """The app's answers that `served` is made of, oldest first; [] where it names none.

    What renews comes behind what is renewed, in the order in which the answer names them: two that
    overlap may have been taken in either order, and then all of what they say goes by that one.
    """
    prefix = len(TRACE)
    numbers = [
        int(name[prefix:])
        for name, _ in served.headers
        if name.startswith(TRACE) and name[prefix:].isdigit()
    ]
    if not numbers:
        said = _SAYS_ITS_NUMBER.search(served.body)
        numbers = [int(said[1])] if said else []
    sources = [history[number] for number in dict.fromkeys(numbers) if number < len(history)]
    return sorted(sources, key=lambda exchanged: exchanged.renews)

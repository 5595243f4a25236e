"""What to ask, and in which order: values in, a list out.

    your URLs ---- x variants --.
    your functions' URLs --------+-- each once, at most `asks_max` --> asked as they come
    the last run's hottest ------'   (these when there is nothing else to ask)

An Ask is one GET as a client would send it: what is warmed answers those who send the same Host,
and the same values of the fields that the answer varies by.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

from perf_middleware.caching.fields import CREDENTIALS
from perf_middleware.caching.invalidation import split_url
from perf_middleware.caching.special import BODY, CONDITIONAL, DIRECTIVES, PARTIAL, PRECONDITIONS
from perf_middleware.caching.syntax.lists import is_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

VARIANTS_MAX: Final = 64  # of each URL: more are a mistake in a setting
USER_AGENT: Final = b"perf_middleware-warming"
OWN: Final = (
    frozenset({b"host", b"user-agent"}) | BODY | CONDITIONAL | DIRECTIVES | PARTIAL | PRECONDITIONS
)
"""What no variant may set: it would ask for something else, or for nothing that can be stored."""
TEXT: Final = ("utf-8", "surrogateescape")

Fields: TypeAlias = "tuple[tuple[bytes, bytes], ...]"


@dataclass(frozen=True, slots=True)
class Ask:
    """One GET: `path` as it is sent, `fields` beside Host."""

    scheme: str
    host: bytes
    path: bytes
    query: bytes = b""
    fields: Fields = ()
    root_path: str = ""

    @property
    def url(self) -> str:
        """For logs: without the query, which may hold what is nobody's business."""
        return f"{self.scheme}://{self.host.decode(*TEXT)}{self.path.decode(*TEXT)}"

    def scope(self) -> dict[str, Any]:
        """Its ASGI scope; no client's address, for there is none to be trusted."""
        # As servers do it: what is no UTF-8 is replaced.
        path = unquote_to_bytes(self.path).decode("utf-8", "replace")
        host, port = _host_and_port(self.host.decode(*TEXT))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": self.scheme,
            "path": path,
            "raw_path": self.path,
            "query_string": self.query,
            "root_path": self.root_path,
            "headers": [
                (b"host", self.host),
                (b"user-agent", USER_AGENT),
                # So that no cache between answers it; ours takes it out again.
                (b"cache-control", b"no-cache"),
                *self.fields,
            ],
            "client": None,
            "server": (host, port or (443 if self.scheme == "https" else 80)),
            "extensions": {},
        }


@dataclass(frozen=True, slots=True)
class Base:
    """Where clients find the app: scheme and host, and the root path below which it is served."""

    scheme: str
    host: bytes
    root_path: str = ""

    @classmethod
    def of(cls, url: str) -> Base:
        """Raises ValueError for what is no `https://host` or `https://host/root`."""
        scheme, host, path, query = split_url(url)
        if host is None or query:
            raise ValueError(f"{url!r} must be scheme and host, as https://shop.example")
        return cls(scheme, host, path.decode(*TEXT).rstrip("/"))


def _host_and_port(host: str) -> tuple[str, int]:
    """`shop.example:8080` and `[::1]:8080` in two; port 0 where there is none."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, ""
    return name.strip("[]"), int(port) if port.isdigit() else 0


def ask_of(url: str, fields: Fields = (), *, base: Base | None) -> Ask:
    """`url` as it is sent: `/path?query` below `base`, or with scheme and host.

    Raises ValueError for what is neither, and for a path where there is no base.
    """
    scheme, host, path, query = split_url(url)
    if not (path + query).isascii() or any(byte <= 0x20 for byte in path + query):
        raise ValueError(f"{url!r} must be written as it is sent: escape what is not ASCII")
    root = "" if base is None else base.root_path
    if host is not None:
        is_below = path == root.encode() or path.startswith(root.encode() + b"/")
        return Ask(scheme, host, path, query, fields, root if is_below else "")
    if base is None:
        raise ValueError(f"{url!r} has no host: set warming.base_url, what is stored is by host")
    return Ask(base.scheme, base.host, root.encode() + path, query, fields, root)


def variants_of(vary: Mapping[str, Sequence[str]]) -> tuple[Fields, ...]:
    """Every combination of these values of request fields; one without any where there are none.

    An empty value stands for a request without the field.  Raises ValueError for what no client
    sends, for what says who asks, and for more than VARIANTS_MAX.
    """
    names = []
    for name, values in vary.items():
        low = name.lower().encode("utf-8", "replace")
        if not is_token(low) or not values:
            raise ValueError(f"{name!r} must be the name of a request header, with its values")
        if low in CREDENTIALS or low in OWN:
            raise ValueError(f"{name!r} tells no variants apart: warming asks as nobody")
        for value in values:
            if not value.isascii() or not (value.isprintable()):
                raise ValueError(f"{name!r} has a value that no client can send")
        names.append(low)
    combined = tuple(
        tuple((name, value.encode()) for name, value in zip(names, values, strict=True) if value)
        for values in product(*vary.values())
    )
    if len(combined) > VARIANTS_MAX:
        raise ValueError(f"{len(combined)} variants of each URL are more than {VARIANTS_MAX}")
    return combined


class Agenda:
    """What one run has to ask, each once: what was added as `last` when there is nothing else.

    At most `asks_max` are handed out.
    """

    def __init__(self, asks_max: int) -> None:
        self._asks_max = asks_max
        self._known: set[Ask] = set()
        self._first: deque[Ask] = deque()
        self._last: deque[Ask] = deque()
        self._taken = 0

    @property
    def planned(self) -> int:
        """How many were added, handed out or not."""
        return len(self._known)

    @property
    def is_full(self) -> bool:
        """Whether what is added now is never handed out."""
        return self._taken + len(self._first) >= self._asks_max

    def add(self, asks: Iterable[Ask], *, last: bool = False) -> None:
        """Put those that are not known yet behind the others."""
        for ask in asks:
            if ask not in self._known:
                self._known.add(ask)
                (self._last if last else self._first).append(ask)

    def take(self) -> Ask | None:
        """The next one; None where there is none, for now or for ever."""
        if self._taken >= self._asks_max:
            return None
        for pending in (self._first, self._last):
            if pending:
                self._taken += 1
                return pending.popleft()
        return None


def spread_s(interval_s: float, draw: float) -> float:
    """The time until the next run: within a tenth of `interval_s`, by a `draw` from 0 to 1.

    Processes that were started together do not ask together for ever.
    """
    return interval_s * (0.9 + 0.2 * draw)

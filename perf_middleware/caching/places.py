"""Where stored responses are found in a store for all processes: names of records and indexes.

Names are readable, as far as that is short and tells no secret: of a long one, and of what may be a
credential that tells variants apart, only a digest is kept.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Final

from perf_middleware.caching.invalidation import path_of
from perf_middleware.caching.selection import ABSENT, secondary_key
from perf_middleware.fleet.layout import VARIES_BYTES_MAX, told_field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perf_middleware.caching.runtime.request import CacheRequest
    from perf_middleware.path_patterns import PathPattern

URL: Final = b"u:"
BARE: Final = b"q:"
"""Of what stands for a path with any query."""
TAG: Final = b"t:"
NAME_BYTES_MAX: Final = 512
PART_BYTES_MAX: Final = 48
SHOWN: Final = frozenset({b"accept", b"accept-charset", b"accept-encoding", b"accept-language"})
FIELDS_TOLD_MAX: Final = 64  # of a request, to a store that chooses among variants by itself
FIELD_NAME_BYTES_MAX: Final = 128  # what varies by a longer one is not stored there
USUAL_LINE_BYTES_MAX: Final = 256
USUAL_MAX: Final = 1_000  # of those lines
USUAL: Final = SHOWN | {
    b"host", b"user-agent", b"connection", b"cache-control", b"pragma", b"priority", b"dnt", b"te",
    b"origin", b"upgrade-insecure-requests", b"x-forwarded-host", b"x-forwarded-port",
    b"x-forwarded-proto", b"x-requested-with", b"sec-fetch-dest", b"sec-fetch-mode",
    b"sec-fetch-site", b"sec-fetch-user", b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform",
}  # fmt: skip
"""Fields whose lines come again and again, and are nobody's secret."""
_DIGEST: Final = b"#"


def record_key(primary: bytes) -> bytes:
    """The name of the record of a URL."""
    return primary if len(primary) <= NAME_BYTES_MAX else _digested(primary)


def place_of(target: bytes) -> bytes:
    """What a purge by URL knows of every response that it concerns: the path alone."""
    return path_of(target).partition(b"?")[0]


def index_name(kind: bytes, name: bytes) -> bytes:
    return kind + (name if len(name) <= NAME_BYTES_MAX else _digested(name))


def matches_index(pattern: PathPattern, name: bytes) -> bool:
    """Whether responses of this index may have a path that `pattern` matches."""
    path = name.removeprefix(URL)
    if path.startswith(_DIGEST):
        return True
    return pattern.matches(path.partition(b"?")[0].decode("utf-8", "replace"))


def parts_of(names: Sequence[bytes], fields: Mapping[bytes, Sequence[bytes]]) -> list[bytes] | None:
    """This request's part of the secondary key for each name; None where one of them, or what they
    are together, is too long.
    """
    if sum(map(len, names)) + len(names) > VARIES_BYTES_MAX:
        return None
    parts = []
    for name in names:
        part = _part_of(name, fields)
        if part is None or len(name) > FIELD_NAME_BYTES_MAX:
            return None
        parts.append(part)
    return parts


def told_of(fields: Mapping[bytes, Sequence[bytes]]) -> tuple[bytes, bool]:
    """The same for every field that there is, as a store is told them (`told_field`), and whether
    these are all: they are bounded in number and length.
    """
    told = []
    for name, lines in islice(fields.items(), FIELDS_TOLD_MAX):
        if name in USUAL and len(lines) == 1 and len(lines[0]) <= USUAL_LINE_BYTES_MAX:
            told.append(_told_usual(name, lines[0]))
        elif len(name) <= FIELD_NAME_BYTES_MAX:
            told.append(told_field(name, _part_of(name, fields) or b""))
    return b"".join(told), len(told) == len(fields)


class AskedBy:
    """A request as a store for all processes is told of it; nothing is worked out before it asks
    (layout.Asking).
    """

    __slots__ = ("_request",)

    def __init__(self, request: CacheRequest) -> None:
        self._request = request

    def parts_of(self, names: tuple[bytes, ...]) -> list[bytes] | None:
        return parts_of(names, self._request.lines)

    def told(self) -> tuple[bytes, bool]:
        return told_of(self._request.lines)


@lru_cache(maxsize=USUAL_MAX)
def _told_usual(name: bytes, line: bytes) -> bytes:
    return told_field(name, _part_of(name, {name: (line,)}) or b"")


def _part_of(name: bytes, fields: Mapping[bytes, Sequence[bytes]]) -> bytes | None:
    part = secondary_key((name,), fields)
    if part is None or part == ABSENT or (name in SHOWN and len(part) <= PART_BYTES_MAX):
        return part
    return _digested(part)


def _digested(name: bytes) -> bytes:
    return _DIGEST + blake2b(name, digest_size=20).hexdigest().encode()

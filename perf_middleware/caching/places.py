"""Where stored responses are found in a store for all processes: names of records and indexes.

Names are readable, as far as that is short and tells no secret: of a long one, and of what may be a
credential that tells variants apart, only a digest is kept.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from perf_middleware.caching.invalidation import path_of
from perf_middleware.caching.selection import ABSENT, secondary_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perf_middleware.path_patterns import PathPattern

URL: Final = b"u:"
BARE: Final = b"q:"
"""Of what stands for a path with any query."""
TAG: Final = b"t:"
NAME_BYTES_MAX: Final = 512
PART_BYTES_MAX: Final = 48
SHOWN: Final = frozenset({b"accept", b"accept-charset", b"accept-encoding", b"accept-language"})
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
    """This request's part of the secondary key for each name; None where one is too long."""
    parts = []
    for name in names:
        part = secondary_key((name,), fields)
        if part is None:
            return None
        is_shown = name in SHOWN and len(part) <= PART_BYTES_MAX
        parts.append(part if is_shown or part == ABSENT else _digested(part))
    return parts


def _digested(name: bytes) -> bytes:
    return _DIGEST + blake2b(name, digest_size=20).hexdigest().encode()

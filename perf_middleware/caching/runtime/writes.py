"""What a successful write makes invalid (RFC 9111 §4.4, RFC 9875 §3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.asgi import raw_path
from perf_middleware.caching.fields import collect
from perf_middleware.caching.invalidation import (
    TEXT,
    origin_of,
    pointed_targets,
    root_of,
    target_of,
)
from perf_middleware.caching.syntax.structured import parse_string_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perf_middleware.asgi import Scope
    from perf_middleware.caching.runtime import ResponseCache

POINTERS: Final = frozenset({b"location", b"content-location", b"cache-group-invalidation"})


def written(cache: ResponseCache, scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Invalidate the target of a request that has succeeded, and what its answer points to."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    lines = collect(headers, POINTERS)
    scheme = scope.get("scheme", "http")
    path = raw_path(scope)
    query = scope.get("query_string", b"")
    root = root_of(scope)
    targets = [target_of(scheme, host, path, query, root=root)]
    # As it was sent: `a%2Fb` is one segment for what is relative to it.
    url = b"%b://%b%b?%b" % (scheme.encode(), host, path, query)
    targets += pointed_targets(url.decode(*TEXT), lines, root=root)
    cache.invalidate_targets(targets)
    groups = lines.get(b"cache-group-invalidation")
    if groups:
        _invalidate_groups(cache, parse_string_list(groups) or (), origin_of(targets[0]))


def _invalidate_groups(cache: ResponseCache, groups: Sequence[str], origin: bytes) -> None:
    """What is in one of these groups of `origin`: a name means nothing to others (RFC 9875 §2)."""
    wanted = frozenset(groups)
    cache.purges.note(
        lambda target, tags: not wanted.isdisjoint(tags) and origin_of(target) == origin
    )
    found = {
        entry.key: entry
        for group in groups
        for entry in cache.store.of_tag(group)
        if origin_of(entry.target) == origin
    }
    cache.invalidate(found.values(), soft=False)

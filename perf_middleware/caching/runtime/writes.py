"""What a successful write makes invalid (RFC 9111 §4.4, RFC 9875 §3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

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
    from collections.abc import Iterable

    from perf_middleware.asgi import Scope
    from perf_middleware.caching.runtime import ResponseCache

POINTERS: Final = frozenset({b"location", b"content-location", b"cache-group-invalidation"})


@dataclass(frozen=True, slots=True)
class Written:
    """What one write has made invalid."""

    targets: frozenset[tuple[bytes, bool]]
    groups: tuple[str, ...]
    origin: bytes


def written(cache: ResponseCache, scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> Written:
    """Invalidate the target of a request that has succeeded, and what its answer points to.

    In the memory of this process.
    """
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
    groups = parse_string_list(lines.get(b"cache-group-invalidation", ())) or ()
    what = Written(
        frozenset((target, False) for target in targets), tuple(groups), origin_of(targets[0])
    )
    invalidate_here(cache, what)
    return what


def invalidate_here(cache: ResponseCache, what: Written) -> None:
    """A group is one of its origin: its name means nothing to others (RFC 9875 §2)."""
    cache.purging.wanted_here(what.targets, soft=False)
    if not what.groups:
        return
    concerns = cache.purging.note_tags(what.groups, origin=what.origin)
    found = {
        entry.key: entry
        for group in what.groups
        for entry in cache.store.of_tag(group)
        if concerns(entry.target, entry.tags)
    }
    cache.purging.entries(found.values(), soft=False)


async def invalidate_for_all(cache: ResponseCache, what: Written) -> None:
    """The same in the store that all processes share; what began here is finished."""
    shared = cache.shared
    if shared is None:
        return
    with anyio.CancelScope(shield=True):
        await shared.purge_targets(what.targets, soft=False)
        if what.groups:
            await shared.purge_tags(what.groups, soft=False, origin=what.origin)
        invalidate_here(cache, what)

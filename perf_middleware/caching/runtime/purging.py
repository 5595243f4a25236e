"""Invalidating what is stored: in the memory of this process, and in all others.

Memory first, so that it holds from here on; then the store that all share, which tells the others;
then memory once more, for what came back from the shared store meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from perf_middleware.caching.invalidation import origin_of, path_of, target_of_url
from perf_middleware.caching.purges import Concerns, concerning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.stored import StoredResponse
    from perf_middleware.path_patterns import PathPattern

PURGED_AT_ONCE: Final = 250  # about 3 ms


class Purging:
    """The purges of one cache; each tells how many stored responses there were."""

    def __init__(self, cache: ResponseCache) -> None:
        self._cache = cache

    # --- in memory and for all ------------------------------------------------------------------

    async def url(self, url: str, *, soft: bool) -> int:
        """Raises ValueError for what is no URL."""
        wanted = self.wanted([url])
        here = self.wanted_here(wanted, soft=soft)
        shared = self._cache.shared
        if shared is None:
            return here
        everywhere = await shared.purge_targets(wanted, soft=soft)
        self.wanted_here(wanted, soft=soft)
        return max(here, everywhere)

    async def tags(self, tags: tuple[str, ...], *, soft: bool) -> int:
        here = await self._tags_here(tags, soft)
        shared = self._cache.shared
        if shared is None or not tags:
            return here
        everywhere = await shared.purge_tags(tags, soft=soft)
        await self._tags_here(tags, soft)
        return max(here, everywhere)

    async def matching(self, pattern: PathPattern, *, soft: bool) -> int:
        here = await self._matching_here(pattern, soft)
        shared = self._cache.shared
        if shared is None:
            return here
        everywhere = await shared.purge_pattern(pattern, soft=soft)
        await self._matching_here(pattern, soft)
        return max(here, everywhere)

    async def everything(self, *, soft: bool) -> int:
        here = await self._everything_here(soft)
        shared = self._cache.shared
        if shared is None:
            return here
        everywhere = await shared.purge_everything(soft=soft)
        await self._everything_here(soft)
        return max(here, everywhere)

    def tags_at_once(self, tags: Iterable[str]) -> int:
        """The same by tag in memory, in one step: for who cannot wait."""
        wanted = tuple(tags)
        self.note_tags(wanted)
        store = self._cache.store
        found = {entry.key: entry for tag in wanted for entry in store.of_tag(tag)}
        return self.entries(found.values(), soft=False)

    def owe_tags(self, tags: Iterable[str]) -> None:
        """Let the store that all share hear of a purge by tag when it is used next."""
        shared = self._cache.shared
        if shared is not None:
            shared.purges.owe(("tags", (tuple(tags), b""), False), why="a purge could not be told")

    # --- in memory ------------------------------------------------------------------------------

    def wanted(self, targets: Iterable[bytes | str]) -> set[tuple[bytes, bool]]:
        """The targets, and whether of any host; URLs also as clients see them, below a root."""
        wanted: set[tuple[bytes, bool]] = set()
        for target in targets:
            if isinstance(target, bytes):
                wanted.add((target, False))
            else:
                wanted |= {target_of_url(target, root=root) for root in {b"", *self._cache.roots}}
        return wanted

    def wanted_here(self, wanted: Iterable[tuple[bytes, bool]], *, soft: bool) -> int:
        """Invalidate what is stored of these targets, in each of its variants."""
        cache = self._cache
        count = 0
        for target, any_host in wanted:
            cache.purges.note(concerning(target, any_host=any_host))
            look_up = cache.store.of_path if any_host else cache.store.of_target
            found = look_up(target)
            path, query, _ = target.partition(b"?")
            if query:
                found += [entry for entry in look_up(path) if entry.is_of_any_query]
            count += self.entries(found, soft=soft)
        return count

    def note_tags(self, tags: Iterable[str], *, origin: bytes = b"") -> Concerns:
        """Remember a purge by tag, of one origin where it is given, before it is begun."""
        wanted = frozenset(tags)

        def concerns(target: bytes, own: tuple[str, ...]) -> bool:
            return not wanted.isdisjoint(own) and (not origin or origin_of(target) == origin)

        self._cache.purges.note(concerns)
        return concerns

    def note_pattern(self, pattern: PathPattern) -> Concerns:
        """The same by a pattern over paths."""

        def concerns(target: bytes, _tags: tuple[str, ...]) -> bool:
            path = path_of(target).partition(b"?")[0]
            return pattern.matches(path.decode("utf-8", "replace"))

        self._cache.purges.note(concerns)
        return concerns

    async def keys(
        self, keys: Iterable[bytes], *, soft: bool, concerns: Concerns | None = None
    ) -> int:
        """In slices, so that no purge holds the event loop up; what is begun is finished."""
        cache = self._cache
        count = 0
        listed = list(dict.fromkeys(keys))
        with anyio.CancelScope(shield=True):
            for start in range(0, len(listed), PURGED_AT_ONCE):
                if start:
                    await anyio.lowlevel.checkpoint()
                found = cache.store.stored(listed[start : start + PURGED_AT_ONCE])
                if concerns is not None:
                    found = [entry for entry in found if concerns(entry.target, entry.tags)]
                count += self.entries(found, soft=soft)
        return count

    async def all_here(self) -> int:
        """Nothing is stored from the first step on; it is freed in slices, as in `keys`."""
        count, gone = self._cache.store.clear()
        self._cache.figures.invalidated += count
        await self.free(gone)
        return count

    async def free(self, gone: Iterable[StoredResponse]) -> None:
        """Tell the hooks of what has left the store, and free it, in slices."""
        cache = self._cache
        with anyio.CancelScope(shield=True):
            for number, stored in enumerate(gone, 1):
                cache.tell("invalidate", stored)
                if number % PURGED_AT_ONCE == 0:
                    await anyio.lowlevel.checkpoint()

    def entries(self, found: Iterable[StoredResponse], *, soft: bool) -> int:
        """Invalidate these, and tell the hooks."""
        cache = self._cache
        count = 0
        now_us = cache.clock()
        for entry in found:
            if soft:
                entry.make_stale(now_us)
            else:
                cache.store.drop(entry.key)
            count += 1
            cache.tell("invalidate", entry)
        cache.figures.invalidated += count
        return count

    async def _tags_here(self, tags: tuple[str, ...], soft: bool) -> int:
        self.note_tags(tags)
        store = self._cache.store
        return await self.keys([key for tag in tags for key in store.keys(tag)], soft=soft)

    async def _matching_here(self, pattern: PathPattern, soft: bool) -> int:
        concerns = self.note_pattern(pattern)
        return await self.keys(self._cache.store.keys(), soft=soft, concerns=concerns)

    async def _everything_here(self, soft: bool) -> int:
        self._cache.purges.note(lambda _target, _tags: True)
        if soft:
            return await self.keys(self._cache.store.keys(), soft=True)
        return await self.all_here()

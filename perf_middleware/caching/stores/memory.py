"""Stored responses in this process's memory, found by key, by URL and by tag.

Everything here is synchronous and O(1) for each entry that it touches.  Not thread-safe: it
belongs to the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

from perf_middleware.caching.eviction import BoundedCache
from perf_middleware.caching.expiry import Expiry
from perf_middleware.caching.invalidation import path_of
from perf_middleware.caching.stored import StoredResponse
from perf_middleware.caching.variants import Variants, names_in, united

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from perf_middleware.caching.forms import CodedForms

N = TypeVar("N", bytes, str)
EXPIRED_AT_ONCE_MAX = 32  # at each store: more than come in, and no stall
Found: TypeAlias = StoredResponse | Variants


class MemoryStore:
    """At most `bytes_max` bytes and `entries_max` responses; the least asked for go first.

    A record of variants is held until the last of them leaves.
    """

    def __init__(self, *, bytes_max: int, entries_max: int, now_us: int) -> None:
        self._expiry: Expiry[bytes] = Expiry(now_us=now_us)
        self._entries: BoundedCache[bytes, Found] = BoundedCache(
            bytes_max=bytes_max, entries_max=entries_max, on_evict=self._forget
        )
        # Most have a path of their own: its one key, without a set around it.
        self._by_path: dict[bytes, bytes | set[bytes]] = {}
        self._by_tag: dict[str, set[bytes]] = {}
        self._varied: dict[bytes, int] = {}  # the paths, as they are sent, that have variants
        self.responses = 0
        # The hot path: one call less.
        self.get: Callable[[bytes], Found | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        return self._entries.size_bytes

    @property
    def bytes_max(self) -> int:
        return self._entries.bytes_max

    @property
    def room_bytes(self) -> int:
        """What may be held now: `bytes_max`, or less after `shrink`."""
        return self._entries.room_bytes

    @property
    def evictions(self) -> int:
        return self._entries.evictions

    def is_varied(self, path: bytes | None) -> bool:
        """Whether a URL with this path, as it is sent, may have variants; None: one unknown."""
        return path is None or path in self._varied

    def peek(self, key: bytes) -> Found | None:
        """What is under `key`, without counting that it was asked for."""
        return self._entries.peek(key)

    def select(
        self, primary: bytes, fields: Mapping[bytes, Sequence[bytes]]
    ) -> StoredResponse | None:
        """The stored response of `primary` that fits a request with these fields."""
        found = self.get(primary)
        if isinstance(found, Variants):
            key = found.key_for(fields)
            found = self.get(key) if key is not None else None
        return found if isinstance(found, StoredResponse) else None

    def key_of(
        self,
        primary: bytes,
        names: tuple[bytes, ...],
        fields: Mapping[bytes, Sequence[bytes]],
    ) -> bytes | None:
        """The key under which a response that varies by `names` is to be put.

        None where it cannot be told apart from others (too many fields, too long values).
        """
        record = self._entries.peek(primary)
        known = record.names if isinstance(record, Variants) else ()
        both = united(known, names)
        if both is None:
            return None
        if not both:
            return primary
        if not isinstance(record, Variants) or both != known:
            record = Variants(primary, both)
        return record.key_for(fields)

    def put(self, stored: StoredResponse, *, now_us: int) -> bool:
        """Keep `stored`, in place of what was under its key; False where it finds no room.

        Once it is in, its URL is told apart by the fields in its key (`key_of`): what was kept
        under fewer goes.  False too where they are fewer than those of a response that came before.
        """
        key, primary, entries = stored.key, stored.primary, self._entries
        if len(key) == len(primary) and entries.peek(primary) is None:
            return self.add(stored, now_us=now_us)
        if now_us >= self._expiry.next_us:
            self.expire(now_us)
        known = entries.peek(primary)
        names = names_in(key, primary)
        record = known if isinstance(known, Variants) else None
        if record is not None and not set(record.names).issubset(names):
            return False  # no way leads to this key any more
        if record is not None and record.names == names:
            record.keys.add(key)  # not empty now: it stays, whichever variant has to make room
        else:
            record = Variants(primary, names) if names else None
        old = entries.peek(key) if names else known
        if isinstance(old, StoredResponse):
            self._unlink(old)
        if not entries.put(key, stored, stored.size_bytes) or key not in entries:
            # Too large; or what left for it has led to others, and there is no room beside those.
            self._forget(key, stored)
            return False
        self._link(stored)
        if record is None:
            return True
        record.keys.add(key)
        self._lead_by(record, primary, key)
        return key in entries

    def add(self, stored: StoredResponse, *, now_us: int) -> bool:
        """The same of what is the first of its URL, as most are, and without variants."""
        if now_us >= self._expiry.next_us:
            self.expire(now_us)
        if not self._entries.add(stored.key, stored, stored.size_bytes):
            return False
        self._link(stored)
        return True

    def _lead_by(self, record: Variants, primary: bytes, key: bytes) -> None:
        """Let `record`, which leads to `key`, be what is found under `primary`."""
        known = self._entries.peek(primary)
        if known is not record:
            if known is not None:
                self.drop(primary)
            path = sent_path(primary)
            self._varied[path] = self._varied.get(path, 0) + 1
        if not self._entries.put(primary, record, record.size_bytes, held=True):
            if known is not record:
                self._varies_less(primary)
            self.drop(key)  # no way leads to it

    def _varies_less(self, primary: bytes) -> None:
        path = sent_path(primary)
        left = self._varied.pop(path) - 1
        if left:
            self._varied[path] = left

    def holds(self, stored: StoredResponse) -> bool:
        """Whether `stored` is what is kept under its key, and not a newer one."""
        return self._entries.peek(stored.key) is stored

    def grow(self, key: bytes, forms: CodedForms, more_bytes: int) -> bool:
        """Give the forms of what is under `key` more room; False where there is none.

        New ones become those of what is stored, if that is still their body.
        """
        stored = self._entries.peek(key)
        if not isinstance(stored, StoredResponse) or stored.body is not forms.body:
            return False
        if stored.forms is not forms and (stored.forms is not None or forms.size_bytes):
            return False  # others, of the same bytes object: an app may send one again and again
        size_bytes = stored.size_bytes + more_bytes
        if size_bytes > self.room_bytes:
            return False
        stored.forms = forms
        stored.size_bytes = size_bytes
        forms.size_bytes += more_bytes
        if self._entries.put(key, stored, size_bytes):
            return True
        self._forget(key, stored)
        return False

    def drop_this(self, stored: StoredResponse) -> None:
        """Let go of `stored`, and of nothing that has taken its place meanwhile."""
        if self.holds(stored):
            self.drop(stored.key)

    def drop(self, key: bytes) -> bool:
        """Let go of what is under `key`, a record with all of its variants."""
        found = self._entries.pop(key)
        if found is None:
            return False
        self._forget(key, found)
        return True

    def of_target(self, target: bytes) -> list[StoredResponse]:
        """Every stored response of one URL (`invalidation.target_of`)."""
        return [entry for entry in self.of_path(path_of(target)) if entry.target == target]

    def of_path(self, path: bytes) -> list[StoredResponse]:
        """The same of any host; `path` with its query."""
        keys = self._by_path.get(path, ())
        return self.stored((keys,) if isinstance(keys, bytes) else keys)

    def of_tag(self, tag: str) -> list[StoredResponse]:
        """Those with this tag, of any host."""
        return self.stored(self._by_tag.get(tag, ()))

    def keys(self, tag: str | None = None) -> list[bytes]:
        """The keys of everything, or of what has this tag."""
        return self._entries.keys() if tag is None else list(self._by_tag.get(tag, ()))

    def all(self) -> list[StoredResponse]:
        """Every stored response, variants too; takes as long as there are entries."""
        return self.stored(self._entries.keys())

    def clear(self) -> tuple[int, Iterator[StoredResponse]]:
        """Let go of everything in one step: how many stored responses there were, and which.

        Each is freed as the next is taken: that of many takes its time.
        """
        count, self.responses = self.responses, 0
        gone = _without_indexes(self._entries.clear(), self._by_path, self._by_tag)
        self._by_path, self._by_tag = {}, {}
        self._varied = {}
        self._expiry.clear()
        return count, gone

    def expire(self, now_us: int) -> None:
        """Let go of some that nobody may use any more; a bounded number at each call."""
        for key in self._expiry.due(now_us, EXPIRED_AT_ONCE_MAX):
            self.drop(key)

    def shrink(self, bytes_kept: int, *, entries: int) -> bool:
        """Let the least asked for go, see `BoundedCache.shrink`; False asks for another call."""
        return self._entries.shrink(bytes_kept, entries=entries)

    def grow_back(self) -> None:
        """Give back all the room that `shrink` has taken; from any thread."""
        self._entries.grow_back()

    def stored(self, keys: Iterable[bytes]) -> list[StoredResponse]:
        """Those stored responses that are there under these keys."""
        found = (self._entries.peek(key) for key in keys)
        return [entry for entry in found if isinstance(entry, StoredResponse)]

    def _link(self, stored: StoredResponse) -> None:
        self.responses += 1
        key = stored.key
        self._expiry.schedule(key, stored.useless_from_us)
        path, by_path = stored.path, self._by_path
        if path not in by_path:
            by_path[path] = key
        else:
            keys = by_path[path]
            if isinstance(keys, set):
                keys.add(key)
            elif keys != key:
                by_path[path] = {keys, key}
        for tag in stored.tags:
            self._by_tag.setdefault(tag, set()).add(key)

    def _unlink(self, stored: StoredResponse) -> None:
        key, path = stored.key, stored.path
        keys = self._by_path.get(path)
        if keys == key:
            del self._by_path[path]
        elif isinstance(keys, set) and key in keys:
            keys.discard(key)
            if not keys:
                del self._by_path[path]
        else:
            return  # done already, or never linked
        self.responses -= 1
        self._expiry.cancel(key)
        for tag in stored.tags:
            tagged = self._by_tag.get(tag)
            if tagged is not None:
                tagged.discard(key)
                if not tagged:
                    del self._by_tag[tag]

    def _forget(self, key: bytes, found: Found) -> None:
        """Clean the indexes after an entry that is gone already."""
        if isinstance(found, StoredResponse):
            self._unlink(found)
            if key == found.primary:
                return  # no record led to it
            record = self._entries.peek(found.primary)
            if isinstance(record, Variants):
                record.keys.discard(key)
                if record.keys:
                    self._entries.put(found.primary, record, record.size_bytes, held=True)
                elif self._entries.pop(found.primary) is not None:
                    self._varies_less(found.primary)
            return
        self._varies_less(key)
        for variant in list(found.keys):
            self.drop(variant)


def _without_indexes(
    taken: Iterable[Found], by_path: dict[bytes, bytes | set[bytes]], by_tag: dict[str, set[bytes]]
) -> Iterator[StoredResponse]:
    """The stored responses among `taken`, their places in the indexes freed beside them."""
    for found in taken:
        if isinstance(found, StoredResponse):
            by_path.pop(found.path, None)
            for tag in found.tags:
                by_tag.pop(tag, None)
            yield found


def sent_path(primary: bytes) -> bytes:
    """The path in a primary key, without what a rewrite, a query or a rule has put behind it."""
    path = primary.partition(b"\n")[2]
    for end in (b"\0", b"?", b"\n"):
        path = path.partition(end)[0]
    return path

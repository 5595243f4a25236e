"""What the hunt for leaks reads of the process: allocations, garbage, caches that fill.

The census runs beside the event loop, twice in an inquiry: 0.15 s for a million objects, in
turns with the loop, but for the 20 ms in which they are listed.  It calls no code of the app:
caches are known by their type, or by a bound that their `__init__` writes.
"""

from __future__ import annotations

import functools
import gc
import re
import sys
from collections import Counter, OrderedDict, deque
from heapq import nlargest
from time import perf_counter_ns
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from perf_middleware.memory_watch.leaks.verdict import FillingCache, GrowingType
from perf_middleware.memory_watch.probes.allocator import load_allocator
from perf_middleware.memory_watch.tracing.drivers.objects import (
    is_instance,
    module_globals,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

COST_NS_MAX: Final = 20_000  # of one reading on the loop's thread; dearer ones are left out
COSTLY_MAX: Final = 3
PAUSE_FACTOR: Final = 1_000  # two readings of a sample: 0.2 % of the time
BLOCKS_MAX: Final = 5_000_000  # of a process that is looked through
AT_ONCE: Final = 10_000  # objects that are counted before other threads may run
INSTANCES_MAX: Final = 1_000  # of a type that is looked at one by one: caches are few
CACHES_MAX: Final = 1_000
ENTRIES_MEASURED_MAX: Final = 500_000
SAMPLE: Final = 24  # newest entries that are measured
OBJECTS_OF_AN_ENTRY_MAX: Final = 200
ENTRY_OVERHEAD_BYTES: Final = 100  # its place in the table, and its link
TYPES_MAX: Final = 5
TYPE_MORE_MIN: Final = 50
LRU: Final = type(functools.lru_cache(lambda: None))
CONTAINERS: Final = (dict, OrderedDict, list, deque, set)
_BOUND_NAMES: Final = re.compile(
    r"(?:.*__|_*)(?:max_?size|max_?len|max_?entries|max_?items|entries_max|capacity)"
)
_NOT_ENTERED: Final = frozenset(
    {type(sys), type(lambda: None), type(sys.getsizeof), type(None)}  # everybody's
)


def malloc_reader() -> Callable[[], int] | None:
    """Bytes that malloc has given out; None where it does not tell (see probes/allocator.py)."""
    figures = load_allocator().figures
    return None if figures is None else lambda: figures().used_bytes


class InUse:
    """Reads blocks and malloc before and after a request: eight microseconds in a small process.

    Both walk through what they count: 3 million blocks take 140 us, 50,000 free chunks of malloc 8
    ms.  Where malloc's reading was dear three times it is left out for good and reads as None; and
    readings keep to a share of the time, by `is_affordable`.
    """

    __slots__ = ("_costly", "_malloc", "_next_ns")

    def __init__(self) -> None:
        self._malloc = malloc_reader()
        self._costly = self._next_ns = 0

    def is_affordable(self) -> bool:
        """Whether a thousand times as long as the last reading took has passed."""
        return perf_counter_ns() >= self._next_ns

    def __call__(self) -> tuple[int, int | None]:
        """Blocks of Python's allocator, and bytes of malloc."""
        began_ns = perf_counter_ns()
        blocks, given_out = sys.getallocatedblocks(), None
        blocks_ns = ended_ns = perf_counter_ns()
        if self._malloc is not None:
            given_out = self._malloc()
            ended_ns = perf_counter_ns()
            self._costly = self._costly + 1 if ended_ns - blocks_ns > COST_NS_MAX else 0
            if self._costly >= COSTLY_MAX:
                self._malloc = None
        self._next_ns = ended_ns + (ended_ns - began_ns) * PAUSE_FACTOR
        return blocks, given_out


def collect() -> tuple[int, int | None]:
    """What is given out after a whole collection of garbage, as `InUse` reads; it stops the app."""
    malloc = malloc_reader()
    gc.collect()
    return sys.getallocatedblocks(), None if malloc is None else malloc()


class _Look(NamedTuple):
    entries: int
    at_ns: int


class _Bounded:
    """One cache that knows its bound, held for the seconds of an inquiry."""

    __slots__ = ("_first", "_owner", "entries_max", "held")

    def __init__(self, owner: Any, held: Any, entries_max: int) -> None:
        self._owner = owner
        self.held = held
        self.entries_max = entries_max
        self._first = _Look(self.entries(), perf_counter_ns())

    def entries(self) -> int:
        return self.held.cache_info().currsize if type(self.held) is LRU else len(self.held)

    def filling(self) -> FillingCache | None:
        """How it fills since the first look; None where it does not, or is full."""
        now = _Look(self.entries(), perf_counter_ns())
        more = now.entries - self._first.entries
        if more <= 0 or now.entries >= self.entries_max:
            return None
        rate = more * 1e9 / max(1, now.at_ns - self._first.at_ns)
        size = self._entry_bytes(now.entries)
        return FillingCache(
            name=_name_of(self._owner, self.held),
            entries=now.entries,
            entries_max=self.entries_max,
            entries_per_s=rate,
            bytes_per_s=None if size is None else rate * size,
        )

    def _entry_bytes(self, entries: int) -> float | None:
        """The mean size of the newest entries with all that only they hold."""
        if entries > ENTRIES_MEASURED_MAX:
            return None
        if type(self.held) is LRU:
            # Keys and results, oldest first, then the table, then the function (lru_cache's
            # tp_traverse): the sizes of both lists tell how many references an entry has.
            found = gc.get_referents(self.held)
            function = getattr(self.held, "__wrapped__", None)
            end = next((i for i, each in enumerate(found) if each is function), len(found))
            found = [each for each in found[: max(0, end - 1)] if not issubclass(type(each), type)]
        else:
            held = self.held.each if type(self.held) is _Plain else self.held
            found = gc.get_referents(held)
        if not found:
            return 0.0
        per_entry = max(1, round(len(found) / max(1, entries)))
        newest = found[-SAMPLE * per_entry :]
        seen: set[int] = set()
        size = sum(_size_of(each, seen) for each in newest)
        return size * per_entry / len(newest) + ENTRY_OVERHEAD_BYTES


def _size_of(root: Any, seen: set[int]) -> int:
    total, waiting, left = 0, [root], OBJECTS_OF_AN_ENTRY_MAX
    while waiting and left:
        each = waiting.pop()
        if id(each) in seen or type(each) in _NOT_ENTERED or issubclass(type(each), type):
            continue
        seen.add(id(each))
        left -= 1
        try:
            total += sys.getsizeof(each)
        except Exception:  # noqa: BLE001 - a __sizeof__ of somebody's own
            total += 64
        waiting.extend(gc.get_referents(each))
    return total


class Census:
    """Python's objects at one moment: how many of each type, and the caches among them."""

    def __init__(self) -> None:
        self._types: Counter[type] = Counter()
        self._caches: list[_Bounded] = []
        if sys.getallocatedblocks() > BLOCKS_MAX:
            return
        objects = gc.get_objects()
        for start in range(0, len(objects), AT_ONCE):
            self._types.update(map(type, objects[start : start + AT_ONCE]))
        kinds = {
            kind
            for kind, count in self._types.items()
            if kind is LRU or kind is deque or (count <= INSTANCES_MAX and _may_be_cache(kind))
        }
        found = {id(each): each for each in objects if type(each) in kinds}
        del objects
        found.update((id(each), each) for each in _lru_caches_of_modules())
        bounded = (_bounded(each) for each in found.values())
        # The largest: a thousand short queues must not stand before the cache that fills memory.
        self._caches = nlargest(
            CACHES_MAX, (each for each in bounded if each is not None), key=_Bounded.entries
        )

    def filling(self) -> list[FillingCache]:
        """The caches that have filled since, and are not full."""
        return [filling for cache in self._caches if (filling := cache.filling()) is not None]

    def more_than(self, before: Census) -> tuple[GrowingType, ...]:
        """The types that have most more objects than `before`."""
        if not before._types:
            return ()
        more = [
            GrowingType(name=type_name(kind), more=count - before._types[kind])
            for kind, count in self._types.items()
            if count - before._types[kind] >= TYPE_MORE_MIN
        ]
        others = [each for each in more if not each.name.startswith(f"{__name__}.")]
        return tuple(sorted(others, key=lambda each: -each.more)[:TYPES_MAX])


def _may_be_cache(kind: type) -> bool:
    """Whether its `__init__` writes a bound.

    The instances of others are left alone: to look into an object's dictionary makes one, where
    the interpreter has not needed it so far.
    """
    if kind.__dictoffset__ == 0:
        return False
    for base in kind.__mro__:
        code = getattr(vars(base).get("__init__"), "__code__", None)
        if isinstance(code, CodeType) and any(map(_BOUND_NAMES.fullmatch, code.co_names)):
            return True
    return False


def _lru_caches_of_modules() -> Iterator[Any]:
    """After gc.freeze() what was made at import is no longer among the objects of the collector."""
    for _, _, value in module_globals():
        if type(value) is LRU:
            yield value
        elif is_instance(value, type):
            namespace = type.__getattribute__(value, "__dict__")
            yield from (each for each in list(namespace.values()) if type(each) is LRU)


def _bounded(each: Any) -> _Bounded | None:
    if type(each) is LRU:
        entries_max = each.cache_info().maxsize
        return None if not entries_max else _Bounded(each, each, entries_max)
    if type(each) is deque:
        return None if not each.maxlen else _Bounded(each, each, each.maxlen)
    try:
        attributes = object.__getattribute__(each, "__dict__")
    except AttributeError:
        return None
    bounds: Sequence[int] = [
        value
        for name, value in list(attributes.items())
        if type(value) is int and value > 0 and type(name) is str and _BOUND_NAMES.fullmatch(name)
    ]
    if not bounds:
        return None
    held = [value for value in list(attributes.values()) if type(value) in CONTAINERS]
    if is_instance(each, dict, list, deque):
        held.append(each)
    if not held:
        return None
    largest = max(held, key=_builtin_len)
    return _Bounded(each, _Plain(largest) if largest is each else largest, min(bounds))


def _builtin_len(each: Any) -> int:
    kinds: tuple[Any, ...] = (dict, list, deque, set)
    return next((int(kind.__len__(each)) for kind in kinds if is_instance(each, kind)), 0)


class _Plain:
    """A subclass of a container, counted without its own `__len__`."""

    __slots__ = ("each",)

    def __init__(self, each: Any) -> None:
        self.each = each

    def __len__(self) -> int:
        return _builtin_len(self.each)


def _name_of(owner: Any, held: Any) -> str:
    if type(owner) is LRU:
        return f"{getattr(owner, '__module__', '?')}.{getattr(owner, '__qualname__', '?')}"
    for module, key, value in module_globals():
        if value is owner or value is held:
            return f"{module}.{key}"
    return type_name(type(owner))

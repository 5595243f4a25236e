"""What each structure takes beside the plain type: bytes of memory and microseconds.

    python -m benchmarks.structures        # docs/structures.md has its figures

Each row is a process of its own: what it takes is what its resident memory grew by while the
entries were put in, by their number, so keys, allocators and all are in it.  Times are of the same
process, processor time by the number of entries; compare them within a table.

- `written`: putting an entry in, values made before (not for rows whose values are their objects)
- `read`: one look-up by key or index, in random order; `in order`: iterating over all of it
- `pause`: the longest single append
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import gc
import json
import random
import subprocess
import sys
import weakref
from array import array
from collections import OrderedDict
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from time import process_time_ns
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.runner import CheckError
from perf_middleware.memory_watch.structures.stores.chunked import ChunkedList
from perf_middleware.memory_watch.structures.stores.documents import CompressedJSONStore
from perf_middleware.memory_watch.structures.stores.lazy import LazyValue
from perf_middleware.memory_watch.structures.stores.lru import LRUCache
from perf_middleware.memory_watch.structures.stores.weak import WeakCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READS = 20_000
BLOCK = 16  # what is made ahead may lie between what is kept: little of it


@dataclass(frozen=True, slots=True)
class Row:
    """One way to keep the entries of a table."""

    name: str
    fill: Callable[[int], tuple[Any, float]]  # so many entries: what holds them, microseconds
    read: Callable[[Any, int], Any]
    in_order: Callable[[Any], Iterable[Any]] | None = None
    append: Callable[[Any, int], object] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    entries: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row's figures; None is what it does not do."""

    name: str
    entry_bytes: float
    written_us: float
    read_us: float
    in_order_us: float | None
    pause_ms: float | None


# --- the entries ---------------------------------------------------------------------------------


def small(number: int) -> dict[str, Any]:
    """A record of some 220 bytes of JSON; the same for the same number."""
    pick = random.Random(number)
    return {
        "id": number,
        "name": f"{pick.choice(('ann', 'bob', 'carl', 'dora'))}{pick.randrange(9_999)}",
        "email": f"user{pick.randrange(10**6)}@example.org",
        "active": pick.random() < 0.5,
        "score": round(pick.random() * 100, 2),
        "tags": pick.sample(("red", "green", "blue", "new", "sale", "vip"), 3),
        "address": {
            "street": f"{pick.randrange(200)} Main Street",
            "city": pick.choice(("Berlin", "Paris", "Oslo")),
            "zip": str(pick.randrange(99_999)),
        },
        "created": f"2026-11-{pick.randrange(1, 29):02}T10:{pick.randrange(60):02}:00Z",
    }


def large(number: int) -> dict[str, Any]:
    """A document of some 2 kB of JSON: eight such records."""
    return {"id": number, "items": [small(number * 10 + at) for at in range(8)]}


def timed(texts: Iterable[Any], put: Callable[[int, Any], object]) -> float:
    """Microseconds of `put(number, item)` for all of them, without the making of the items."""
    spent_ns = 0
    numbered = enumerate(texts)
    while block := list(islice(numbered, BLOCK)):
        began_ns = process_time_ns()
        for number, item in block:
            put(number, item)
        spent_ns += process_time_ns() - began_ns
    return spent_ns / 1e3


def filled(make: Callable[[], Any], item: Callable[[int], Any], *, key: type = int) -> Any:
    """A fill of a mapping."""

    def fill(count: int) -> tuple[Any, float]:
        into = make()
        return into, timed(
            map(item, range(count)), lambda number, value: into.__setitem__(key(number), value)
        )

    return fill


def appended(make: Callable[[], Any], item: Callable[[int], Any]) -> Any:
    """A fill of a sequence."""

    def fill(count: int) -> tuple[Any, float]:
        into = make()
        return into, timed(map(item, range(count)), lambda _, value: into.append(value))

    return fill


def by_key(structure: Any, number: int) -> Any:
    return structure[number]


def by_text(structure: Any, number: int) -> Any:
    return structure[str(number)]


# --- the tables ----------------------------------------------------------------------------------


def payload(number: int) -> bytes:
    return b"%100d" % number


def lru_by_hand() -> Row:
    def read(kept: OrderedDict[int, bytes], number: int) -> bytes:
        kept.move_to_end(number)
        return kept[number]

    return Row("OrderedDict, by hand, no bound", filled(OrderedDict, payload), read)


def lru_cached() -> Row:
    def fill(count: int) -> tuple[Any, float]:
        cached = functools.lru_cache(maxsize=count)(payload)
        return cached, timed(range(count), lambda number, _: cached(number))

    return Row("functools.lru_cache", fill, lambda cached, number: cached(number))


LRU = Table(
    "a cache of values of 100 bytes (133 as objects)", 200_000,
    (
        Row("dict, no bound, no order", filled(dict, payload), by_key),
        lru_by_hand(),
        lru_cached(),
        Row("LRUCache", filled(lambda: LRUCache(200_000), payload), by_key),
        Row(
            "LRUCache, bytes_max and ttl_s",
            filled(
                lambda: LRUCache(200_000, bytes_max=1 << 30, size_of=len, ttl_s=3_600), payload
            ),
            by_key,
        ),
    ),
)  # fmt: skip


class Theme:
    def __init__(self, number: int) -> None:
        self.name = f"theme {number}"
        self.colours = [f"#{number + at:06x}" for at in range(6)]


def themed(theme_of: Callable[[], Callable[[int], Theme]]) -> Any:
    """Rows that each hold one of a thousand equal themes."""

    def fill(count: int) -> tuple[Any, float]:
        theme = theme_of()
        kept: list[Theme | None] = [None] * count
        return (kept, theme), timed(
            range(count), lambda number, _: kept.__setitem__(number, theme(number % 1_000))
        )

    return fill


def interned() -> Callable[[int], Theme]:
    cache: WeakCache[int, Theme] = WeakCache()
    return lambda number: cache.get_or_make(number, lambda: Theme(number))


def by_weak_dictionary() -> Callable[[int], Theme]:
    values: weakref.WeakValueDictionary[int, Theme] = weakref.WeakValueDictionary()

    def theme(number: int) -> Theme:
        found = values.get(number)
        if found is None:
            found = values[number] = Theme(number)
        return found

    return theme


def read_theme(structure: Any, number: int) -> Any:
    return structure[1](number % 1_000)


WEAK = Table(
    "100,000 rows that hold one of 1,000 themes", 100_000,
    (
        Row("a theme of its own for each", themed(lambda: Theme), read_theme),
        Row("WeakValueDictionary, by hand", themed(by_weak_dictionary), read_theme),
        Row("WeakCache", themed(interned), read_theme),
    ),
)  # fmt: skip


def stored(codec: Any, document: Callable[[int], Any], *, learn: bool) -> Any:
    def fill(count: int) -> tuple[Any, float]:
        store = CompressedJSONStore(codec=codec, dictionary=learned() if learn else b"")
        texts = map(document, range(count))
        return store, timed(texts, lambda number, item: store.__setitem__(str(number), item))

    @functools.cache
    def learned() -> bytes:
        """From the first thousand; before anything is measured."""
        store = CompressedJSONStore(codec=codec)
        for number in range(1_000):
            store[str(number)] = document(number)
        store.learn()
        return store.dictionary

    return fill


def parsed(kept: dict[str, bytes], number: int) -> Any:
    return orjson.loads(kept[str(number)])


def copied(item: Any) -> bytes:
    return bytes(memoryview(orjson.dumps(item)))


def texts_of(document: Callable[[int], Any], text: Callable[[Any], bytes]) -> Any:
    def fill(count: int) -> tuple[Any, float]:
        kept: dict[str, bytes] = {}
        return kept, timed(
            map(document, range(count)),
            lambda number, item: kept.__setitem__(str(number), text(item)),
        )

    return fill


def documents(title: str, document: Callable[[int], Any], entries: int) -> Table:
    return Table(
        title, entries,
        (
            Row("dict of objects", filled(dict, document, key=str), by_text),
            Row("dict of orjson.dumps()", texts_of(document, orjson.dumps), parsed),
            Row("dict of copies of these", texts_of(document, copied), parsed),
            Row("store, zlib", stored("zlib", document, learn=False), by_text),
            Row("store, zlib, learned", stored("zlib", document, learn=True), by_text),
            Row("store, zstd", stored("zstd", document, learn=False), by_text),
            Row("store, zstd, learned", stored("zstd", document, learn=True), by_text),
        ),
    )  # fmt: skip


def listed(name: str, make: Callable[[], Any], item: Callable[[int], Any]) -> Row:
    return Row(
        name, appended(make, item), by_key, iter,
        lambda structure, number: structure.append(item(number)),
    )  # fmt: skip


def a_float(number: int) -> float:
    return number / 7


NUMBERS = Table(
    "1,000,000 floats", 1_000_000,
    (
        listed("list", list, a_float),
        listed("array", lambda: array("d"), a_float),
        listed('ChunkedList, codec="plain"', ChunkedList, a_float),
        listed('ChunkedList, codec="d"', lambda: ChunkedList(codec="d"), a_float),
    ),
)  # fmt: skip
ROWS = Table(
    "50,000 rows of 220 bytes of JSON", 50_000,
    (
        listed("list of dicts", list, small),
        Row(
            "list of JSON bytes", appended(list, lambda number: copied(small(number))),
            lambda kept, number: orjson.loads(kept[number]),
            lambda kept: map(orjson.loads, kept),
        ),
        *(
            listed(
                f'ChunkedList "json", chunk_items={size}',
                functools.partial(ChunkedList, codec="json", chunk_items=size), small,
            )
            for size in (64, 128, 1_024)
        ),
        listed(
            "the same with 128, zlib",
            lambda: ChunkedList(codec="json", compression="zlib"), small,
        ),
    ),
)  # fmt: skip


def once(make: Callable[[Callable[[], object]], Any], read: Callable[[Any, int], Any]) -> Any:
    def fill(count: int) -> tuple[Any, float]:
        return make(lambda: "value"), 0.0

    return fill, read


LAZY = Table(
    "one value, looked up", 1,
    (
        Row("functools.cache, no argument", *once(functools.cache, lambda kept, _: kept())),
        Row("LazyValue", *once(LazyValue, lambda kept, _: kept.get())),
        Row(
            "LazyValue, weak=True",
            lambda count: ((LazyValue(lambda: theme, weak=True), theme := Theme(1)), 0.0),
            lambda kept, _: kept[0].get(),
        ),
    ),
)  # fmt: skip
TABLES = (
    LRU,
    WEAK,
    documents("50,000 documents of 220 bytes of JSON", small, 50_000),
    documents("8,000 documents of 1.8 kB of JSON", large, 8_000),
    NUMBERS,
    ROWS,
    LAZY,
)


# --- measuring -----------------------------------------------------------------------------------


def measure(table: Table, row: Row, *, entries: int) -> Result:
    """In this process."""
    import psutil

    process = psutil.Process()
    row.fill(min(entries, 2))
    give_back()
    before_bytes = process.memory_info().rss
    structure, written_us = row.fill(entries)
    give_back()
    taken_bytes = process.memory_info().rss - before_bytes
    pick = random.Random(1)
    numbers = [pick.randrange(entries) for _ in range(READS)]
    if row.read(structure, numbers[0]) is None:
        raise CheckError(f"{row.name}: nothing is read")
    began_ns = process_time_ns()
    for number in numbers:
        row.read(structure, number)
    read_us = (process_time_ns() - began_ns) / READS / 1e3
    in_order_us = pause_ms = None
    if row.in_order is not None:
        began_ns = process_time_ns()
        count = sum(1 for _ in row.in_order(structure))
        in_order_us = (process_time_ns() - began_ns) / count / 1e3
        if count != entries:
            raise CheckError(f"{row.name}: {count} of {entries} are read")
    if row.append is not None:
        pause_ms = _longest(row.append, structure, entries)
    return Result(
        name=row.name, entry_bytes=taken_bytes / entries, written_us=written_us / entries,
        read_us=read_us, in_order_us=in_order_us, pause_ms=pause_ms,
    )  # fmt: skip


def give_back() -> None:
    """What nobody uses, so that resident memory is what is kept."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _longest(append: Callable[[Any, int], object], structure: Any, entries: int) -> float:
    gc.disable()
    longest_ns = 0
    for number in range(entries // 2):
        began_ns = process_time_ns()
        append(structure, number)
        longest_ns = max(longest_ns, process_time_ns() - began_ns)
    gc.enable()
    return longest_ns / 1e6


def in_a_process(table: Table, row: Row, *, share: float) -> Result:
    """The same in one of its own."""
    at = TABLES.index(table), table.rows.index(row)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.structures", "--only", "{} {}".format(*at),
         "--share", str(share)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    return Result(**json.loads(done.stdout))


def printed(table: Table, results: list[Result]) -> str:
    """For a terminal."""
    head = f"{'bytes/entry':>12}{'written us':>12}{'read us':>9}{'in order us':>13}{'pause ms':>10}"
    lines = [table.title, "", f"{'':34}{head}"]
    for one in results:
        line = f"{one.name:34}{one.entry_bytes:12.0f}{one.written_us:12.2f}{one.read_us:9.2f}"
        if one.in_order_us is not None:
            line += f"{one.in_order_us:13.3f}"
        if one.pause_ms is not None:
            line += f"{one.pause_ms:10.2f}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the entries of each table")
    parser.add_argument("--only", help="table and row, by number, in this process, as JSON")
    options = parser.parse_args()
    if options.only:
        at, number = map(int, options.only.split())
        table = TABLES[at]
        entries = max(1, int(table.entries * options.share))
        print(json.dumps(asdict(measure(table, table.rows[number], entries=entries))))
        return
    for table in TABLES:
        results = [in_a_process(table, row, share=options.share) for row in table.rows]
        print(f"{printed(table, results)}\n", flush=True)


if __name__ == "__main__":
    main()

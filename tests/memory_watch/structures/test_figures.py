"""What structures tell of themselves."""

import pytest

from perf_middleware.memory_watch.structures.figures import StructureFigures, structure_families
from perf_middleware.memory_watch.structures.stores.chunked import ChunkedList
from perf_middleware.memory_watch.structures.stores.documents import CompressedJSONStore
from perf_middleware.memory_watch.structures.stores.lru import LRUCache
from perf_middleware.memory_watch.structures.stores.weak import WeakCache


def points(families):
    return {
        (family.name, point.labels.text): point.value
        for family in families
        for point in family.points
    }


def test_several_structures_share_the_families():
    cache, store, rows = LRUCache(2, size_of=len), CompressedJSONStore(), ChunkedList(range(3))
    for key in "abc":
        cache[key] = b"1234"
    cache.get("a")
    cache.get("b")
    store["a"] = 1
    families = list(structure_families({"users": cache, "docs": store, "rows": rows}))
    assert len({family.name for family in families}) == len(families)
    told = points(families)
    users = 'structure="users",kind="lru"'
    assert told["perf_memory_structure_entries", users] == 2
    assert told["perf_memory_structure_bytes", users] == 8
    assert told["perf_memory_structure_hits", users] == 1
    assert told["perf_memory_structure_misses", users] == 1
    assert told["perf_memory_structure_evictions", users] == 1
    assert told["perf_memory_structure_entries", 'structure="rows",kind="chunked"'] == 3
    assert ("perf_memory_structure_hits", 'structure="rows",kind="chunked"') not in told
    cache.reset_counts()
    assert cache.figures() == StructureFigures(
        kind="lru", entries=2, size_bytes=8, hits=0, misses=0, evictions=0
    )


@pytest.mark.parametrize(
    "structure",
    [LRUCache(1), WeakCache(), CompressedJSONStore(), ChunkedList()],
    ids=["lru", "weak", "json", "chunked"],
)
def test_each_tells_its_own(structure):
    told = points(structure.families("mine"))
    assert all(labels.startswith('structure="mine"') for _, labels in told)
    structure.reset_counts()
    assert structure.figures().hit_share is None

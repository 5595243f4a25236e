"""Structures that keep less than the plain type does, or let go of it: docs/structures.md."""

from __future__ import annotations

from perf_middleware.memory_watch.structures.figures import StructureFigures, structure_families
from perf_middleware.memory_watch.structures.stores.chunked import ChunkedList
from perf_middleware.memory_watch.structures.stores.documents import (
    CompressedJSONStore,
    Learned,
    StoreFullError,
)
from perf_middleware.memory_watch.structures.stores.lazy import AsyncLazyValue, LazyValue
from perf_middleware.memory_watch.structures.stores.lru import LRUCache
from perf_middleware.memory_watch.structures.stores.weak import WeakCache

__all__ = [
    "AsyncLazyValue",
    "ChunkedList",
    "CompressedJSONStore",
    "LRUCache",
    "LazyValue",
    "Learned",
    "StoreFullError",
    "StructureFigures",
    "WeakCache",
    "structure_families",
]

"""The C library's allocator: what it has given out, and giving free memory back (glibc alone).

Other libraries (musl, macOS, Windows) have no such calls, and where another allocator was put in
glibc's place (jemalloc, tcmalloc, mimalloc by LD_PRELOAD) its figures would be of nothing: both
read as None there.

Cost of the figures: 1.5 us for a heap without holes; 6 to 18 ms for 150,000 of them, measured.
Each arena is locked while it is walked, so a thread that allocates from it waits.
Python holds no interpreter lock meanwhile: ctypes lets go of it.
Source: mallinfo(3), malloc_trim(3).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.memory_watch.reading import MallocMemory

if TYPE_CHECKING:
    from collections.abc import Callable

TRIED_BYTES: Final = (65_521, 98_299, 114_689)
"""Below what glibc maps by itself, above what it keeps back for a thread."""
BESIDE_BYTES: Final = 4_096  # what else may be taken meanwhile


@dataclass(frozen=True, slots=True)
class Allocator:
    """What of glibc's allocator can be called here; None where it cannot."""

    figures: Callable[[], MallocMemory] | None = None
    trim: Callable[[], None] | None = None


def load_allocator() -> Allocator:
    """The allocator of this process."""
    if not sys.platform.startswith("linux"):
        return Allocator()
    try:
        import ctypes

        return _glibc(ctypes)
    except (ImportError, OSError, AttributeError):  # no ctypes, or no such library
        return Allocator()


def _glibc(ctypes: Any) -> Allocator:
    library = ctypes.CDLL("libc.so.6")
    in_use = ctypes.CDLL(None)  # as the program itself finds names: with what was preloaded
    figures = _figures(ctypes, library)
    if _address(ctypes, library.malloc) != _address(ctypes, in_use.malloc) and not (
        figures is not None and _counts(ctypes, in_use, figures)
    ):
        return Allocator()
    return Allocator(figures=figures, trim=_trim(ctypes, library))


def _counts(ctypes: Any, in_use: Any, figures: Callable[[], MallocMemory]) -> bool:
    """Whether glibc counts what the program takes: an address alone does not tell.

    Of a program at a fixed place (the python3 of Debian and Ubuntu) every name of a library reads
    as an address in the program itself, whoever stands behind it.
    """
    malloc, free = in_use.malloc, in_use.free
    malloc.restype, malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    free.restype, free.argtypes = None, (ctypes.c_void_p,)
    for size in TRIED_BYTES:  # other threads take and give back, too: one try may be spoilt
        before = figures().used_bytes
        block = malloc(size)
        taken = figures().used_bytes - before
        free(block)
        if size <= taken <= size + BESIDE_BYTES:
            return True
    return False


def _address(ctypes: Any, function: Any) -> int | None:
    address: int | None = ctypes.cast(function, ctypes.c_void_p).value
    return address


def _figures(ctypes: Any, library: Any) -> Callable[[], MallocMemory] | None:
    try:
        mallinfo2 = library.mallinfo2  # since glibc 2.33; before, its numbers ended at 2 GiB
    except AttributeError:
        return None
    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
             "fordblks", "keepcost")  # fmt: skip
    result = type(
        "mallinfo2", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names]}
    )
    mallinfo2.restype, mallinfo2.argtypes = result, ()

    def figures() -> MallocMemory:
        info = mallinfo2()
        # Large blocks are mapped one by one and counted apart from the arenas.
        return MallocMemory(used_bytes=info.uordblks + info.hblkhd, free_bytes=info.fordblks)

    return figures


def _trim(ctypes: Any, library: Any) -> Callable[[], None] | None:
    try:
        malloc_trim = library.malloc_trim
    except AttributeError:
        return None
    malloc_trim.restype, malloc_trim.argtypes = ctypes.c_int, (ctypes.c_size_t,)

    def trim() -> None:
        malloc_trim(0)

    return trim

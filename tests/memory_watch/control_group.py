"""A memory control group for a child process, where this kernel and these rights allow one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
LIMITS = ("memory.max", "memory.limit_in_bytes")  # v2, v1
PLACES = (ROOT / "memory", ROOT, ROOT / "unified")


@contextlib.contextmanager
def memory_group(limit_bytes: int, name: str = "perf-middleware-test") -> Iterator[Path | None]:
    """The directory of a new group that is held to `limit_bytes`; None where there can be none."""
    group = None
    for place in PLACES:
        group = _made(place / f"{name}-{os.getpid()}", limit_bytes)
        if group is not None:
            break
    try:
        yield group
    finally:
        if group is not None:
            group.rmdir()


def _made(group: Path, limit_bytes: int) -> Path | None:
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        for limit in LIMITS:
            if (group / limit).exists():
                (group / limit).write_text(str(limit_bytes))
                _without_swap(group, limit_bytes)
                return group
    except OSError:
        pass
    with contextlib.suppress(OSError):
        group.rmdir()
    return None


def _without_swap(group: Path, limit_bytes: int) -> None:
    """What is over the limit must not go to a disk instead."""
    for name, most in (("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", limit_bytes)):
        with contextlib.suppress(OSError):
            if (group / name).exists():
                (group / name).write_text(str(most))

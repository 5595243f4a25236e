"""Clearing away the directories of groups that have ended, a few at each start."""

from __future__ import annotations

import os
import time
from pathlib import Path

from perf_middleware.metrics.stores.directory import RETIRED, SnapshotDirectory
from perf_middleware.metrics.stores.processes import mark_of, start_of
from perf_middleware.metrics.workers.groups import Place, is_over, parent_of

GROUPS_MAX = 16  # looked at in one start; the next start goes on


def remove_ended_groups(place: Place) -> int:
    """Remove the directories beside `place` whose group has ended; gives their number.

    Only where the base is ours alone.  A group with a living worker stays whatever became of its
    parent, and so does a directory with files that are not ours.  Raises OSError.
    """
    here = mark_of(os.getpid())
    if not place.private_base or here is None:
        return 0
    removed = looked_at = 0
    for name in sorted(entry.name for entry in Path(place.base).iterdir()):
        parent = parent_of(name)
        if parent is None or name == place.name:
            continue
        start_now = start_of(parent.pid)
        untouched_s = time.time() - (Path(place.base) / name).lstat().st_mtime
        if not is_over(parent, here=here, start_now=start_now, untouched_s=untouched_s):
            continue
        looked_at += 1
        if looked_at > GROUPS_MAX:
            break
        removed += _remove_group(Place(place.base, name, private_base=True))
    return removed


def _remove_group(place: Place) -> bool:
    path = Path(place.base) / place.name
    try:
        directory = SnapshotDirectory(place)
        try:
            look = directory.look()
            if look.alive:
                return False
            directory.remove((*look.dead, *look.litter, RETIRED))
        finally:
            directory.close()
        path.rmdir()
    except OSError:  # files that are not ours, or another worker was quicker
        return False
    return True

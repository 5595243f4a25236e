"""Figures where there is no /proc (macOS, Windows), or it is hidden: by psutil, as far as it goes.

psutil is imported when it is asked for the first time: on Linux that is never.
"""

from __future__ import annotations

from perf_middleware.memory_watch.reading import SystemMemory


def system_memory() -> SystemMemory | None:
    """The machine's memory; None where nobody tells."""
    try:
        import psutil

        memory = psutil.virtual_memory()
        found = SystemMemory(total_bytes=memory.total, available_bytes=memory.available)
    except Exception:  # noqa: BLE001 - psutil lets parse errors of unusual systems through
        return None
    try:
        swap = psutil.swap_memory()
    except Exception:  # noqa: BLE001 - the same; macOS in a sandbox forbids it
        return found
    return SystemMemory(
        total_bytes=memory.total,
        available_bytes=memory.available,
        swap_total_bytes=swap.total,
        swap_used_bytes=swap.used,
    )

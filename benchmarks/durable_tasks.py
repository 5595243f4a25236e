"""What a durable task costs: how many are accepted in a second, and how long each answer waits.

    python -m benchmarks.durable_tasks
    python -m benchmarks.durable_tasks --calls 300 --folder /var/tmp

The folder's disk decides: each accept is synced to it, those that wait at once together.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from perf_middleware.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = (1, 16, 64, 256)
LOOK_S = 0.005


async def measured(folder: Path, *, at_once: int, calls: int) -> tuple[float, list[float], float]:
    """Accepted a second, the sorted waits in seconds, and the CPU seconds of each to its end."""
    async with Tasks(journal_path=folder / f"{at_once}.db") as tasks:

        @tasks.task(name="nothing")
        async def nothing(number: int) -> None: ...

        waits = []

        async def client() -> None:
            for number in range(calls // at_once):
                began = time.perf_counter()
                await tasks.background(None, nothing, number, durable=True)
                waits.append(time.perf_counter() - began)

        await tasks.background(None, nothing, 0, durable=True)  # the file is there
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client() for _ in range(at_once)))
        took = time.perf_counter() - began
        while tasks.journal.status()["removed"] <= len(waits):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(LOOK_S)
        cpu = time.process_time() - cpu
    return len(waits) / took, sorted(waits), cpu / len(waits)


async def compare(folder: Path, calls: int) -> None:
    print("at once   accepted/s   median ms   99 of 100 ms   CPU us each, to its end")
    for at_once in AT_ONCE:
        rate, waits, cpu = await measured(folder, at_once=at_once, calls=max(calls, at_once))
        median, late = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
        print(f"{at_once:7}{rate:13,.0f}{median * 1e3:12.2f}{late * 1e3:15.2f}{cpu * 1e6:26.0f}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=3_000, help="durable tasks of each row")
    parser.add_argument("--folder", type=Path, help="where the file is; left out, a temporary one")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        asyncio.run(compare(Path(folder), options.calls))


if __name__ == "__main__":
    main()

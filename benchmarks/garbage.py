"""What freezing and thresholds change in the garbage collector's pauses, and what they cost.

    python -m benchmarks.garbage

Each row is a process of its own with a million long-lived objects (half of them rows, half their
lists), as an app has that has loaded its data.  Then it serves requests, plain functions: each
makes a hundred objects, leaves one cycle of three with `--cycle-bytes` in it, and keeps a session
of six objects until `--sessions-max` newer ones have come.  So the young die, some grow old, and
old ones go: what a full collection is for.

- `share`: of the processor time of the run, what all collections took.
- `full`: how many full collections there were, the longest of them; `others`: the longest of those
  of younger generations.
  Processor time, which is not the machine's other work.
- `peak`: of the process (RSS), over that of its data: sessions and cycles not yet collected.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time_ns
from typing import Any

LONG_LIVED = 500_000  # rows, each with its list


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to set the collector."""

    name: str
    freeze: bool = False
    thresholds: tuple[int, int, int] | None = None


SETTINGS = (
    Setting("as it is"),
    Setting("freeze", freeze=True),
    Setting("5,000, 20, 20", thresholds=(5_000, 20, 20)),
    Setting("freeze, 5,000, 20, 20", freeze=True, thresholds=(5_000, 20, 20)),
    Setting("freeze, 50,000, 20, 100", freeze=True, thresholds=(50_000, 20, 100)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one process has seen."""

    name: str
    share: float
    collections: tuple[int, int, int]
    longest_ms: tuple[float, float, float]
    request_us: float
    peak_bytes: int


class _Cycle:
    def __init__(self, size_bytes: int) -> None:
        self.me = self
        self.body = [bytes(size_bytes)]


def measure(setting: Setting, *, requests: int, cycle_bytes: int, sessions_max: int) -> Result:
    """In this process, whose collector is not as it was afterwards."""
    import psutil

    kept = {number: {"id": number, "tags": [number]} for number in range(LONG_LIVED)}
    gc.collect()
    if setting.freeze:
        gc.freeze()
    if setting.thresholds is not None:
        gc.set_threshold(*setting.thresholds)
    taken: tuple[list[int], ...] = ([], [], [])
    began_ns = 0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began_ns
        if phase == "start":
            began_ns = process_time_ns()
        else:
            taken[info["generation"]].append(process_time_ns() - began_ns)

    gc.callbacks.append(note)
    process = psutil.Process()
    before_bytes = peak_bytes = process.memory_info().rss
    sessions: dict[int, list[Any]] = {}
    started_ns = process_time_ns()
    for number in range(requests):
        _Cycle(cycle_bytes)
        rows = [{"id": at} for at in range(100)]
        sessions[number % sessions_max] = rows[:5]
        if number % 1_000 == 0:
            peak_bytes = max(peak_bytes, process.memory_info().rss)
    total_ns = process_time_ns() - started_ns
    gc.callbacks.remove(note)
    del kept
    zero, one, two = (max(times, default=0) / 1e6 for times in taken)
    return Result(
        name=setting.name,
        share=sum(map(sum, taken)) / total_ns,
        collections=(len(taken[0]), len(taken[1]), len(taken[2])),
        longest_ms=(zero, one, two),
        request_us=total_ns / requests / 1e3,
        peak_bytes=peak_bytes - before_bytes,
    )


def in_a_process(setting: Setting, **sizes: int) -> Result:
    """The same in one of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.garbage", "--only", setting.name,
         *(f"--{name.replace('_', '-')}={size}" for name, size in sizes.items())],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    return Result(**json.loads(done.stdout))


def table(results: list[Result]) -> str:
    """For a terminal."""
    head = f"{'':26}{'us/request':>12}{'share':>8}{'full':>6}{'longest ms':>12}"
    lines = [f"{head}{'others ms':>11}{'peak MB':>9}"]
    lines += [
        f"{one.name:26}{one.request_us:12.1f}{one.share:8.1%}{one.collections[2]:6}"
        f"{one.longest_ms[2]:12.1f}{max(one.longest_ms[:2]):11.1f}{one.peak_bytes / 1e6:9.0f}"
        for one in results
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=300_000)
    parser.add_argument("--cycle-bytes", type=int, default=1_000)
    parser.add_argument("--sessions-max", type=int, default=100_000)
    parser.add_argument("--only", help="one setting, in this process, as JSON")
    options = parser.parse_args()
    sizes = {name: getattr(options, name) for name in ("requests", "cycle_bytes", "sessions_max")}
    if options.only:
        (setting,) = (one for one in SETTINGS if one.name == options.only)
        print(json.dumps(asdict(measure(setting, **sizes))))
        return
    print(", ".join(f"{name} {size}" for name, size in sizes.items()))
    print(table([in_a_process(setting, **sizes) for setting in SETTINGS]))


if __name__ == "__main__":
    main()

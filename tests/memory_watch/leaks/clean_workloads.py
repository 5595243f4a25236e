"""Workloads whose memory grows and is no leak; run as `python clean_workloads.py NAME SECONDS`.

Each does a little work a hundred times a second, which counts as one request, and prints the
status of its leak watch in the end.
"""

import gc
import json
import logging
import random
import sys
import threading
import time
from collections import deque
from functools import lru_cache

from perf_middleware.memory_watch.leaks.runtime import leak_watch_of
from perf_middleware.memory_watch.leaks.settings import LeakSettings
from tests.memory_watch.leaks.reading_here import trace, watch_from_now

HZ = 100
KB = 1_000
MB = 1_000_000
random.seed(7)


def payload(size: int = KB) -> bytes:
    return random.randbytes(size)


def dict_fills():
    """A plain dictionary that is full after 35 s."""
    kept = {}

    def turn(now_s, number):
        if len(kept) < 35 * HZ * 4:
            for part in range(4):
                kept[number, part] = payload()

    return turn


@lru_cache(maxsize=100_000)
def looked_up(key: int) -> bytes:
    return payload(2 * KB)


def lru_cache_fills():
    """A bounded cache of functools that fills all the time."""

    def turn(now_s, number):
        for part in range(3):
            looked_up(number * 3 + part)

    return turn


def zipf_cache():
    """A cache of all that was asked for; what is asked for is ever more often there."""
    ranks = range(1, 8_001)
    weights = [1 / rank for rank in ranks]
    kept = {}

    def turn(now_s, number):
        for key in random.choices(ranks, weights, k=5):
            if key not in kept:
                kept[key] = payload(2 * KB)

    return turn


def periodic_batches():
    """Twenty megabytes for a second, every four."""
    batch = []

    def turn(now_s, number):
        if number % (4 * HZ) == 0:
            batch.extend(payload(20 * KB) for _ in range(1_000))
        elif number % (4 * HZ) == HZ:
            batch.clear()

    return turn


def startup_growth():
    """Fifty megabytes in the first eight seconds."""
    kept = []

    def turn(now_s, number):
        if now_s < 8:
            kept.append(payload(50 * MB // (8 * HZ)))

    return turn


def cyclic_garbage():
    """Cycles that hardly any collection looks at."""
    gc.set_threshold(200_000, 50, 1_000)

    def turn(now_s, number):
        for _ in range(5):
            cycle = {"body": payload(2 * KB)}
            cycle["self"] = cycle

    return turn


def sessions_freed():
    """Sessions that come for half a minute and go all at once."""
    sessions = {}

    def turn(now_s, number):
        if now_s % 45 < 33:
            sessions[number] = {"id": number, "body": payload(3 * KB)}
        else:
            sessions.clear()

    return turn


def thread_pool():
    """A thread more each second, thirty in all, each with a buffer of its own."""
    begun = []

    def worker():
        buffer = [payload(200) for _ in range(500)]
        while True:
            time.sleep(1)
            buffer[0] = payload(200)

    def turn(now_s, number):
        if len(begun) < min(30, now_s):
            begun.append(threading.Thread(target=worker, daemon=True))
            begun[-1].start()

    return turn


def random_sizes():
    """A fixed number of strings whose sizes are anything: the heap falls to pieces."""
    kept = [""] * 1_000

    def turn(now_s, number):
        for _ in range(5):
            kept[random.randrange(1_000)] = "x" * int(random.paretovariate(0.9) * 500 % 200_000)

    return turn


def log_buffer():
    """The last hundred thousand lines, of which there are not so many yet."""
    lines = deque(maxlen=100_000)

    def turn(now_s, number):
        for part in range(4):
            lines.append(f"{number} {part} {payload(300).hex()}")

    return turn


def steady():
    """What every request allocates and lets go."""

    def turn(now_s, number):
        json.loads(json.dumps({"rows": [{"id": row, "name": str(row)} for row in range(50)]}))

    return turn


WORKLOADS = {
    work.__name__: work
    for work in (
        dict_fills, lru_cache_fills, zipf_cache, periodic_batches, startup_growth, cyclic_garbage,
        sessions_freed, thread_pool, random_sizes, log_buffer, steady,
    )
}  # fmt: skip


def main(name: str, seconds: float) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    turn = WORKLOADS[name]()
    number = 0
    watch = leak_watch_of(LeakSettings(), trace=trace)
    watch_from_now(watch, lambda: number)
    began_s = time.monotonic()
    while (now_s := time.monotonic() - began_s) < seconds:
        turn(now_s, number)
        number += 1
        time.sleep(max(0.0, number / HZ - (time.monotonic() - began_s)))
    print(json.dumps(watch.status()))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

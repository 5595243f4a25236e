"""Encodes stored bodies in a thread of its own, one after the other: no answer waits for it.

    event loop -- put(job) --> waiting --> thread -- done --> collect() -- event loop, later

The thread is started by the first job and ends when it has had none for a while.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.coded_forms import Forms
    from perf_middleware.compression.codecs import Codec

IDLE_S: Final = 30.0


class Job(NamedTuple):
    """One body to encode."""

    forms: Forms
    codec: Codec
    level: int


class Done(NamedTuple):
    """What became of a job: `coded` None where the codec has raised `error`."""

    job: Job
    coded: bytes | None
    busy_ns: int
    error: Exception | None = None


class EncodingBehind:
    """At most `waiting_max` jobs of bodies of `bytes_max` in all, as long as not yet collected.

    One body alone may be larger.
    """

    def __init__(self, *, waiting_max: int, bytes_max: int) -> None:
        self._waiting_max = waiting_max
        self._bytes_max = bytes_max
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._done: deque[Done] = deque()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.waiting = 0
        self._waiting_bytes = 0

    def put(self, job: Job) -> bool:
        """Let it be encoded soon; False where too much waits already, or no thread can be had."""
        thread = self._thread  # it takes itself away when it ends, at any moment
        if thread is not None and not thread.is_alive() and self._thread is thread:
            self._begin_anew()  # after a fork: it was the parent's, and what it was doing is there
        size_bytes = len(job.forms.body)
        if self.waiting >= self._waiting_max:
            return False
        if self.waiting and self._waiting_bytes + size_bytes > self._bytes_max:
            return False
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(
                    target=self._work, name="perf_middleware.compression", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is ending
                    return False
                self._thread = thread
            self._jobs.put(job)
        self.waiting += 1
        self._waiting_bytes += size_bytes
        return True

    def collect(self) -> Iterator[Done]:
        """What is done since the last time; on the event loop."""
        while self._done:
            done = self._done.popleft()
            self.waiting -= 1
            self._waiting_bytes -= len(done.job.forms.body)
            yield done

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except queue.Empty:
                with self._starting:
                    if self._jobs.empty():
                        self._thread = None
                        return
                continue
            self._done.append(_done(job))
            del job  # what it held may leave the store while nothing is to do


def _done(job: Job) -> Done:
    began_ns = perf_counter_ns()
    try:
        coded = job.codec.encode(job.forms.body, level=job.level)
    except Exception as error:  # noqa: BLE001 - whatever a library raises, others go on
        return Done(job, None, perf_counter_ns() - began_ns, error)
    return Done(job, coded, perf_counter_ns() - began_ns)

"""Threads for functions that are not async: a bound of their own, and none outlives the process.

They are daemons: one that never comes back must not keep a process from ending that has drained as
long as it may.  There are never more calls at once than `threads_max`: the order of the queue sees
to it, so that none waits here.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Told: TypeAlias = "Callable[[Any, BaseException | None], None]"
Item: TypeAlias = "tuple[Callable[[], Any], Told] | None"


class Threads:
    """Runs calls in threads that stay for the next; `ended` is told on the thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Item] = SimpleQueue()
        self._started = 0
        self._at_work = 0
        self._lock = threading.Lock()

    def run(self, call: Callable[[], Any], ended: Told) -> None:
        """Run `call` at once, in a thread that idles or a new one."""
        with self._lock:
            self._at_work += 1
            calls, number = self._calls, self._started + 1
            is_new = self._at_work > self._started
            if is_new:
                self._started = number
        calls.put((call, ended))
        if is_new:
            threading.Thread(
                target=self._work, args=(calls,), name=f"{self._name} {number}", daemon=True
            ).start()

    def close(self) -> None:
        """Those that idle end now, the others after their call."""
        with self._lock:
            started, self._started, self._at_work = self._started, 0, 0
            calls, self._calls = self._calls, SimpleQueue()
        for _ in range(started):
            calls.put(None)

    def _work(self, calls: SimpleQueue[Item]) -> None:
        while True:
            item = calls.get()
            if item is None:
                return
            call, ended = item
            del item
            value, error = None, None
            try:
                value = call()
            except BaseException as exc:  # noqa: BLE001 - raised again where it is waited for
                error = exc
            with self._lock:
                if calls is self._calls:
                    self._at_work -= 1
            ended(value, error)
            del call, ended, value, error

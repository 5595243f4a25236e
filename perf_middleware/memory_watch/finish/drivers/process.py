"""This process among the others: its siblings' memory, and the signal that its server heeds."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from perf_middleware.memory_watch.finishing import is_sibling

if TYPE_CHECKING:
    from collections.abc import Callable


def sibling_bytes() -> tuple[int, ...]:
    """RSS of each worker beside this one; empty where there is none, or none can be seen.

    It walks the table of processes: milliseconds, for rare use.
    """
    import psutil

    try:
        own = psutil.Process()
        parent = own.parent()
        if parent is None:
            return ()
        command, children = own.cmdline(), parent.children()
    except psutil.Error:
        return ()
    found = []
    for child in children:
        if child.pid == own.pid:
            continue
        try:
            if is_sibling(child.cmdline(), command):
                found.append(int(child.memory_info().rss))
        except psutil.Error:
            continue  # it ended meanwhile
    return tuple(found)


def signal_heeded(name: str) -> Callable[[], bool]:
    """Whether somebody in this process heeds the signal now: else it would end on the spot, with
    all requests in it, or nothing would happen at all.
    """
    number = getattr(signal, name, None)

    def is_heeded() -> bool:
        return number is not None and signal.getsignal(number) not in _UNHEEDED

    return is_heeded


def send_to_self(name: str) -> Callable[[], object]:
    """Sends the signal to this process: its server does what it does when it is to stop."""
    number: signal.Signals | None = getattr(signal, name, None)

    def send() -> None:
        if number is None:
            return
        if sys.platform == "win32":
            signal.raise_signal(number)  # os.kill would end the process there and then
        else:
            os.kill(os.getpid(), number)  # to the process: the main thread's call is interrupted

    return send


_UNHEEDED = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)

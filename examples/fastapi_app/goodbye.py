"""Streams without an end of their own stop when the server is told to, so that it can.

ASGI tells an app about the shutdown only after the last response; a server waits for that one.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def on_stop_signal(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` on the event loop at SIGINT or SIGTERM, beside the server's own handler."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only, and servers in other threads have none
        return
    loop = asyncio.get_running_loop()
    servers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def tell_both(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(act)
        servers[number](number, frame)

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if callable(handler):  # what nobody catches ends the process anyway
            servers[number] = handler
            signal.signal(number, tell_both)
    try:
        yield
    finally:
        for caught, handler in servers.items():
            signal.signal(caught, handler)

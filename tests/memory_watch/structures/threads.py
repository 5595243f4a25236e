"""Threads that do something at the same time, and must be done in a bounded time."""

import sys
from contextlib import contextmanager
from threading import Barrier, Thread

JOIN_S_MAX = 120


def together(count, do):
    """`do(number)` in so many threads that begin at once; what they gave, or the first error."""
    given, errors, begin = [None] * count, [], Barrier(count)

    def run(number):
        begin.wait(JOIN_S_MAX)
        try:
            given[number] = do(number)
        except BaseException as exc:  # noqa: BLE001 - the test raises it
            errors.append(exc)

    threads = [Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    with switching_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(JOIN_S_MAX)
    assert not any(thread.is_alive() for thread in threads), "a thread is stuck"
    if errors:
        raise errors[0]
    return given


@contextmanager
def switching_often():
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)

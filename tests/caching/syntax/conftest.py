"""What the tests of the parsers share."""

import signal

import pytest

CPU_S_MAX = 10  # quadratic work on LONG_BYTES takes minutes, linear work less than a second


class TooMuchWorkError(Exception):
    """A parser has used far more of the processor than its input is worth."""


@pytest.fixture
def little_work():
    """Stops what would never end: by processor time of this process, not by the clock."""

    def stop(*_):
        raise TooMuchWorkError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S_MAX)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)

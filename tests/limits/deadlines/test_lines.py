"""Lines of timers: one timer of the loop for many requests, on a clock of the test."""

import pytest

from perf_middleware.limits.deadlines.drivers.lines import LINES_MAX, Lines


class Loop:
    """Time that goes on when told, and the timers that were asked for."""

    def __init__(self):
        self.now_us = 0
        self.timers = []

    def clock(self):
        return self.now_us

    def call_later(self, delay_s, callback, *args, context):
        assert not list(context)
        timer = Timer(self.now_us + round(delay_s * 1_000_000), lambda: callback(*args))
        self.timers.append(timer)
        return timer

    @property
    def pending(self):
        return [timer.at_us for timer in self.timers if not timer.is_over]

    def go_to(self, now_us):
        while due := [
            timer for timer in self.timers if not timer.is_over and timer.at_us <= now_us
        ]:
            self.now_us = max(self.now_us, due[0].at_us)
            due[0].is_over = True
            due[0].callback()
        self.now_us = now_us


class Timer:
    def __init__(self, at_us, callback):
        self.at_us, self.callback, self.is_over = at_us, callback, False

    def cancel(self):
        self.is_over = True


class Request:
    def __init__(self, loop, *, fails=False):
        self.loop, self.fails, self.expired_at_us = loop, fails, None

    def expire(self):
        self.expired_at_us = self.loop.now_us
        if self.fails:
            raise LookupError


@pytest.fixture
def loop():
    return Loop()


def joined(line, loop, *at_us, **more):
    requests = []
    for each_us in at_us:
        loop.go_to(each_us)
        requests.append(Request(loop, **more))
        line.join(requests[-1], loop.now_us, loop)
    return requests


def test_each_is_told_at_its_own_time_by_one_timer(loop):
    line = Lines(loop.clock).line(1_000)
    requests = joined(line, loop, 0, 300, 300, 900)
    assert len(loop.pending) == 1
    loop.go_to(5_000)
    assert [each.expired_at_us for each in requests] == [1_000, 1_300, 1_300, 1_900]
    assert loop.pending == []


def test_who_has_left_is_not_told(loop):
    line = Lines(loop.clock).line(1_000)
    first, second, third = joined(line, loop, 0, 300, 600)
    line.leave(first)
    line.leave(third)
    line.leave(third)
    loop.go_to(5_000)
    told = [each.expired_at_us for each in (first, second, third)]
    assert told == [None, 1_300, None]


def test_an_empty_line_rings_once_more_and_is_silent(loop):
    line = Lines(loop.clock).line(1_000)
    for each in joined(line, loop, 0, 10, 20):
        line.leave(each)
    loop.go_to(1_000)
    assert loop.pending == []
    (late,) = joined(line, loop, 1_500)
    loop.go_to(9_000)
    assert late.expired_at_us == 2_500


def test_one_that_fails_does_not_keep_the_others_waiting(loop):
    line = Lines(loop.clock).line(1_000)
    joined(line, loop, 0, fails=True)
    (second,) = joined(line, loop, 0)
    with pytest.raises(LookupError):
        loop.go_to(1_000)
    loop.go_to(1_000)
    assert second.expired_at_us == 1_000


def test_a_timer_of_its_own_is_taken_back(loop):
    line = Lines(loop.clock).alone(1_000)
    (only,) = joined(line, loop, 0)
    line.leave(only)
    assert loop.pending == []


def test_equal_timeouts_share_a_line_and_lines_are_bounded(loop):
    lines = Lines(loop.clock)
    assert lines.line(1_000) is lines.line(1_000)
    for timeout_us in range(1, LINES_MAX + 10):
        lines.line(timeout_us)
    assert len(lines._by_timeout) == LINES_MAX
    (beyond,) = joined(lines.line(LINES_MAX * 2), loop, 0)
    loop.go_to(LINES_MAX * 2)
    assert beyond.expired_at_us == LINES_MAX * 2

import threading
import weakref

import pytest

from perf_middleware.metrics.probes.frames import DEPTH_MAX, capture, source_of
from perf_middleware.metrics.watching.stacks import StackLine


class Witness:
    """Something a frame's locals keep alive."""


def wait_for(release, entered, dead):
    witness = Witness()
    dead.append(weakref.ref(witness))
    entered.set()
    release.wait(30)


def test_a_threads_stack_is_text_and_keeps_nothing_alive():
    release, entered, dead = threading.Event(), threading.Event(), []
    thread = threading.Thread(target=wait_for, args=(release, entered, dead))
    thread.start()
    assert entered.wait(30)
    stack = capture(thread.ident)
    release.set()
    thread.join(30)
    assert dead[0]() is None
    lines = [line for line in stack if line.function == "wait_for"]
    assert [line.file for line in lines] == [__file__]
    assert source_of(lines[0]) in ("release.wait(30)", "entered.set()")


def test_a_thread_that_does_not_exist_has_no_stack():
    assert capture(-1) == ()


def dive(depth):
    return dive(depth - 1) if depth else capture(threading.get_ident())


def test_a_deep_recursion_is_cut():
    assert len(dive(3 * DEPTH_MAX)) == DEPTH_MAX


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(StackLine("f", "/no/such/file.py", 1), id="no file"),
        pytest.param(StackLine("f", "<frozen x>", 1), id="no name of a file"),
        pytest.param(StackLine("f", __file__, 0), id="no line"),
        pytest.param(StackLine("f", __file__, 99_999), id="beyond the end"),
        pytest.param(StackLine("f", "a\0b", 1), id="not a name"),
    ],
)
def test_a_source_that_cannot_be_read_is_empty(line):
    assert source_of(line) == ""

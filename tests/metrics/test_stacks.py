from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.code_roots import CodeRoots
from perf_middleware.metrics.watching.blame import KEPT_LINES_MAX, LINES_MAX, Tally, shorten
from perf_middleware.metrics.watching.stacks import StackLine

ROOTS = CodeRoots(
    machinery=("/py/lib/python3.11/", "/src/perf_middleware/"),
    own=("/py/lib/python3.11/site-packages/shop/",),
)

SLEEP = StackLine("pause", "/app/shop.py", 7)
SOCKET = StackLine("readinto", "/py/lib/python3.11/socket.py", 706)
DRIVER = StackLine("execute", "/app/.venv/lib/python3.11/site-packages/driver/api.py", 3)
ROUTING = StackLine("run", "/py/lib/python3.11/site-packages/starlette/routing.py", 5)


@settings(deadline=None)
@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_a_shortened_stack_is_bounded_and_keeps_both_ends_that_matter(size_and_guilty):
    size, guilty = size_and_guilty
    stack = [StackLine("f", "/app/x.py", number) for number in range(size)]
    short = shorten(stack, guilty)
    assert len(short) == min(size, KEPT_LINES_MAX)
    assert short[0] == stack[0]
    assert stack[guilty] in short


def test_the_report_names_the_authors_line_and_the_call_that_waits():
    tally = Tally(ROOTS)
    tally.add([SOCKET, DRIVER, SLEEP, ROUTING])
    finding = tally.finding()
    assert finding is not None
    assert (finding.line, finding.origin, finding.call) == (SLEEP, "own", SOCKET)
    assert finding.stack == (SOCKET, DRIVER, SLEEP, ROUTING)


def test_a_librarys_line_is_named_where_no_line_is_the_apps():
    tally = Tally(ROOTS)
    tally.add([SOCKET, DRIVER, ROUTING])
    finding = tally.finding()
    assert finding is not None
    assert (finding.line, finding.origin) == (DRIVER, "library")


def test_the_most_frequent_function_wins_and_then_its_most_frequent_line():
    unlucky = StackLine("unlucky", "/app/a.py", 1)
    spin = [StackLine("spin", "/app/a.py", line) for line in (10, 11, 12)]
    tally = Tally(ROOTS)
    for line in (unlucky, unlucky, spin[0], spin[1], spin[1], spin[2]):
        tally.add([line])
    finding = tally.finding()
    assert finding is not None
    assert (finding.line, finding.seen, finding.samples) == (spin[1], 2, 6)


def test_no_sample_and_an_empty_one_say_nothing():
    tally = Tally(ROOTS)
    tally.add([])
    assert tally.finding() is None
    assert tally.samples == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 3 * LINES_MAX), min_size=1, max_size=400))
def test_a_tally_is_bounded_and_never_counts_more_than_it_saw(numbers):
    tally = Tally(ROOTS)
    for number in numbers:
        tally.add([StackLine("f", "/app/x.py", number)])
    finding = tally.finding()
    assert finding is not None
    assert 1 <= finding.seen <= finding.samples == len(numbers)
    assert len(tally._plain.lines) <= LINES_MAX

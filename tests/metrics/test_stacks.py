import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.metrics.watching.blame import KEPT_LINES_MAX, LINES_MAX, Tally, shorten
from perf_middleware.metrics.watching.stacks import CodeRoots, StackLine

ROOTS = CodeRoots(
    machinery=("/py/lib/python3.11/", "/src/perf_middleware/"),
    own=("/py/lib/python3.11/site-packages/shop/",),
)

SLEEP = StackLine("pause", "/app/shop.py", 7)
SOCKET = StackLine("readinto", "/py/lib/python3.11/socket.py", 706)
DRIVER = StackLine("execute", "/app/.venv/lib/python3.11/site-packages/driver/api.py", 3)
ROUTING = StackLine("run", "/py/lib/python3.11/site-packages/starlette/routing.py", 5)


@pytest.mark.parametrize(
    ("file", "origin"),
    [
        pytest.param("/app/views.py", "own", id="what lies nowhere known is the app's"),
        pytest.param("app.py", "own", id="also with a relative name"),
        pytest.param("/py/lib/python3.11/socket.py", "machinery", id="the standard library"),
        pytest.param("/src/perf_middleware/asgi.py", "machinery", id="ourselves"),
        pytest.param("/py/lib/python3.11/site-packages/driver/x.py", "library", id="installed"),
        pytest.param("/app/.venv/lib/site-packages/driver.py", "library", id="one-file package"),
        pytest.param("/usr/lib/python3/dist-packages/driver/x.py", "library", id="by the system"),
        pytest.param("/app/.venv/lib/site-packages/uvicorn/x.py", "machinery", id="a server"),
        pytest.param("/py/lib/python3.11/site-packages/shop/x.py", "own", id="an installed app"),
        pytest.param(r"C:\venv\Lib\site-packages\driver\x.py", "library", id="backslashes"),
        pytest.param("<frozen importlib._bootstrap>", "machinery", id="frozen"),
        pytest.param("<string>", "machinery", id="generated"),
        pytest.param("<stdin>", "own", id="typed at the prompt"),
        pytest.param("<ipython-input-3-abc>", "own", id="typed in a notebook"),
        pytest.param("<template>", "own", id="a template"),
    ],
)
def test_a_file_tells_whose_code_it_is(file, origin):
    assert ROOTS.origin_of(file) == origin


@pytest.mark.parametrize(
    ("prefix", "project", "file", "origin"),
    [
        pytest.param("/app/.venv/", "/app/", "/app/x.py", "own", id="a venv in the project"),
        pytest.param("/app/.venv/", "/app/", "/app/.venv/bin/uvicorn", "machinery", id="its bin"),
        pytest.param("/app/.venv/", "/app/", "/app/.venv/x.py", "machinery", id="its other files"),
        pytest.param("/srv/venv/", "/srv/shop/", "/srv/shop/x.py", "own", id="neighbours"),
        pytest.param("/srv/venv/", "/srv/", "/srv/venv/bin/x", "machinery", id="in its parent"),
        pytest.param("/usr/", "/usr/src/app/", "/usr/src/app/x.py", "own", id="below a prefix"),
        pytest.param("/usr/", "/usr/src/app/", "/usr/share/x.py", "machinery", id="…not all of it"),
        pytest.param("/usr/", "/", "/usr/share/x.py", "machinery", id="started in /"),
        pytest.param("/usr/", "/", "/srv/x.py", "own", id="…and lies elsewhere"),
        pytest.param("/app/", "/app/", "/app/x.py", "own", id="a venv that is the project"),
        pytest.param("/app/", "/app/", "/app/bin/uvicorn", "machinery", id="…but not its bin"),
    ],
)
def test_of_a_prefix_and_a_project_in_each_other_the_inner_one_wins(prefix, project, file, origin):
    roots = CodeRoots(machinery=(prefix, f"{prefix}bin/"), projects=(project,))
    assert roots.origin_of(file) == origin


def test_a_path_that_was_named_as_own_is_own_even_in_a_prefix():
    roots = CodeRoots(machinery=("/usr/",), own=("/usr/share/shop/",))
    assert roots.origin_of("/usr/share/shop/x.py") == "own"


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


@settings(deadline=None)
@given(st.text())
def test_any_file_name_has_an_origin(file):
    assert ROOTS.origin_of(file) in ("own", "library", "machinery")

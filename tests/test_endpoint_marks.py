"""What decorators leave on endpoints, and where it is found again."""

from functools import partial, partialmethod, wraps

import pytest

from perf_middleware import body_limit, cache_response, criticality, rate_limit, timeout
from perf_middleware.compression.decorators import hide_length, no_compression
from perf_middleware.endpoint_marks import leave_mark, mark_on

DECORATORS = {
    "timeout": timeout(1),
    "body_limit": body_limit(1),
    "criticality": criticality("sheddable"),
    "rate_limit": rate_limit("1/second"),
    "cache_response": cache_response(ttl=1),
    "no_compression": no_compression,
    "hide_length": hide_length,
}


async def read(request, number=0): ...


class Reader:
    async def read(self, request): ...


@pytest.mark.parametrize("name", DECORATORS)
def test_a_decorator_returns_the_endpoint_itself(name):
    async def endpoint(): ...

    assert DECORATORS[name](endpoint) is endpoint


@pytest.mark.parametrize("name", DECORATORS)
def test_a_bound_method_can_carry_no_mark_and_the_error_says_whose(name):
    with pytest.raises(TypeError, match=f"@{name} stands on a function or a class"):
        DECORATORS[name](Reader().read)


def marked(endpoint, value="mark"):
    return leave_mark(endpoint, "__a_mark__", value, decorator="a")


def wrapped():
    inner = marked(lambda: 1)

    @wraps(inner)
    def outer(): ...

    return outer


class Marked:
    @marked
    def get(self): ...


@pytest.mark.parametrize(
    ("endpoint", "method", "found"),
    [
        pytest.param(marked(lambda: 1), "GET", "mark", id="a function"),
        pytest.param(wrapped(), "GET", "mark", id="what wraps one as functools.wraps does"),
        pytest.param(partial(marked(lambda n: n), 1), "GET", "mark", id="a partial's function"),
        pytest.param(partial(partial(marked(lambda n: n), 1)), "GET", "mark", id="deeper"),
        pytest.param(
            marked(partial(marked(lambda n: n), 1), "own"), "GET", "own", id="a partial's own first"
        ),
        pytest.param(Marked, "GET", "mark", id="a method of a class"),
        pytest.param(Marked, "HEAD", "mark", id="HEAD is answered by get"),
        pytest.param(Marked, "POST", None, id="another method has its own"),
        pytest.param(Marked().get, "GET", "mark", id="a bound method of a marked function"),
        pytest.param(lambda: 1, "GET", None, id="none"),
        pytest.param(None, "GET", None, id="no endpoint"),
        pytest.param(partialmethod(read), "GET", None, id="what is no endpoint"),
    ],
)
def test_a_mark_is_found_on_what_answers(endpoint, method, found):
    assert mark_on(endpoint, method, "__a_mark__") == found

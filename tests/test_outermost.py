"""Each middleware that stands alone may be what a server serves: it is taken for ASGI 3."""

import inspect

import pytest

import perf_middleware

MIDDLEWARES = [name for name in perf_middleware.__all__ if name.endswith("Middleware")]


@pytest.mark.parametrize("name", [*MIDDLEWARES, "ProbeLane"])
def test_a_server_can_tell_it_from_an_app_of_asgi_2(name):
    # By this alone uvicorn does; an instance whose call makes no coroutine is called with a scope.
    assert inspect.iscoroutinefunction(getattr(perf_middleware, name).__call__)

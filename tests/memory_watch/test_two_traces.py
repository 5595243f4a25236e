"""The tracing of an inquiry: a cheap one without callers, a dear one with them where needed."""

from types import SimpleNamespace

import pytest

from perf_middleware.errors import TracingBusyError
from perf_middleware.memory_parts import MemoryParts
from perf_middleware.memory_watch.tracing.sites import GrowingSite, TraceReport


def report(*sites, ended_early=""):
    """Of (where, bytes, is_own)."""
    return TraceReport(
        seconds=2.5,
        sites=tuple(
            GrowingSite(
                where=where, bytes=size, count=9, bytes_per_s=size / 2.5, is_steady=None,
                sure_bytes_per_s=0, allocated_at=where, stack=(), is_own=is_own,
            )
            for where, size, is_own in sites
        ),
        bytes=sum(size for _, size, _ in sites),
        ended_early=ended_early,
    )  # fmt: skip


OWN, LIBRARY = ("app.py:3", 90_000, True), ("lib.py:1", 9_000, False)
CALLED = ("app.py:7", 9_000, True)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        pytest.param([report(OWN, LIBRARY)], OWN, id="the app's own line: once is enough"),
        pytest.param([report(LIBRARY, OWN)], LIBRARY,
                     id="also where it grew in a burst, and comes after what is steady"),
        pytest.param([report(LIBRARY), report(CALLED)], CALLED, id="a library's: who calls it?"),
        pytest.param([report(LIBRARY), report(CALLED, ended_early="busy")], LIBRARY,
                     id="that was too dear"),
        pytest.param([report(LIBRARY), report(("app.py:9", 900, True))], LIBRARY,
                     id="nobody asked meanwhile"),
        pytest.param([report(LIBRARY), TracingBusyError()], LIBRARY, id="somebody else traces"),
        pytest.param([report(LIBRARY, ended_early="busy")], LIBRARY, id="busy at once"),
        pytest.param([TracingBusyError()], None, id="not to be had"),
    ],
)  # fmt: skip
def test_what_is_seen_first_is_not_lost(answers, told):
    left = list(answers)

    def trace(seconds, frames=None):
        assert (seconds, frames) == ((5, 1) if len(left) == len(answers) else (2.5, None))
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    parts = SimpleNamespace(
        tracer=SimpleNamespace(trace=trace, must_stop=None),
        _looks=SimpleNamespace(has_closed=lambda: False),
    )
    seen = MemoryParts._trace(parts, 5)
    assert left == []
    assert (None if seen is None else seen.sites[0].where) == (told and told[0])

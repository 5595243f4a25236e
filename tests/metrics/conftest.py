"""What the tests of the metrics share."""

import pytest

TIMED = ("", ".exchange", ".connection")


class FakeClock:
    """perf_counter_ns, moved by hand."""

    def __init__(self):
        self.now_ns = 1_000_000_000_000

    def __call__(self):
        return self.now_ns

    def pass_s(self, seconds):
        self.now_ns += round(seconds * 1_000_000_000)


@pytest.fixture
def clock(monkeypatch):
    """The clock of the metrics middleware."""
    fake = FakeClock()
    for module in TIMED:
        monkeypatch.setattr(f"perf_middleware.metrics.middleware{module}.perf_counter_ns", fake)
    return fake

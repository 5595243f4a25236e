"""What the tests of the cache share."""

import pytest

from tests.driving import DEADLINE_S


@pytest.fixture(autouse=True)
def nobody_waits_in_vain(monkeypatch):
    """Who waits for another's answer gets it, however slow the machine; a test may say else."""
    place = "perf_middleware.caching.middleware.missing.UNPROVEN_WAIT_S"
    monkeypatch.setattr(place, 4 * DEADLINE_S)

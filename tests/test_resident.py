"""The memory of this process, or that nobody tells."""

from perf_middleware import resident
from perf_middleware.resident import UNKNOWN, resident_bytes


def test_resident_memory_is_read_or_unknown(monkeypatch):
    assert resident_bytes() > 1_000_000
    monkeypatch.setattr(resident, "_HAS_STATM", False)
    assert resident_bytes() > 1_000_000
    monkeypatch.setattr(resident, "_HAS_STATM", True)
    monkeypatch.setattr(resident, "_STATM", "/nonexistent")
    assert resident_bytes() == UNKNOWN

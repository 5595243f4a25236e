"""The benchmark of the compression layer: its rows answer what they should, its tables run."""

import pytest

from benchmarks import compression
from benchmarks.compression import (
    BARE,
    CHANGING,
    FORGETFUL,
    LARGE,
    OURS,
    UNCHANGED,
    case,
    changing,
    encoded,
    passed,
    sends,
    unchanged,
)
from benchmarks.runner import CheckError, Plan
from perf_middleware.compression.repeats import mark_of

QUICK = Plan(rounds=1, requests=1, seconds_max=1, loop="asyncio")


def test_each_coding_has_a_table_with_ours_and_starlettes_own():
    found = {
        one.report.title.removeprefix("20 kB of JSON as "): one.lengths for one in encoded(QUICK)
    }
    assert "starlette GZipMiddleware" in found[f"gzip, {UNCHANGED}"]
    assert all(lengths[OURS] < lengths[BARE] == len(LARGE) for lengths in found.values())
    for kind, lengths in found.items():
        assert (FORGETFUL in lengths) is kind.endswith(CHANGING)
        assert lengths.get(FORGETFUL, lengths[OURS]) == lengths[OURS]


def test_a_body_is_the_same_or_another_as_its_table_says():
    assert unchanged(0) == unchanged(1) == LARGE
    assert unchanged(0) is not unchanged(1)
    assert len(changing(0)) == len(changing(7)) == len(LARGE)
    assert changing(0) != changing(7)
    assert mark_of(changing(0)) == mark_of(changing(7)), "the dearest of those that never repeat"


def test_what_passes_is_measured_beside_the_bare_app():
    reports = passed(QUICK)
    assert len(reports) == 4
    for report in reports:
        assert {BARE, OURS} <= {cost.name for cost in report.costs}


def test_a_row_that_loses_the_body_ends_the_run():
    def cuts(app):
        return compression.ours(sends(LARGE[1:]))

    with pytest.raises(CheckError, match="cuts: another body"):
        case("cuts", cuts, lambda: sends(LARGE), accepts="gzip", body=LARGE)

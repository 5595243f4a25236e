"""The benchmark of the compression layer: its rows answer what they should, its tables run."""

import pytest

from benchmarks import compression
from benchmarks.compression import BARE, LARGE, OURS, case, encoded, passed, sends
from benchmarks.runner import CheckError, Plan

QUICK = Plan(rounds=1, requests=1, seconds_max=1, loop="asyncio")


def test_each_coding_has_a_table_with_ours_and_starlettes_own():
    found = {one.report.title.rpartition(" ")[2]: one.lengths for one in encoded(QUICK)}
    assert "starlette GZipMiddleware" in found["gzip"]
    assert all(lengths[OURS] < lengths[BARE] == len(LARGE) for lengths in found.values())


def test_what_passes_is_measured_beside_the_bare_app():
    reports = passed(QUICK)
    assert len(reports) == 4
    for report in reports:
        assert {BARE, OURS} <= {cost.name for cost in report.costs}


def test_a_row_that_loses_the_body_ends_the_run():
    def cuts(app):
        return compression.ours(sends(LARGE[1:]))

    with pytest.raises(CheckError, match="cuts: another body"):
        case("cuts", cuts, sends(LARGE), accepts="gzip", body=LARGE)

"""The tables of structures and of the collector run through, with few entries."""

import gc

import pytest

from benchmarks import garbage, structures
from benchmarks.structures import TABLES, measure


@pytest.mark.parametrize(
    ("table", "row"),
    [
        pytest.param(table, row, id=f"{table.title}: {row.name}")
        for table in TABLES
        for row in table.rows
    ],
)
def test_every_row_is_measured(table, row, monkeypatch):
    monkeypatch.setattr(structures, "READS", 20)
    result = measure(table, row, entries=min(table.entries, 300))
    assert result.name == row.name
    assert result.read_us >= 0
    assert (result.in_order_us is None) == (row.in_order is None)


def test_the_printed_table_has_a_line_for_each_row():
    table = TABLES[0]
    results = [measure(table, row, entries=50) for row in table.rows[:2]]
    lines = structures.printed(table, results).splitlines()
    assert [line[: len(row.name)] for line, row in zip(lines[3:], table.rows, strict=False)] == [
        row.name for row in table.rows[:2]
    ]


@pytest.mark.parametrize("setting", garbage.SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_of_the_collector_is_measured(setting, monkeypatch):
    monkeypatch.setattr(garbage, "LONG_LIVED", 100)
    before = gc.get_threshold()
    try:
        result = garbage.measure(setting, requests=1_200, cycle_bytes=10, sessions_max=50)
    finally:
        gc.set_threshold(*before)
    assert (result.collections[0] > 0) == (setting.thresholds is None)  # else too few objects
    assert 0 <= result.share < 1
    assert setting.name in garbage.table([result])

"""The benchmark of the codecs: its rows do what they say, its tables run through."""

import json

import pytest

from benchmarks import codecs
from benchmarks.codecs import Row, bodies, events, measured, ours, peers, told, told_streams
from benchmarks.runner import CheckError
from perf_middleware.compression.levels import LEVELS

BODY = codecs.json_body(2_000)


def test_the_bodies_are_the_same_in_every_run_and_of_their_size():
    first, second = bodies(), bodies()
    assert first == second
    json.loads(first["JSON, 20 kB"])
    assert 20_000 <= len(first["JSON, 20 kB"]) < 21_000
    assert all(event.endswith(b"\n\n") for event in events())


def test_every_level_has_a_row_and_a_quick_run_those_that_are_defaults():
    every = {row.name for row in ours(quick=False)}
    assert {"gzip 1", "gzip 9", "br 0", "br 11", "zstd 1", "zstd 19"} <= every
    quick = {row.name for row in ours(quick=True)}
    assert {f"{name} {levels.on_the_fly}" for name, levels in LEVELS.items()} <= quick < every


def test_a_row_that_loses_the_body_ends_the_run():
    wrong = Row(coding="gzip", name="wrong", encode=lambda body: peers()[0].encode(body[1:]))
    with pytest.raises(CheckError, match="wrong: another body"):
        measured("a body", BODY, [wrong], rounds=1, seconds_max=1)


def test_a_table_compares_with_the_fastest_peer_of_the_coding():
    own, *_ = (row for row in ours(quick=True) if row.name == "gzip 4")
    row = peers()[0]
    lines = measured("a body", BODY, [own, row], rounds=2, seconds_max=5)
    text = told("a body", lines)
    assert "| **gzip 4** |" in text
    assert lines[1].x_peer == pytest.approx(1)
    assert lines[1].ratio_x_peer == 1
    alone = measured("a body", BODY, [own], rounds=1, seconds_max=5)
    assert alone[0].x_peer is None
    assert told("a body", alone).endswith("| | |")


def test_streams_are_told_with_their_memory(monkeypatch):
    monkeypatch.setattr(codecs, "STREAMS", 2)
    line = codecs._streamed("gzip", 6, True)
    assert line.name == "gzip 6, small window"
    assert line.ratio > 1
    assert "| gzip 6, small window |" in told_streams([line])

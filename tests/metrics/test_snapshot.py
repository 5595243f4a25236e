"""Snapshots: what goes in comes out, and any other bytes are refused with our own error."""

from __future__ import annotations

import contextlib
import math
import struct
import zlib

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.families import (
    NO_LABELS,
    Distribution,
    Exemplar,
    Family,
    LabelSet,
    Value,
    counter,
    gauge,
)
from perf_middleware.metrics.workers.frames import (
    FRAME_COUNTS,
    FRAME_POINTS,
    SnapshotError,
    frames_of,
    labels_of,
)
from perf_middleware.metrics.workers.snapshot import (
    FOLDED_MAX,
    PREAMBLE_BYTES,
    VERSION,
    decode,
    encode_head,
    epoch_of,
)
from tests.metrics.snapshots import encode, families_of

LABEL_NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)
LABEL_SETS = st.dictionaries(LABEL_NAMES, st.text(max_size=210), max_size=3).map(
    lambda pairs: LabelSet(pairs.items())
)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
VALUES = st.lists(st.builds(Value, LABEL_SETS, NUMBERS), max_size=5)
EXEMPLARS = st.builds(
    Exemplar, st.text("0123456789abcdef", max_size=32), st.floats(0, 9), st.floats(0, 9)
)
DISTRIBUTIONS = st.builds(
    Distribution,
    LABEL_SETS,
    st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3),
    st.floats(allow_nan=False),
    st.none() | st.dictionaries(st.integers(0, 2), EXEMPLARS, min_size=1),
)
NAMES = st.from_regex(r"[a-z_]{1,12}x", fullmatch=True)
FAMILIES = st.one_of(
    st.builds(counter, NAMES, st.text(st.characters(codec="utf-8")), VALUES),
    st.builds(
        gauge, NAMES, st.just("h"), VALUES, across=st.sampled_from(["sum", "max", "min", "each"])
    ),
    st.builds(
        lambda name, points: Family(
            name=f"{name}_seconds", kind="histogram", help="", unit="seconds",
            bounds=(0.1, 2.0), points=points,
        ),
        NAMES,
        st.lists(DISTRIBUTIONS, max_size=4),
    ),
)  # fmt: skip


def listed(families):
    return [
        (f.name, f.kind, f.help, f.unit, tuple(f.bounds), f.across, list(f.points))
        for f in families
    ]


def record(value):
    payload = ormsgpack.packb(value)
    return struct.pack(">II", len(payload), zlib.crc32(payload)) + payload


@given(st.lists(FAMILIES, max_size=4), st.integers(0, 2**64 - 1))
def test_what_is_encoded_comes_out_again(families, epoch):
    snapshot = decode(encode(families, epoch=epoch, folded=("a", "b")))
    assert (snapshot.epoch, snapshot.folded) == (epoch, ("a", "b"))
    assert listed(families_of(snapshot.frames())) == listed(families)


def test_a_family_of_many_points_becomes_short_frames_and_loses_none():
    points = [Value(LabelSet([("i", str(i))]), i) for i in range(2 * FRAME_POINTS + 1)]
    frames = list(decode(encode([counter("n", "h", iter(points))])).frames())
    assert [len(frame.keys) for frame in frames] == [FRAME_POINTS, FRAME_POINTS, 1]
    many = Family(
        name="h", kind="histogram", help="", bounds=range(FRAME_COUNTS - 1),
        points=[Distribution(NO_LABELS, range(FRAME_COUNTS), 1.0)] * 3,
    )  # fmt: skip
    assert [len(frame.keys) for frame in frames_of([many])] == [1, 1, 1]
    assert [p for family in families_of(frames) for p in family.points] == points


def test_numbers_that_are_no_plain_numbers_are_kept_as_floats():
    family = gauge("g", "h", [Value(NO_LABELS, True), Value(LabelSet([("a", "b")]), 2**70)])
    (out,) = families_of(decode(encode([family])).frames())
    assert [point.value for point in out.points] == [1.0, float(2**70)]
    (nan,) = families_of(decode(encode([gauge("g", "h", [Value(NO_LABELS, math.nan)])])).frames())
    assert math.isnan(next(iter(nan.points)).value)


def test_a_lone_surrogate_in_a_help_text_is_replaced():
    (out,) = families_of(decode(encode([counter("n", "\ud800", [])])).frames())
    assert out.help == "?"


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(counter("n", "h", [Distribution(NO_LABELS, [1], 1.0)]), id="no value"),
        pytest.param(
            Family(
                name="n", kind="histogram", help="", bounds=(1.0,), points=[Value(NO_LABELS, 1)]
            ),
            id="no distribution",
        ),
        pytest.param(
            Family(
                name="n", kind="histogram", help="", bounds=(1.0,),
                points=[Distribution(NO_LABELS, [1, 2, 3], 1.0)],
            ),
            id="too many buckets",
        ),
        pytest.param(
            Family(
                name="n", kind="histogram", help="", bounds=(),
                points=[Distribution(NO_LABELS, [-1], 1.0)],
            ),
            id="a negative count",
        ),
        pytest.param(
            Family(
                name="n", kind="histogram", help="", bounds=(),
                points=[Distribution(NO_LABELS, [1.5], 1.0)],
            ),
            id="half a count",
        ),
    ],
)  # fmt: skip
def test_a_point_that_does_not_fit_its_family_is_an_error(family):
    with pytest.raises(ValueError, match=r"a point is no|not a count"):
        list(frames_of([family]))


@given(LABEL_SETS)
def test_a_label_set_is_found_again_in_its_text(labels):
    assert labels_of(labels.text) == labels


@given(st.text())
def test_any_text_is_a_label_set_or_our_error(text):
    with contextlib.suppress(SnapshotError):
        labels_of(text)


def read_all(data):
    return list(families_of(decode(data).frames()))


def assert_refused_or_read(data):
    with contextlib.suppress(SnapshotError):
        read_all(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_snapshot_or_our_error(data):
    assert_refused_or_read(data)
    assert_refused_or_read(encode_head(epoch=0) + data)


JSONISH = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=12,
)
ALMOST_FRAMES = st.tuples(
    st.sampled_from(["n", "", "1x", 3]), st.integers(-1, 3),
    st.just("h"), st.sampled_from(["", "s"]),
    st.sampled_from([[], [1.0], [1]]), st.integers(-1, 4),
    st.sampled_from([[], ["k"], ['a="b"'], ['a="b"', ""]]),
    JSONISH | st.sampled_from([[1], [[1.5]], [[]]]),
    JSONISH | st.sampled_from([b"", b"\xff" * 16, b"\0" * 8]),
    JSONISH | st.just([[0, 0, "t", 1.0, 2.0]]),
).map(list)  # fmt: skip


@given(JSONISH | ALMOST_FRAMES)
def test_any_record_with_a_right_checksum_is_a_frame_or_our_error(value):
    assert_refused_or_read(encode_head(epoch=0) + record(value))


FAMILY = Family(
    name="n", kind="histogram", help="h", bounds=(1.0,),
    points=[Distribution(LabelSet([("a", "b")]), [1, 2], 1.5, {1: Exemplar("t", 1.0, 2.0)})],
)  # fmt: skip


@given(st.data())
def test_no_altered_or_shortened_snapshot_is_read(data):
    whole = encode([FAMILY], folded=["x"])
    at = data.draw(st.integers(0, len(whole) - 1))
    flip = data.draw(st.integers(1, 255))
    with pytest.raises(SnapshotError):
        read_all(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    head = len(encode_head(epoch=0, folded=["x"]))
    if at != head:  # there it is a whole snapshot without any figures
        with pytest.raises(SnapshotError):
            read_all(whole[:at])


def test_another_version_is_refused_by_name():
    preamble = struct.pack(">BQ", VERSION + 1, 0)
    data = preamble + struct.pack(">I", zlib.crc32(preamble)) + record([])
    with pytest.raises(SnapshotError, match=f"version {VERSION + 1}, not {VERSION}"):
        decode(data)


def test_the_epoch_is_read_from_the_first_bytes_alone():
    assert epoch_of(encode([FAMILY], epoch=7)[:PREAMBLE_BYTES]) == 7


def test_a_list_of_folded_workers_has_a_bound():
    with pytest.raises(SnapshotError, match="not a list of workers"):
        decode(encode_head(epoch=0, folded=["x"] * (FOLDED_MAX + 1)))

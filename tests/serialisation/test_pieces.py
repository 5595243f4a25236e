"""Gatherer: whatever is taken when, the pieces together are one JSON text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.serialisation.pieces import LINES, Gatherer, Layout

ITEMS = st.lists(
    st.recursive(
        st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8")),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner)
        ),
        max_leaves=5,
    )
)


def gathered(layout, items, piece_bytes):
    gatherer = Gatherer(layout)
    pieces = [gatherer.take() for item in items if gatherer.add(item) >= piece_bytes]
    return [*pieces, gatherer.end()]


@given(ITEMS, st.integers(1, 200))
def test_the_pieces_of_an_array_are_one_array(items, piece_bytes):
    assert json.loads(b"".join(gathered(Layout.array(), items, piece_bytes))) == items


@given(ITEMS, st.integers(1, 200), st.text(st.characters(codec="utf-8")))
def test_an_array_may_stand_in_an_object(items, piece_bytes, key):
    pieces = gathered(Layout.array(key), items, piece_bytes)
    assert json.loads(b"".join(pieces)) == {key: items}


@given(ITEMS, st.integers(1, 200))
def test_lines_are_one_item_each_and_every_piece_ends_a_line(items, piece_bytes):
    pieces = gathered(LINES, items, piece_bytes)
    assert [json.loads(line) for line in b"".join(pieces).split(b"\n")[:-1]] == items
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        pytest.param(Layout.array(), b"[]", id="array"),
        pytest.param(Layout.array("rows"), b'{"rows":[]}', id="object"),
        pytest.param(LINES, b"", id="lines"),
    ],
)
def test_no_items_are_a_whole_text_too(layout, text):
    assert gathered(layout, [], 1) == [text]


def test_a_piece_is_no_larger_than_its_size_and_one_item():
    pieces = gathered(Layout.array(), ["x" * 98] * 1_000, 1_000)
    assert max(map(len, pieces)) < 1_000 + 101
    assert len(pieces) > 90


def test_an_item_that_cannot_be_json_is_named_by_its_number():
    gatherer = Gatherer(Layout.array())
    gatherer.add({"fine": 1})
    with pytest.raises(TypeError, match=r"^item 1: content\['bad'\] \(object\) cannot be JSON"):
        gatherer.add({"bad": object()})

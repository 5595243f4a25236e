"""What the names of fields say, remembered by their sequence."""

import pytest

from perf_middleware import field_names
from perf_middleware.field_names import NAME, NameSequences


def places():
    return NameSequences(lambda names: names.index(b"x") if b"x" in names else -1)


def test_a_sequence_is_read_once_and_in_any_case():
    read = []
    sequences = NameSequences(lambda names: read.append(names) or len(read))
    headers = [(b"A", b"1"), (b"x", b"2")]
    assert sequences.learn(headers) == 1
    assert sequences.known[tuple(map(NAME, headers))] == 1
    assert read == [[b"a", b"x"]]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        pytest.param([(b"a", b""), [b"X", b""]], 1, id="lists as pairs"),
        pytest.param([("a", ""), (None, b""), (b"x", b"")], 2, id="no name keeps its place"),
        pytest.param([(bytearray(b"x"), b"")], 0, id="bytes of another kind"),
        pytest.param([], -1, id="none"),
    ],
)
def test_whatever_an_app_calls_a_name(headers, found):
    assert places().learn(headers) == found


def test_only_so_many_are_kept_and_none_that_is_long_or_can_change(monkeypatch):
    monkeypatch.setattr(field_names, "SEQUENCES_MAX", 2)
    sequences = places()
    for name in (b"a", b"b", b"c", b"x" * 2_001, bytearray(b"d")):
        sequences.learn([(name, b"")])
    assert list(sequences.known) == [(b"c",)]

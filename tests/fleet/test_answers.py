"""Cutting bytes into answers: any pieces, any bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.fleet.answers import (
    ANSWER_BYTES_MAX,
    DEPTH_MAX,
    LINE_BYTES_MAX,
    AnswerReader,
    GarbageError,
    Pushed,
)


def reader():
    return AnswerReader(RuntimeError)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        pytest.param(b"$3\r\na\r\n\r\n", b"a\r\n", id="a text"),
        pytest.param(b"$0\r\n\r\n", b"", id="an empty text"),
        pytest.param(b"$-1\r\n", None, id="no text, in RESP2"),
        pytest.param(b"_\r\n", None, id="nothing"),
        pytest.param(b"+OK\r\n", b"OK", id="a status"),
        pytest.param(b":-5\r\n", -5, id="a number"),
        pytest.param(b"(123456789012345678901\r\n", 123456789012345678901, id="a big number"),
        pytest.param(b",1.5\r\n", 1.5, id="a real number"),
        pytest.param(b"#t\r\n", True, id="yes"),
        pytest.param(b"#f\r\n", False, id="no"),
        pytest.param(b"=7\r\ntxt:abc\r\n", b"abc", id="a verbatim text"),
        pytest.param(b"*2\r\n:1\r\n$1\r\na\r\n", [1, b"a"], id="an array"),
        pytest.param(b"*-1\r\n", None, id="no array, in RESP2"),
        pytest.param(b"~1\r\n:1\r\n", [1], id="a set"),
        pytest.param(b"%1\r\n+a\r\n:1\r\n", [(b"a", 1)], id="a map"),
        pytest.param(b">2\r\n+message\r\n+x\r\n", Pushed([b"message", b"x"]), id="a message"),
    ],
)
def test_an_answer_is_read(data, answer):
    assert reader().feed(data) == [answer]


@pytest.mark.parametrize("data", [b"-ERR no\r\n", b"!6\r\nERR no\r\n"])
def test_an_error_of_the_server_is_an_answer(data):
    (error,) = reader().feed(data)
    assert isinstance(error, RuntimeError)
    assert str(error) == "ERR no"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="another protocol"),
        pytest.param(b"$x\r\n", id="a length that is no number"),
        pytest.param(b"$%d\r\n" % (ANSWER_BYTES_MAX + 1), id="a text without end"),
        pytest.param(b"*99999999\r\n", id="items without end"),
        pytest.param(b"*1\r\n" * (DEPTH_MAX + 1), id="arrays in arrays without end"),
        pytest.param(b"+" + b"a" * (LINE_BYTES_MAX + 1), id="a line without end"),
        pytest.param(b",one\r\n", id="a real number that is none"),
    ],
)
def test_garbage_is_an_error_and_takes_no_memory(data):
    with pytest.raises(GarbageError):
        reader().feed(data)


values = st.recursive(
    st.one_of(st.none(), st.binary(max_size=50), st.integers(-(2**63), 2**63)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


def sent(value):
    if value is None:
        return b"_\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return b"*%d\r\n%b" % (len(value), b"".join(map(sent, value)))


@given(st.lists(values, max_size=6), st.data())
def test_however_it_is_cut_the_answers_are_the_same(answers, data):
    whole = b"".join(map(sent, answers))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    own, heard = reader(), []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        heard += own.feed(whole[start:end])
    assert heard == answers


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_answers_or_garbage(pieces):
    own = reader()
    try:
        for piece in pieces:
            own.feed(piece)
    except GarbageError:
        pass


def test_a_long_text_in_many_pieces_is_joined_once():
    own, body = reader(), b"x" * 1_000_000
    whole = b"$%d\r\n%b\r\n:1\r\n" % (len(body), body)
    heard = []
    for start in range(0, len(whole), 10_000):
        heard += own.feed(whole[start : start + 10_000])
    assert heard == [body, 1]

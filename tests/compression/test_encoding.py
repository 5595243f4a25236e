"""Which answers are encoded, and what their heads become."""

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.compression.content_types import CompressibleTypes
from perf_middleware.compression.encoding import REMEMBERED_MAX, Judge, coded, varied
from perf_middleware.compression.etags import suffix_of

JSON = (b"content-type", b"application/json")
GZIP = (b"content-encoding", b"gzip")
LONG = (b"content-length", b"5000")


def judge(**settings):
    return Judge(**{"minimum_bytes": 500, "types": CompressibleTypes.of()} | settings)


@pytest.mark.parametrize(
    ("status", "headers", "verdict"),
    [
        pytest.param(200, [JSON, LONG], "encode", id="JSON"),
        pytest.param(200, [JSON], "encode", id="of unknown length"),
        pytest.param(404, [JSON, LONG], "encode", id="an error is an answer too"),
        pytest.param(200, [(b"Content-Type", b"Text/HTML; charset=utf-8")], "encode", id="case"),
        pytest.param(200, [JSON, (b"content-length", b"500")], "encode", id="just long enough"),
        pytest.param(200, [JSON, (b"content-length", b"499")], "small", id="too short"),
        pytest.param(200, [JSON, (b"Content-Length", b"499")], "small", id="too short, capitals"),
        pytest.param(200, [JSON, (b"content-length", b"0")], "small", id="empty"),
        pytest.param(200, [JSON, (b"content-length", b"007")], "small", id="zeros in front"),
        pytest.param(404, [JSON, (b"content-length", b"7")], "small", id="a short error"),
        pytest.param(200, [(b"content-type", b"image/png"), LONG], "type", id="packed already"),
        pytest.param(200, [LONG], "type", id="no type"),
        pytest.param(200, [(b"content-type", b"nonsense"), LONG], "type", id="no media type"),
        pytest.param(200, [], "type", id="no headers"),
        pytest.param(103, [JSON], "status", id="interim"),
        pytest.param(204, [JSON], "status", id="204"),
        pytest.param(205, [JSON], "status", id="205"),
        pytest.param(206, [JSON, LONG], "status", id="206"),
        pytest.param(304, [JSON], "status", id="304"),
        pytest.param("200", [JSON], "status", id="a status that is none"),
        pytest.param(200, [JSON, LONG, (b"content-encoding", b"br")], "coded", id="encoded"),
        pytest.param(200, [JSON, LONG, (b"Content-Encoding", b"br")], "coded", id="in capitals"),
        pytest.param(200, [JSON, (b"transfer-encoding", b"chunked")], "coded", id="framed"),
        pytest.param(416, [JSON, LONG, (b"content-range", b"bytes */9")], "range", id="416"),
        pytest.param(
            200, [JSON, LONG, (b"cache-control", b"public, no-transform")], "no-transform",
            id="no-transform",
        ),
        pytest.param(
            200, [JSON, LONG, (b"cache-control", b"public"), (b"cache-control", b"No-Transform")],
            "no-transform", id="no-transform on a second line",
        ),
        pytest.param(
            200, [JSON, LONG, (b"cache-control", b"x-no-transformers")], "encode",
            id="another directive",
        ),
        pytest.param(200, [JSON, LONG, (b"content-digest", b"x")], "digest", id="Content-Digest"),
        pytest.param(200, [JSON, LONG, (b"repr-digest", b"x")], "digest", id="Repr-Digest"),
        pytest.param(200, [JSON, LONG, (b"content-md5", b"x")], "digest", id="Content-MD5"),
        pytest.param(200, [JSON, LONG, (b"digest", b"x")], "digest", id="Digest"),
        pytest.param(200, [JSON, LONG, (b"signature-input", b"x")], "digest", id="signed"),
        pytest.param(
            200, [JSON, LONG, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")], "encode",
            id="two cookies",
        ),
        pytest.param(200, [JSON, LONG, LONG], "encode", id="the same length twice"),
        pytest.param(
            200, [JSON, LONG, (b"content-length", b"5001")], "malformed", id="two lengths"
        ),
        pytest.param(200, [JSON, (b"content-length", b"-5")], "malformed", id="no length"),
        pytest.param(200, [JSON, (b"content-length", b"9" * 30)], "malformed", id="no such length"),
        pytest.param(200, [("content-type", "text/html")], "type", id="text"),
        pytest.param(200, [b"content-type"], "malformed", id="no pairs"),
        pytest.param(HTTPStatus.OK, [JSON, LONG], "encode", id="a member of HTTPStatus"),
        pytest.param(200, [(b"content-type", b"text/event-stream")], "events", id="events"),
    ],
)  # fmt: skip
def test_an_answer_is_judged_by_its_head(status, headers, verdict):
    assert judge().judge(status, headers) == verdict


@pytest.mark.parametrize(
    ("minimum_bytes", "below"), [(0, None), (1, 0), (500, 499), (90_000, 89_999)]
)
def test_the_minimum_is_the_same_however_long_it_is(minimum_bytes, below):
    judging = judge(minimum_bytes=minimum_bytes)
    assert judging.judge(200, [JSON, (b"content-length", b"%d" % minimum_bytes)]) == "encode"
    if below is not None:
        assert judging.judge(200, [JSON, (b"content-length", b"%d" % below)]) == "small"


def test_event_streams_can_be_left_out():
    events = [(b"content-type", b"text/event-stream; charset=utf-8")]
    assert judge(event_streams=False).judge(200, events) == "type"
    assert judge(event_streams=False).judge(200, [JSON]) == "encode"


def test_what_is_remembered_of_heads_is_bounded():
    judging = judge()
    for number in range(REMEMBERED_MAX + 10):
        judging.judge(200, [(b"content-type", b"text/x%d" % number)])
        judging.judge(200, [JSON, (b"x-%d" % number, b"1")])
        judging.judge(200, [JSON, (b"cache-control", b"max-age=%d" % number)])
    judging.judge(200, [(b"content-type", b"text/" + b"x" * 5_000)])
    judging.judge(200, [JSON, (b"cache-control", b"x" * 5_000)])
    judging.judge(200, [JSON, (b"x" * 5_000, b"1")])
    values = [
        said if isinstance(said, bytes) else b"".join(said)
        for *_, verdicts in judging._heads.values()
        for said in verdicts
    ]
    assert 0 < len(values) + len(judging._heads) <= REMEMBERED_MAX
    assert all(len(b"".join(names)) < 1_100 for names in judging._heads)
    assert all(len(said) < 1_100 for said in values)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"content-type", b"Content-Type", b"cache-control", b"etag", b"digest",
                             b"content-length", b"CONTENT-LENGTH", b"x-a"]),
            st.sampled_from([b"text/html", b"image/png", b"no-transform", b"499", b"5000", b"x"]),
        ),
        max_size=4,
    ),
    st.sampled_from([200, 204, 404]),
)  # fmt: skip
def test_what_is_remembered_changes_no_verdict(headers, status):
    judging = judge()
    first = judging.judge(status, headers)
    judging.judge(200, headers)
    judging.judge(200, [(name, b"x") for name, _ in headers])
    assert judging.judge(status, headers) == first == judge().judge(status, headers)
    assert judging.judge_plain(status, headers) in (None, first)


def test_most_answers_are_judged_by_what_is_known_of_their_like():
    judging = judge()
    assert judging.judge_plain(200, [JSON, LONG]) is None, "it was not judged before"
    judging.judge(200, [JSON, LONG])
    assert judging.judge_plain(200, [JSON, LONG]) == "encode"
    for other in ([JSON, LONG, (b"vary", b"*")], [JSON, (b"content-length", b"12")], [LONG]):
        judging.judge(200, other)
        assert judging.judge_plain(200, other) is None
    assert judging.judge_plain(404, [JSON, LONG]) is None


@given(st.integers(), st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9))))
def test_no_head_makes_it_fail(status, headers):
    assert isinstance(judge().judge(status, headers), str)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], [(b"vary", b"Accept-Encoding")], id="none"),
        pytest.param([(b"vary", b"Cookie")], [(b"vary", b"Cookie, Accept-Encoding")], id="one"),
        pytest.param(
            [(b"Vary", b"Cookie"), JSON, (b"vary", b"Accept")],
            [(b"Vary", b"Cookie"), JSON, (b"vary", b"Accept, Accept-Encoding")],
            id="two lines",
        ),
        pytest.param([(b"vary", b"")], [(b"vary", b"Accept-Encoding")], id="an empty one"),
        pytest.param([(b"vary", b"*")], [(b"vary", b"*")], id="everything"),
        pytest.param(
            [(b"vary", b"Cookie, accept-ENCODING")], [(b"vary", b"Cookie, accept-ENCODING")],
            id="there already",
        ),
        pytest.param(
            [(b"vary", b"x-accept-encoding")], [(b"vary", b"x-accept-encoding, Accept-Encoding")],
            id="another field",
        ),
    ],
)  # fmt: skip
def test_vary_names_accept_encoding_once(headers, expected):
    assert varied(headers) == expected
    assert varied(varied(headers)) == expected


def test_the_head_of_an_encoded_answer_speaks_of_its_own_bytes():
    app = [JSON, LONG, (b"ETag", b'"1"'), (b"accept-ranges", b"bytes"), (b"x-app", b"1")]
    assert coded(app, GZIP, suffix=suffix_of("gzip"), body_bytes=123) == [
        JSON, (b"ETag", b'W/"1~pm-gzip"'), (b"x-app", b"1"), GZIP, (b"content-length", b"123"),
        (b"vary", b"Accept-Encoding"),
    ]  # fmt: skip
    assert app[1] == LONG, "the app's own list is not touched"


def test_a_length_that_nobody_knows_is_not_told():
    names = [name for name, _ in coded([JSON, LONG], GZIP, suffix=b"", body_bytes=None)]
    assert names == [b"content-type", b"content-encoding", b"vary"]


def test_the_tag_in_the_answer_of_an_unsafe_method_is_the_resources():
    assert (b"etag", b'"1"') in coded([JSON, (b"etag", b'"1"')], GZIP, suffix=b"", body_bytes=9)

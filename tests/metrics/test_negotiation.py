"""Which form of the page a client gets, and whether it may be gzipped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.metrics.exposition.negotiation import HEADER_BYTES_MAX, accepts_gzip, negotiate

PROMETHEUS_2 = (
    b"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    b"text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_NATIVE = (
    b"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    b"application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;"
    b"q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    b"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    b"application/openmetrics-text;version=0.0.1;q=0.5,"
    b"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_TEXT_FIRST = (
    b"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.2"
)
CHROME = (
    b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8,"
    b"application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param(None, "text", id="no header: the form that everything reads"),
        pytest.param(b"", "text", id="empty"),
        pytest.param(b"*/*", "text", id="curl"),
        pytest.param(CHROME, "text", id="a browser"),
        pytest.param(PROMETHEUS_2, "openmetrics", id="Prometheus 2"),
        pytest.param(PROMETHEUS_2_NATIVE, "openmetrics", id="Prometheus 2, native histograms"),
        pytest.param(PROMETHEUS_3, "openmetrics", id="Prometheus 3"),
        pytest.param(PROMETHEUS_3_TEXT_FIRST, "text", id="Prometheus 3, text preferred"),
        pytest.param(b"application/json", "json", id="json"),
        pytest.param(b"APPLICATION/JSON", "json", id="types know no case"),
        pytest.param(b"application/json, text/plain, */*", "text", id="axios"),
        pytest.param(b"application/json, */*;q=0.5", "json", id="json before anything else"),
        pytest.param(b"application/*", "json", id="a wildcard that leaves text out"),
        pytest.param(b"text/*;q=0.4, application/json;q=0.3", "text", id="the higher qvalue"),
        pytest.param(b"text/plain;q=0, */*", "json", id="an excluded type is not the wildcard's"),
        pytest.param(b"application/openmetrics-text", "openmetrics", id="any version"),
        pytest.param(b'application/openmetrics-text;version="1.0.0"', "openmetrics", id="quoted"),
        pytest.param(
            b"application/openmetrics-text;version=2.0.0, text/plain;q=0.1",
            "text",
            id="a version that we do not speak",
        ),
        pytest.param(b'application/json;a="b,c;q=0"', "json", id="commas inside quotes"),
        pytest.param(b"application/json ; q=1.000", "json", id="blanks, three digits"),
        pytest.param(b"application/json;q=2", "text", id="a qvalue above one says nothing"),
        pytest.param(b"application/json;q=0.1234", "text", id="four digits say nothing"),
        pytest.param(b"application/json;q=-1", "text", id="a negative qvalue"),
        pytest.param(b"image/png", "text", id="nothing acceptable: text all the same"),
        pytest.param(b"*/*;q=0", "text", id="nothing at all"),
        pytest.param(b",,;;==\xff", "text", id="noise"),
        pytest.param(b"application/json," + b"x" * HEADER_BYTES_MAX, "text", id="too long"),
    ],
)
def test_the_form_with_the_highest_qvalue_is_chosen(accept, expected):
    assert negotiate(accept) == expected


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        pytest.param(None, False, id="no header: not known"),
        pytest.param(b"", False, id="identity only"),
        pytest.param(b"gzip", True, id="Prometheus"),
        pytest.param(b"gzip, deflate, br, zstd", True, id="a browser"),
        pytest.param(b"x-gzip", True, id="its old name"),
        pytest.param(b"GZip;q=0.5", True, id="case, qvalue"),
        pytest.param(b"gzip;q=0", False, id="excluded"),
        pytest.param(b"gzip;q=0.000, *", False, id="excluded beside a wildcard"),
        pytest.param(b"*", True, id="anything"),
        pytest.param(b"*;q=0", False, id="nothing"),
        pytest.param(b"br, *;q=0.1", True, id="the wildcard covers it"),
        pytest.param(b"identity;q=1, gzip;q=0.5", False, id="plain preferred"),
        pytest.param(b"deflate, br", False, id="others"),
        pytest.param(b"\xff\x00;q", False, id="noise"),
    ],
)
def test_gzip_is_used_where_it_is_accepted(accept_encoding, expected):
    assert accepts_gzip(accept_encoding) is expected


header_like = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.sampled_from(
            [b"application/json", b"text/plain", b"*/*", b"gzip", b";q=", b"0", b"1", b".", b'"',
             b"\\", b",", b";", b" ", b"=", b"version", b"\xff", b"\x00"]
        ),
        max_size=40,
    ).map(b"".join),
)  # fmt: skip


@given(header_like)
def test_no_header_raises(header):
    assert negotiate(header) in ("text", "openmetrics", "json")
    assert accepts_gzip(header) in (True, False)

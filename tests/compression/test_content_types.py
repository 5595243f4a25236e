"""Which media types are compressed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.compression.content_types import (
    DEFAULT_PATTERNS,
    CompressibleTypes,
    is_event_stream,
    media_type,
)

DEFAULT = CompressibleTypes.of()


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        pytest.param(b"text/html", True, id="HTML"),
        pytest.param(b"text/html; charset=utf-8", True, id="with a parameter"),
        pytest.param(b"TEXT/HTML;charset=UTF-8", True, id="in capitals"),
        pytest.param(b" text/plain ;", True, id="white space, an empty parameter"),
        pytest.param(b"text/x-unheard-of", True, id="any text"),
        pytest.param(b"application/json", True, id="JSON"),
        pytest.param(b"application/problem+json", True, id="a suffix"),
        pytest.param(b"application/vnd.api+json;ext=bulk", True, id="a suffix and a parameter"),
        pytest.param(b"application/a+b+json", True, id="the last suffix counts"),
        pytest.param(b"application/geo+json-seq", True, id="a sequence"),
        pytest.param(b"image/svg+xml", True, id="SVG"),
        pytest.param(b"application/xhtml+xml", True, id="XHTML"),
        pytest.param(b"application/x-ndjson", True, id="NDJSON"),
        pytest.param(b"text/javascript", True, id="JavaScript"),
        pytest.param(b"application/javascript", True, id="JavaScript, formerly"),
        pytest.param(b"application/wasm", True, id="WebAssembly"),
        pytest.param(b"application/openmetrics-text; version=1.0.0", True, id="metrics"),
        pytest.param(b"font/ttf", True, id="a font with nothing packed"),
        pytest.param(b"font/otf", True, id="another"),
        pytest.param(b"font/woff2", False, id="a packed font"),
        pytest.param(b"font/woff", False, id="a packed font, the older one"),
        pytest.param(b"image/png", False, id="an image"),
        pytest.param(b"image/jpeg", False, id="a photo"),
        pytest.param(b"video/mp4", False, id="a film"),
        pytest.param(b"application/zip", False, id="an archive"),
        pytest.param(b"application/epub+zip", False, id="a suffix that says packed"),
        pytest.param(b"application/pdf", False, id="a PDF"),
        pytest.param(b"application/grpc", False, id="gRPC compresses for itself"),
        pytest.param(b"application/octet-stream", False, id="who knows"),
        pytest.param(b"multipart/byteranges; boundary=x", False, id="parts"),
        pytest.param(b"application/jsonx", False, id="not JSON by its beginning"),
        pytest.param(b"xtext/html", False, id="not text by its end"),
        pytest.param(b"application/json-x+jsonp", False, id="not the suffix"),
        pytest.param(b"json", False, id="no slash"),
        pytest.param(b"text/", False, id="no subtype"),
        pytest.param(b"/html", False, id="no type"),
        pytest.param(b"text/ht ml", False, id="a space inside"),
        pytest.param(b"text/html, image/png", False, id="two types in one field"),
        pytest.param(b"text/html\x00", False, id="a control character"),
        pytest.param("text/h\u00e4ml".encode(), False, id="a letter that tokens do not have"),
        pytest.param(b"text/html;\xff=\x00", True, id="parameters are not looked at"),
        pytest.param(b"text/html;\n", True, id="not even for line feeds"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_what_is_compressed(content_type, expected):
    assert DEFAULT.includes(content_type) is expected


@given(st.binary(max_size=40))
def test_any_bytes_are_a_media_type_or_none(content_type):
    essence = media_type(content_type)
    assert essence is None or (essence.count(b"/") == 1 and essence == essence.lower())
    assert DEFAULT.includes(content_type) in {True, False}


@given(
    st.sampled_from([pattern for pattern in DEFAULT_PATTERNS if "*" not in pattern]),
    st.sampled_from([str.upper, str.title, str]),
    st.sampled_from(["", ";", "; charset=utf-8", " ;a=1;b=2"]),
)
def test_every_type_of_the_table_in_any_case_with_any_parameters(name, spelled, parameters):
    assert DEFAULT.includes((spelled(name) + parameters).encode())


def test_patterns_of_the_user_take_the_place_of_the_table_or_come_on_top():
    own = CompressibleTypes.of(["Model/Obj", "*/*+CBOR"])
    assert own.includes(b"model/obj")
    assert own.includes(b"application/senml+cbor")
    assert not own.includes(b"text/html")
    both = CompressibleTypes.of([*DEFAULT_PATTERNS, "audio/*"])
    assert both.includes(b"audio/wav")
    assert both.includes(b"text/html")
    assert not CompressibleTypes.of([]).includes(b"text/html")


@pytest.mark.parametrize(
    "pattern",
    ["", "*", "*/*", "text", "text/", "/html", "*/html", "text/html; charset=utf-8", "text/h*",
     "application/*+json", "*/*+", "te xt/html"],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_with_its_text(pattern):
    with pytest.raises(ValueError, match="no pattern of media types") as caught:
        CompressibleTypes.of(["text/*", pattern])
    assert repr(pattern) in str(caught.value)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream; charset=utf-8", True),
        (b"text/event-streams", False),
        (b"application/event-stream", False),
        (b"", False),
    ],
)
def test_an_event_stream_is_known_apart(content_type, expected):
    assert is_event_stream(content_type) is expected


def test_the_table_names_everything_once():
    assert len(set(DEFAULT_PATTERNS)) == len(DEFAULT_PATTERNS)
    assert [name for name in DEFAULT_PATTERNS if name != name.lower()] == []

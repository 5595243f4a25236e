"""An answer with a body that came before: the form that was made then, in a head of its own."""

import json

import pytest

from perf_middleware import CompressionRule
from perf_middleware.coded_forms import NEW_FORMS
from perf_middleware.compression.pressure import IDENTITY, LOWER_LEVEL, NORMAL, Pressure
from tests.compression.stage import (
    BODY,
    CODINGS,
    EVENT_STREAM,
    JSON,
    ask,
    decoded,
    end,
    more,
    packed,
    says,
    skipped,
    start,
)
from tests.compression.test_responses import KeptForms

ETAG = (b"etag", b'"1"')
VARY = (b"vary", b"Cookie")


def made_anew(*headers, body=BODY, **more_of_it):
    """An app that makes its body anew each time, as one that serialises does."""

    async def app(scope, receive, send):
        length = (b"content-length", b"%d" % len(body))
        await send(start(*headers, length, **more_of_it))
        await send(end(bytes(bytearray(body))))

    return app


def counts(app, coding="gzip"):
    row = app.compression.figures.by_coding[coding]
    return row.whole, row.repeated


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("thread_bytes_min", [1, 1 << 20])
def test_from_the_third_time_on_no_codec_is_called(coding, thread_bytes_min):
    app = packed(made_anew(JSON, ETAG, VARY), thread_bytes_min=thread_bytes_min)
    first, second = ask(app, coding), ask(app, coding)
    figures = app.compression.figures
    offloaded = figures.offloaded
    repeated = [ask(app, coding) for _ in range(3)]
    assert counts(app, coding) == (2, 3)
    assert (figures.offloaded, figures.by_coding[coding].in_bytes) == (offloaded, 2 * len(BODY))
    for answer in repeated:
        assert answer.messages == first.messages == second.messages
        assert decoded(coding, answer.body) == BODY
        assert int(answer.header("content-length")) == len(answer.body)
        assert answer.header("etag") == f'W/"1~pm-{coding}"'
        assert answer.header("vary") == "Cookie, Accept-Encoding"


def test_a_list_of_headers_is_never_given_twice():
    app = packed(made_anew(JSON))
    for _ in range(4):
        answer = ask(app)
        assert answer.header("content-encoding") == "gzip"
        answer.messages[0]["headers"].clear()  # as a layer outside may


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_head_is_that_of_its_own_answer(method):
    told = [(b"x-number", b"0"), ETAG]
    app = packed(made_anew(JSON, *told, status=200))
    other = packed(made_anew(JSON, (b"x-number", b"1"), status=404), compression=app.compression)
    for _ in range(2):
        ask(app, method=method)
    answer = ask(other, method=method)
    assert counts(app) == (2, 1)
    assert (answer.status, answer.header("x-number")) == (404, "1")
    assert answer.header("etag") is None
    tag = '"1"' if method == "POST" else 'W/"1~pm-gzip"'
    assert ask(app, method=method).header("etag") == tag


def test_each_client_gets_the_body_that_was_made_for_it():
    bodies = {name: BODY + name for name in (b"ann", b"bob", b"eve")}

    async def app(scope, receive, send):
        body = bodies[dict(scope["headers"])[b"cookie"]]
        await send(start(JSON))
        await send(end(body))

    app = packed(app)
    for _ in range(4):
        for name, body in bodies.items():
            answer = ask(app, "gzip", ("Cookie", name.decode()))
            assert decoded("gzip", answer.body) == body
    assert counts(app) == (6, 6)


@pytest.mark.parametrize(
    ("messages", "settings"),
    [
        pytest.param(
            [start(JSON, (b"cache-control", b"no-store")), end(BODY)], {}, id="no-store"
        ),
        pytest.param(
            [start(JSON, (b"cache-control", b"private"), (b"Cache-Control", b"x, No-Store")),
             end(BODY)], {}, id="no-store on a second line",
        ),
        pytest.param(
            [start(JSON), end(BODY)],
            {"rules": [CompressionRule(path="/*", hide_length=True)]}, id="a hidden length",
        ),
        pytest.param([start(JSON), more(BODY), end(BODY)], {}, id="pieces"),
        pytest.param([start(JSON), more(BODY), end()], {}, id="one piece and an end"),
        pytest.param([start(EVENT_STREAM), end(BODY)], {}, id="events"),
        pytest.param(
            [start(JSON, (b"content-length", b"9999")), end(BODY)], {}, id="another length"
        ),
        pytest.param([start(JSON), end(BODY)], {"repeated_bytes_max": 8_000}, id="too large"),
        pytest.param([start(JSON), end(BODY)], {"repeated_bytes_max": 0}, id="switched off"),
        pytest.param(
            [start((b"content-type", b"image/png")), end(BODY)], {}, id="a type that is packed"
        ),
    ],
)  # fmt: skip
def test_what_is_not_to_be_kept_is_not(messages, settings):
    app = packed(says(*messages), **settings)
    for _ in range(4):
        ask(app)
    assert counts(app)[1] == 0
    assert not app.compression.repeats


def test_other_directives_keep_nothing_from_being_remembered():
    app = packed(made_anew(JSON, (b"cache-control", b"private, no-cache")))
    for _ in range(3):
        ask(app)
    assert counts(app) == (2, 1)


def test_what_may_not_be_encoded_is_not_though_its_form_is_there():
    app = packed(made_anew(JSON))
    for _ in range(3):
        ask(app)
    of_another_site = [("Cookie", "a=1"), ("Sec-Fetch-Site", "cross-site")]
    assert ask(app, "gzip", *of_another_site).body == BODY
    assert ask(app, None).body == BODY
    assert skipped(app) == {"cross-site": 1, "not-accepted": 1}
    refused = packed(made_anew(JSON), rules=[CompressionRule(path="/*", encode=False)])
    refused.compression.repeats = app.compression.repeats
    assert ask(refused).body == BODY


def test_a_length_that_is_not_the_bodys_is_left_for_the_server_to_see():
    app = packed(made_anew(JSON))
    for _ in range(3):
        ask(app)
    wrong = says(start(JSON, (b"content-length", b"9999")), end(BODY))
    answer = ask(packed(wrong, compression=app.compression))
    assert (answer.body, answer.header("content-length")) == (BODY, "9999")
    assert skipped(app) == {"malformed": 1}


def test_head_tells_no_length_that_only_encoding_would_tell():
    app = packed(made_anew(JSON))
    for _ in range(3):
        ask(app)
    answer = ask(app, method="HEAD")
    assert answer.header("content-length") is None
    assert counts(app) == (2, 1)


def test_under_pressure_what_is_remembered_is_sent_and_nothing_else_encoded():
    app = packed(made_anew(JSON), gzip_level=9)
    for _ in range(2):
        fresh = ask(app).body
    for step in (LOWER_LEVEL, IDENTITY):
        app.compression._pressure = Pressure(step=step)
        assert ask(app).body == fresh, "a higher level than now costs nothing"
    assert counts(app) == (2, 2)
    other = packed(made_anew(JSON, body=BODY[::-1]), compression=app.compression)
    for _ in range(3):
        assert ask(other).body == BODY[::-1]
    assert skipped(app) == {"pressure": 3}


def test_what_was_made_in_a_hurry_is_made_better_when_there_is_time():
    rows = json.dumps([{"id": number, "name": f"item {number}"} for number in range(200)])
    app = packed(made_anew(JSON, body=rows.encode()), br_level=9)
    app.compression._pressure = Pressure(step=LOWER_LEVEL)
    for _ in range(3):
        hurried = ask(app, "br").body
    app.compression._pressure = Pressure(step=NORMAL)
    better = [ask(app, "br").body for _ in range(2)]
    assert len(better[0]) < len(hurried)
    assert better[0] == better[1]
    assert counts(app, "br") == (3, 2)


def test_a_cache_below_keeps_the_remembered_form_too():
    app = packed(made_anew(JSON))
    for _ in range(2):
        made = ask(app).body
    forms = KeptForms(BODY)
    storing = packed(
        says(start(JSON), {**end(BODY), NEW_FORMS: forms}), compression=app.compression
    )
    answer = ask(storing)
    assert forms.forms == {"gzip": answer.body} == {"gzip": made}
    assert NEW_FORMS not in answer.messages[1]
    assert counts(app) == (2, 1)


def test_it_is_told_in_figures():
    app = packed(made_anew(JSON))
    for _ in range(5):
        ask(app, "gzip")
    families = {family.name: family for family in app.compression.families()}
    forms = {
        point.labels.text: point.value for point in families["perf_compression_responses"].points
    }
    assert forms['coding="gzip",form="whole"'] == 2
    assert forms['coding="gzip",form="repeated"'] == 3
    assert forms['coding="gzip",form="stored"'] == 0
    assert families["perf_compression_repeated_bodies"].points[0].value == 1
    held_bytes = families["perf_compression_repeated_bytes"].points[0].value
    assert len(BODY) < held_bytes < 2 * len(BODY) + 1_000
    status = app.compression.status()
    assert (status["encoded"], status["repeated"]) == (2, 3)
    assert status["repeated_bytes"] == held_bytes
    app.compression.reset_counts()
    assert app.compression.status()["repeated"] == 0
    assert app.compression.status()["repeated_bytes"] == held_bytes, "that is no count"

"""With the cache below: a stored body is encoded once for each coding, and no hit calls a codec."""

import threading
from random import Random
from time import monotonic, sleep

import pytest
from fastapi import FastAPI, Request, Response
from starlette.responses import PlainTextResponse

from perf_middleware import Settings, cache_response, hide_length, install, no_compression
from perf_middleware.caching.forms import FORM_BYTES, FORMS_BYTES
from perf_middleware.caching.middleware import ResponseCacheMiddleware
from perf_middleware.caching.packed import pack, unpack
from perf_middleware.caching.runtime import ResponseCache
from perf_middleware.compression.content_types import CompressibleTypes
from perf_middleware.compression.drivers.available import available_codecs
from perf_middleware.compression.earning import ASKED_MIN, KEPT_LEVEL_BYTES_MAX, earned
from perf_middleware.compression.encoding import Judge
from perf_middleware.compression.middleware.responses import CompressionMiddleware
from perf_middleware.compression.pressure import IDENTITY, Pressure, Thresholds
from perf_middleware.compression.runtime import Coding, Compression
from tests.compression.stage import BODY, JSON, answers, ask, decoded, skipped

STORED = (b"cache-control", b"max-age=60")
ETAG = (b"etag", b'"1"')
LEVEL, KEPT = 1, 9
SOON_S = 10.0


class Codec:
    """A real one that notes who called it, and how."""

    def __init__(self, real):
        self.real, self.name = real, real.name
        self.calls = []
        self.fails = False

    def encode(self, body, *, level):
        behind = threading.current_thread() is not threading.main_thread()
        self.calls.append(("behind" if behind else "in the way", level))
        if self.fails:
            raise RuntimeError("the library says no")
        return self.real.encode(body, level=level)

    def encoder(self, **how):
        self.calls.append(("in the way", how["level"]))
        return self.real.encoder(**how)

    def decoder(self):
        return self.real.decoder()


class Stage:
    """Compression around a cache around an app that counts its calls."""

    def __init__(
        self, *headers, body=BODY, between=None, bytes_max=1 << 20, pressure=None, app=None
    ):
        self.codecs = {codec.name: Codec(codec) for codec in available_codecs()}
        self.compression = Compression(
            codings=[
                Coding(codec, level=LEVEL, stream_level=LEVEL, cheap_level=LEVEL, kept_level=KEPT)
                for codec in self.codecs.values()
            ],
            judge=Judge(minimum_bytes=500, types=CompressibleTypes.of()),
            thresholds=None if pressure is None else Thresholds(),
        )
        self.compression.pressure = pressure
        self.cache = ResponseCache(bytes_max=bytes_max)
        self.calls = 0
        inner = app or answers(JSON, STORED, *headers, body=body)

        async def counting(scope, receive, send):
            self.calls += 1
            await inner(scope, receive, send)

        layer = ResponseCacheMiddleware(counting, self.cache)
        self.app = CompressionMiddleware(
            layer if between is None else between(layer), self.compression
        )

    def ask(self, accepts, *headers, **how):
        return ask(self.app, accepts, *headers, **how)

    def settled(self, coding):
        """Wait for what is being encoded behind, and take it in with one more hit."""
        until_s = monotonic() + SOON_S
        behind = self.compression._behind
        while behind.waiting > len(behind._done):
            assert monotonic() < until_s
            sleep(0.001)
        return self.ask(coding)

    def in_the_way(self):
        return sum(how == "in the way" for codec in self.codecs.values() for how, _ in codec.calls)


def test_the_first_answer_is_encoded_once_and_every_hit_has_that_form():
    stage = Stage(ETAG)
    sent = [stage.ask("gzip") for _ in range(4)]
    assert {answer.header("content-encoding") for answer in sent} == {"gzip"}
    assert {answer.body for answer in sent} == {sent[0].body}
    assert decoded("gzip", sent[0].body) == BODY
    assert {answer.header("etag") for answer in sent} == {'W/"1~pm-gzip"'}
    assert {int(answer.header("content-length")) for answer in sent} == {len(sent[0].body)}
    assert stage.codecs["gzip"].calls == [("in the way", LEVEL)]
    assert stage.calls == 1


@pytest.mark.parametrize("coding", ["zstd", "br", "gzip"])
def test_a_hit_in_another_coding_waits_for_no_codec_and_later_ones_have_it(coding):
    stage = Stage()
    stage.ask(None)  # nothing accepted
    first = stage.ask(coding)
    assert (first.header("content-encoding"), first.body) == (None, BODY)
    assert first.header("vary") == "Accept-Encoding"
    assert skipped(stage.app)["no-form"] == 1
    then = stage.settled(coding)
    assert then.header("content-encoding") == coding
    assert decoded(coding, then.body) == BODY
    while stage.codecs[coding].calls == [("behind", LEVEL)]:
        answer = stage.ask(coding)
        assert answer.body == then.body or stage.codecs[coding].calls != [("behind", LEVEL)]
    kept = stage.settled(coding)
    assert decoded(coding, kept.body) == BODY
    assert len(kept.body) <= len(then.body)
    for _ in range(3 * ASKED_MIN):
        assert stage.ask(coding).body == kept.body
    assert stage.codecs[coding].calls == [("behind", LEVEL), ("behind", KEPT)]
    assert stage.calls == 1


def test_a_hit_has_the_best_coding_that_is_ready():
    stage = Stage()
    stage.ask("gzip")
    hit = stage.ask("br, gzip;q=0.5")
    assert hit.header("content-encoding") == "gzip"
    assert decoded("gzip", hit.body) == BODY
    assert stage.settled("br, gzip;q=0.5").header("content-encoding") == "br"
    assert stage.in_the_way() == 1


def test_the_form_made_in_a_hurry_is_made_anew_once_it_has_earned_that():
    stage = Stage()
    for _ in range(ASKED_MIN):
        stage.ask("br")
    assert stage.codecs["br"].calls == [("in the way", LEVEL)]
    hurried = stage.ask("br").body
    kept = stage.settled("br").body
    assert len(kept) < len(hurried)
    assert decoded("br", kept) == BODY
    for _ in range(3 * ASKED_MIN):
        stage.ask("br")
    assert stage.codecs["br"].calls == [("in the way", LEVEL), ("behind", KEPT)]


@pytest.mark.parametrize(
    ("asked", "has_form", "effort"),
    [
        pytest.param(1, False, "hurried", id="the first that has to do without"),
        pytest.param(1, True, None, id="there is one"),
        pytest.param(ASKED_MIN - 1, True, None, id="not often enough"),
        pytest.param(ASKED_MIN, True, "kept", id="asked for often"),
        pytest.param(ASKED_MIN, False, "kept", id="asked for often and still without"),
        pytest.param(0, False, None, id="no room to count"),
    ],
)
def test_a_body_earns_another_encoding(asked, has_form, effort):
    assert earned(asked, has_form=has_form) == effort


def test_a_large_body_is_kept_as_answers_in_a_hurry_are_made():
    stage = Stage(body=b"word " * (KEPT_LEVEL_BYTES_MAX // 5 + 1), bytes_max=8 << 20)
    stage.ask(None)
    stage.ask("br")
    for _ in range(2 * ASKED_MIN):
        assert stage.settled("br").header("content-encoding") == "br"
    assert stage.codecs["br"].calls == [("behind", LEVEL)]


def test_what_gets_no_shorter_is_tried_once():
    stage = Stage(body=Random(1).randbytes(700))
    stage.ask(None)
    for _ in range(3 * ASKED_MIN):
        assert stage.settled("gzip").header("content-encoding") is None
    assert stage.codecs["gzip"].calls == [("behind", LEVEL), ("behind", KEPT)]


def test_after_a_purge_there_are_new_bytes_and_new_forms():
    stage = Stage()
    old = stage.ask("gzip")
    everything, _ = stage.cache.store.clear()
    assert everything == 1
    assert stage.ask("gzip").body == old.body
    assert stage.calls == 2
    assert stage.in_the_way() == 2


def test_what_is_encoded_behind_a_purge_is_let_go():
    stage = Stage()
    stage.ask(None)
    stage.ask("gzip")
    stage.cache.store.clear()
    stage.ask(None)
    assert stage.settled("gzip").header("content-encoding") is None, "it is of another body"
    assert stage.settled("gzip").header("content-encoding") == "gzip"


def shouting(app):
    """A middleware of the user's that makes another body of each."""

    async def layer(scope, receive, send):
        async def loud(message):
            if message["type"] == "http.response.body":
                message = {**message, "body": message["body"].upper()}
            await send(message)

        await app(scope, receive, loud)

    return layer


def test_a_body_that_was_changed_on_the_way_is_encoded_itself():
    stage = Stage(body=b"quiet " * 500, between=shouting)
    for _ in range(3):
        assert decoded("gzip", stage.ask("gzip").body) == b"QUIET " * 500
    assert stage.in_the_way() == 3


def test_a_body_that_is_changed_after_its_form_was_the_last_word_is_encoded_itself():
    is_loud = False

    def between(app):
        shouted = shouting(app)

        async def layer(scope, receive, send):
            await (shouted if is_loud else app)(scope, receive, send)

        return layer

    stage = Stage(body=b"quiet " * 500, between=between)
    for _ in range(2 * ASKED_MIN):
        stage.ask("gzip")
    assert decoded("gzip", stage.settled("gzip").body) == b"quiet " * 500
    assert stage.ask("gzip").header("content-encoding") == "gzip"
    is_loud = True
    assert decoded("gzip", stage.ask("gzip").body) == b"QUIET " * 500
    is_loud = False
    assert decoded("gzip", stage.ask("gzip").body) == b"quiet " * 500


def test_a_head_whose_form_is_ready_goes_out_also_where_no_body_follows_it():
    is_cut_off = False

    def between(app):
        async def layer(scope, receive, send):
            async def passing(message):
                if message["type"] == "http.response.start" or not is_cut_off:
                    await send(message)

            await app(scope, receive, passing)

        return layer

    stage = Stage(body=b"quiet " * 500, between=between)
    for _ in range(2 * ASKED_MIN):
        stage.ask("gzip")
    assert stage.settled("gzip").header("content-encoding") == "gzip"
    is_cut_off = True
    answer = stage.ask("gzip")
    assert [message["type"] for message in answer.messages] == ["http.response.start"]
    assert answer.header("content-encoding") is None


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"type": "http.response.start", "status": 200}, id="a head without fields"),
        pytest.param({"type": "http.response.body"}, id="a body message without a body"),
    ],
)
def test_a_layer_between_may_leave_out_what_the_spec_lets_it(answer):
    is_short = False

    def between(app):
        async def layer(scope, receive, send):
            async def short(message):
                if is_short and message["type"] == answer["type"]:
                    message = {**message, **answer}
                    for name in {"headers", "body"} - answer.keys():
                        message.pop(name, None)
                await send(message)

            await app(scope, receive, short)

        return layer

    stage = Stage(between=between)
    for _ in range(2 * ASKED_MIN):
        stage.ask("gzip")
    assert stage.settled("gzip").header("content-encoding") == "gzip"
    is_short = True
    start, *_ = stage.ask("gzip").messages
    assert b"content-encoding" not in dict(start.get("headers", ()))


def test_hits_alone_learn_of_the_pressure():
    load = 0.0
    stage = Stage(pressure=lambda: load)
    for _ in range(2 * ASKED_MIN):
        stage.ask("gzip")
    stage.settled("gzip")
    load, now_us = 1.0, 0

    def later():
        nonlocal now_us
        now_us += 300_000
        return now_us

    stage.compression._clock = later
    stage.compression._sample_due_us = 0
    for _ in range(20):
        stage.ask("gzip")
    assert stage.compression.status()["pressure_step"] == IDENTITY


def anew(app):
    """As BaseHTTPMiddleware does: other messages, the body as a stream of one piece."""

    async def layer(scope, receive, send):
        async def again(message):
            if message["type"] == "http.response.body":
                more = {"type": message["type"], "body": message["body"], "more_body": True}
                await send(more)
                await send({"type": message["type"], "body": b"", "more_body": False})
            else:
                await send({name: message[name] for name in ("type", "status", "headers")})

        await app(scope, receive, again)

    return layer


def test_a_layer_between_that_makes_other_messages_costs_no_codec_either():
    stage = Stage(ETAG, between=anew)
    sent = [stage.ask("gzip") for _ in range(4)]
    assert {answer.body for answer in sent} == {sent[0].body}
    assert {int(answer.header("content-length")) for answer in sent} == {len(sent[0].body)}
    assert decoded("gzip", sent[0].body) == BODY
    assert stage.in_the_way() == 1
    assert stage.ask("br").header("content-encoding") is None
    assert stage.settled("br").header("content-encoding") == "br"
    assert stage.in_the_way() == 1


@pytest.mark.parametrize("route", ["/plain", "/coded"])
def test_a_middleware_in_the_style_of_functions_costs_no_codec_either(route):
    app = FastAPI()

    @app.get(route)
    @cache_response(ttl=60)
    async def read():
        return PlainTextResponse(BODY)

    @app.middleware("http")
    async def between(request, call_next):
        answer = await call_next(request)
        answer.headers["x-seen"] = "1"
        return answer

    perf = install(app, Settings(compression={"codings": "gzip"}))
    for _ in range(4):
        answer = ask(app, "gzip", path=route)
        assert answer.header("x-seen") == "1"
        assert decoded("gzip", answer.body) == BODY
    assert perf.status()["compression"]["encoded"] == 1
    assert perf.status()["compression"]["stored"] == 3


def test_a_range_a_condition_and_head_are_answered_as_without_forms():
    stage = Stage(ETAG)
    full = stage.ask("gzip")
    part = stage.ask("gzip", ("range", "bytes=0-9"))
    assert (part.status, part.body, part.header("content-encoding")) == (206, BODY[:10], None)
    same = stage.ask("gzip", ("if-none-match", full.header("etag")))
    assert (same.status, same.body, same.header("etag")) == (304, b"", full.header("etag"))
    head = stage.ask("gzip", method="HEAD")
    assert (head.body, head.header("content-encoding"), head.header("etag")) == (
        b"", "gzip", full.header("etag"),
    )  # fmt: skip
    assert stage.in_the_way() == 1
    assert stage.calls == 1


def test_under_pressure_a_ready_form_is_sent_and_none_is_made():
    stage = Stage(pressure=lambda: 1.0)
    stage.ask("gzip")
    stage.compression._pressure = Pressure(step=IDENTITY)
    stage.compression._sample_due_us = 1 << 62
    assert stage.ask("gzip").header("content-encoding") == "gzip"
    for _ in range(3):
        assert stage.ask("br").header("content-encoding") is None
    assert stage.codecs["br"].calls == []
    assert stage.in_the_way() == 1


def test_a_codec_that_fails_behind_is_counted_and_asked_once():
    stage = Stage()
    stage.codecs["gzip"].fails = True
    stage.ask(None)
    for _ in range(3):
        answer = stage.settled("gzip")
        assert (answer.header("content-encoding"), answer.body) == (None, BODY)
    assert skipped(stage.app)["failed"] == 1
    assert stage.settled("br").status == 200
    assert stage.settled("br").header("content-encoding") == "br", "others go on"


def test_where_much_waits_to_be_encoded_a_later_hit_asks_again(monkeypatch):
    stage = Stage()
    monkeypatch.setattr(stage.compression._behind, "_waiting_max", 0)
    stage.ask(None)
    assert stage.ask("gzip").header("content-encoding") is None
    assert stage.codecs["gzip"].calls == []
    monkeypatch.undo()
    stage.ask("gzip")
    assert stage.settled("gzip").header("content-encoding") == "gzip"


def test_what_waits_to_be_encoded_is_bounded_in_bytes(monkeypatch):
    """Its bodies may have left the store: the store does not count them any more."""
    stage = Stage()
    monkeypatch.setattr(stage.compression._behind, "_bytes_max", 10)
    monkeypatch.setattr(stage.compression._behind, "_done", Unread())
    stage.ask(None)
    stage.ask("gzip")  # one alone may be larger
    stage.ask("br")
    assert [len(codec.calls) for codec in stage.codecs.values()].count(1) <= 1
    assert stage.compression._behind.waiting == 1


class Unread(list):
    """Done, and never collected."""

    def __bool__(self):
        return False


def test_any_answer_that_is_encoded_takes_in_what_was_made_behind():
    stage = Stage()
    stage.ask(None)
    stage.ask("gzip")
    behind = stage.compression._behind
    until_s = monotonic() + SOON_S
    while not behind._done:
        assert monotonic() < until_s
        sleep(0.001)
    stage.cache.store.clear()
    stage.ask("br")  # a miss
    assert (behind.waiting, behind._waiting_bytes) == (0, 0)


def test_the_thread_ends_when_nothing_is_to_be_encoded_and_starts_again(monkeypatch):
    monkeypatch.setattr("perf_middleware.compression.drivers.behind.IDLE_S", 0.01)
    stage = Stage()
    for coding in ("gzip", "br"):
        stage.ask(None)
        stage.ask(coding)
        assert stage.settled(coding).header("content-encoding") == coding
        until_s = monotonic() + SOON_S
        while stage.compression._behind._thread is not None:
            assert monotonic() < until_s
            sleep(0.005)


def accounted(stage):
    """What the store says it holds, and what the forms of its one response make of that."""
    (entry,) = stage.cache.store.all()
    forms = entry.forms
    of_forms = 0 if forms is None else forms.size_bytes
    kept = {} if forms is None or forms._forms is None else forms._forms
    expected = sum(len(form) + FORM_BYTES for form in kept.values())
    if forms is not None:
        expected += FORMS_BYTES
    return stage.cache.store.size_bytes, entry.size_bytes, of_forms, expected


class Copying:
    """A middleware that goes on with a scope of its own."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app({**scope}, receive, send)


def by_functions(app):
    @app.middleware("http")
    async def between(request, call_next):
        return await call_next(request)


@pytest.mark.parametrize("position", ["inner", "outer"])
@pytest.mark.parametrize(
    "between",
    [
        pytest.param([by_functions], id="in the style of functions"),
        pytest.param([lambda app: app.add_middleware(Copying)], id="a copied scope"),
        pytest.param([by_functions, lambda app: app.add_middleware(Copying)], id="both"),
        pytest.param([lambda app: app.add_middleware(Copying), by_functions], id="both, turned"),
    ],
)
def test_what_an_endpoint_chooses_holds_whatever_stands_between(position, between):
    app = FastAPI()

    @app.get("/secret")
    @no_compression
    async def secret():
        headers = {"cache-control": "max-age=60", "etag": '"1"'}
        return PlainTextResponse(BODY, headers=headers)

    for add in between:
        add(app)
    install(app, Settings(cache={"position": position}))
    for number in range(4):
        answer = ask(app, "gzip", path="/secret")
        assert ("; hit; " in answer.header("cache-status")) is (number > 0)
        assert answer.header("content-encoding") is None


def test_what_a_renewed_answers_endpoint_chose_holds_past_other_messages():
    app = FastAPI()

    @app.get("/secret")
    @no_compression
    async def secret(request: Request):
        headers = {"cache-control": "no-cache", "etag": '"1"'}
        if request.headers.get("if-none-match"):
            return Response(status_code=304, headers=headers)
        return PlainTextResponse(BODY, headers=headers)

    by_functions(app)
    install(app, Settings(metrics={"enabled": False}))
    for _ in range(4):
        assert ask(app, "gzip", path="/secret").header("content-encoding") is None


def test_the_choice_of_one_answer_is_not_that_of_the_next_in_the_same_scope():
    app = FastAPI()

    @app.get("/hidden")
    @hide_length
    async def hidden():
        return PlainTextResponse(BODY, headers={"cache-control": "max-age=60"})

    @app.get("/secret")
    @no_compression
    async def secret():
        return PlainTextResponse(BODY, headers={"cache-control": "no-store"})

    class Twice:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            async def swallow(message):
                del message

            if scope["type"] == "http":
                first = {"path": "/hidden", "raw_path": b"/hidden"}
                asked = {name: scope[name] for name in first}
                scope.update(first)
                await self.app(scope, receive, swallow)
                scope.update(asked)
            await self.app(scope, receive, send)

    app.add_middleware(Twice)
    install(app, Settings())
    for _ in range(3):
        assert ask(app, "gzip", path="/secret").header("content-encoding") is None


def test_forms_count_as_what_is_stored_and_leave_with_it():
    stage = Stage()
    stage.ask(None)
    plain = stage.cache.store.size_bytes
    for coding in ("gzip", "br", "gzip"):
        for _ in range(2 * ASKED_MIN):  # hurried, then replaced by the kept one
            stage.settled(coding)
            total, entry, of_forms, expected = accounted(stage)
            assert (total, entry, of_forms) == (plain + expected, total, expected)
    assert expected > FORMS_BYTES + 2 * FORM_BYTES
    _, gone = stage.cache.store.clear()
    list(gone)
    assert stage.cache.store.size_bytes == 0


@pytest.mark.parametrize(
    "room",
    [
        pytest.param(500, id="not even to count"),
        pytest.param(FORMS_BYTES + 100, id="for no form"),
    ],
)
def test_a_form_for_which_there_is_no_room_is_not_kept(room):
    stage = Stage()
    stage.ask(None)
    stage = Stage(bytes_max=stage.cache.store.size_bytes + room)
    stage.ask(None)
    for _ in range(2 * ASKED_MIN):
        answer = stage.settled("gzip")
        assert (answer.header("content-encoding"), answer.body) == (None, BODY)
        assert answer.header("cache-status").startswith("perf_middleware; hit")
        assert stage.cache.store.size_bytes <= stage.cache.store.bytes_max
    assert len(stage.codecs["gzip"].calls) <= 2, "asked for no more than where there is room"


def test_what_is_never_encoded_takes_no_room_for_forms():
    image = answers((b"content-type", b"image/png"), STORED, body=BODY)
    stage = Stage(app=image)
    stage.ask("gzip")
    plain = stage.cache.store.size_bytes
    for _ in range(3):
        stage.ask("gzip")
    stage.ask("gzip", method="HEAD")
    assert stage.cache.store.size_bytes == plain


def test_of_another_body_no_form_is_kept():
    """What was made of the one before must not be charged to its successor."""

    async def app(scope, receive, send):
        await answers(JSON, STORED, body=bytes(bytearray(BODY)))(scope, receive, send)

    stage = Stage(app=app)
    stage.ask("gzip")
    (before,) = stage.cache.store.all()
    forms = before.forms
    stage.cache.store.clear()
    stage.ask(None)
    size_bytes = stage.cache.store.size_bytes
    forms.remember("br", b"short")
    assert stage.cache.store.size_bytes == size_bytes
    assert stage.cache.store.all()[0].forms is None


def test_the_same_bytes_sent_again_are_charged_once_and_whole():
    """An app that sends one object each time: what was made of it before is not its own now."""
    stage = Stage()
    stage.ask("gzip")
    (before,) = stage.cache.store.all()
    forms = before.forms
    stage.cache.store.clear()
    stage.ask(None)
    assert stage.cache.store.all()[0].body is forms.body
    forms.remember("br", b"short")
    assert accounted(stage)[1:] == (stage.cache.store.size_bytes, 0, 0)


def test_after_a_fork_the_child_encodes_behind_its_own_hits(monkeypatch):
    stage = Stage()
    stage.ask(None)
    behind = stage.compression._behind
    behind._thread = threading.Thread()  # never started: as the parent's is to the child
    behind.waiting, behind._waiting_bytes = 1, 1 << 40
    stage.ask("gzip")
    assert stage.settled("gzip").header("content-encoding") == "gzip"


def test_a_thread_that_cannot_start_spoils_no_answer(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    stage = Stage()
    stage.ask(None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            assert stage.ask("gzip").body == BODY
    stage.ask("gzip")
    assert stage.settled("gzip").header("content-encoding") == "gzip", "with a later hit"


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("first", ["gzip", None])
def test_what_an_endpoint_chooses_holds_for_its_hits(metrics, shared, first):
    """No router sees a hit: the choice is stored with the answer (BREACH)."""
    app = FastAPI()

    @app.get("/secret")
    @no_compression
    @cache_response(ttl=60)
    async def secret():
        return PlainTextResponse(BODY)

    @app.get("/search")
    @hide_length
    @cache_response(ttl=60)
    async def search():
        return PlainTextResponse(BODY)

    settings = Settings(compression={"codings": "gzip"}, metrics={"enabled": metrics})
    perf = install(app, settings)
    for path in ("/secret", "/search"):
        ask(app, first, path=path)
    if shared:  # as another process reads it from Redis
        for stored in perf.cache.store.all():
            packed = pack(stored, identity=b"12345678", now_us=1, server_ms=1_000)
            stored.choice = unpack(
                packed, primary=stored.primary, key_of=lambda _: b"key", now_us=1,
                server_ms=1_000, body_bytes_max=1 << 20,
            ).choice  # fmt: skip
    lengths = set()
    for _ in range(3 * ASKED_MIN):
        refused, hidden = ask(app, "gzip", path="/secret"), ask(app, "gzip", path="/search")
        assert refused.header("cache-status").startswith("perf_middleware; hit")
        assert (refused.header("content-encoding"), refused.body) == (None, BODY)
        assert decoded("gzip", hidden.body) == BODY
        lengths.add(len(hidden.body))
    assert len(lengths) > 3


def test_a_renewed_response_keeps_its_forms():
    """304 says that the body is the same one."""
    fresh = answers(JSON, (b"cache-control", b"max-age=0, stale-while-revalidate=0"), ETAG)

    async def app(scope, receive, send):
        if any(name == b"if-none-match" for name, _ in scope["headers"]):
            await send({"type": "http.response.start", "status": 304, "headers": [STORED, ETAG]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await fresh(scope, receive, send)

    stage = Stage(app=app)
    first = stage.ask("gzip")
    renewed = [stage.ask("gzip") for _ in range(3)]
    assert {answer.body for answer in renewed} == {first.body}
    assert {answer.header("content-encoding") for answer in renewed} == {"gzip"}
    assert stage.calls == 2
    assert stage.in_the_way() == 1
    assert (
        sum(entry.size_bytes for entry in stage.cache.store.all()) == stage.cache.store.size_bytes
    )


def test_without_forms_each_hit_is_encoded():
    app = answers(JSON, STORED)
    off = {"stored_forms": False, "repeated_bytes_max": 0}
    perf = install(app, Settings(compression=off | {"codings": "gzip"}))
    for _ in range(3):
        assert decoded("gzip", ask(perf, "gzip").body) == BODY
    assert perf.status()["compression"]["encoded"] == 3
    assert perf.status()["compression"]["stored"] == 0


def test_installed_it_does_so_by_itself():
    app = answers(JSON, STORED)
    perf = install(app, Settings())
    for _ in range(3):
        assert decoded("gzip", ask(perf, "gzip").body) == BODY
    assert perf.status()["compression"]["encoded"] == 1
    assert perf.status()["compression"]["stored"] == 2

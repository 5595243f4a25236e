"""What a request is, is settled before the app has it: layers below may edit the scope in place."""

import pytest
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import cache_response
from tests.caching.stage import MAX_AGE, App, ask, cached, run, verdict


def editing(app, edit):
    async def layer(scope, receive, send):
        edit(scope)
        await app(scope, receive, send)

    return layer


def takes_away(name):
    def edit(scope):
        headers = MutableHeaders(scope=scope)
        if name in headers:
            del headers[name]

    return edit


def empties_in_place(scope):
    scope["headers"].clear()


@pytest.mark.parametrize(
    ("answer", "rules", "field"),
    [
        pytest.param([(b"vary", b"x-variant")], [], (b"x-variant", b"b"), id="Vary"),
        pytest.param([(b"vary", b"cookie")], [], (b"cookie", b"session=ada"), id="Vary: Cookie"),
        pytest.param(
            [], [{"path": "/", "ttl": 60, "private_by": "cookie:session"}],
            (b"cookie", b"session=ada"), id="private_by",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("edit", ["taken away", "emptied in place"])
def test_a_field_that_a_layer_below_takes_away_still_tells_answers_apart(
    answer, rules, field, edit
):
    async def act():
        edits = takes_away(field[0].decode()) if edit == "taken away" else empties_in_place
        layer = cached(editing(App(MAX_AGE, *answer), edits), rules=rules)
        assert "stored" in verdict(await ask(layer, "/", field))
        assert "hit" not in verdict(await ask(layer, "/"))
        assert "hit" in verdict(await ask(layer, "/", field))

    run(act)


def test_a_path_that_a_layer_below_rewrites_is_purged_as_it_was_asked_for():
    def rewrite(scope):
        scope["path"] = scope["path"].removeprefix("/de")
        scope["raw_path"] = scope["path"].encode()

    async def act():
        layer = cached(editing(App(), rewrite))
        await ask(layer, "/de/x")
        assert await layer.cache.purge(url="/de/x") == 1
        await ask(layer, "/de/x")
        await ask(layer, "/de/x", method="PUT")
        assert layer.cache.store.responses == 0

    run(act)


@pytest.mark.parametrize("part", ["key", "private_by"])
def test_a_key_that_reads_what_the_app_writes_later_caches_nothing(part, caplog):
    """Before the router has run it would be the same for everybody."""

    @cache_response(ttl=60, **{part: lambda scope: scope["state"].get("user", "anonymous")})
    async def mine(request):
        request.state.user = request.headers["x-who"]
        return PlainTextResponse(f"data of {request.state.user}")

    async def act():
        layer = cached(Starlette(routes=[Route("/", mine)]))
        for who in (b"ada", b"ada", b"bob", b"eve"):
            answer = await ask(layer, "/", (b"x-who", who))
            # An endpoint writes before its answer begins: so do dependencies.
            assert answer.body == b"data of " + who
        assert layer.cache.store.responses == 0

    run(act)
    (told,) = [record for record in caplog.records if "another one after routing" in record.message]
    assert "cache_response" in told.message


def test_a_key_that_fails_is_told_once_and_not_at_every_request(caplog):
    async def act():

        @cache_response(ttl=60, key=lambda scope: scope["path_params"]["id"])
        async def item(request):
            return PlainTextResponse("item")

        layer = cached(Starlette(routes=[Route("/{id}", item)]))
        for _ in range(10):
            assert "hit" not in verdict(await ask(layer, "/5"))

    run(act)
    assert sum("the key of the cache rule" in record.message for record in caplog.records) == 1

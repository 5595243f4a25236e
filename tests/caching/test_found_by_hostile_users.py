"""What hostile readers of the response cache once found: none of it may come back."""

import anyio
import pytest
from starlette.applications import Starlette
from starlette.authentication import UnauthenticatedUser
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from perf_middleware import ResponseCacheMiddleware, cache_response


class User:
    """A user whose text is the address of an object, which the next one may get."""

    def __init__(self, name):
        self.name = name


def client_of(*routes, wrap=lambda app: app):
    return TestClient(wrap(ResponseCacheMiddleware(Starlette(routes=list(routes)))))


def test_an_object_as_identity_is_never_a_key(caplog):
    @cache_response(ttl=60, private_by=lambda scope: User(dict(scope["headers"])[b"x-u"]))
    async def me(request):
        return PlainTextResponse(request.headers["x-u"])

    client = client_of(Route("/", me))
    for number in range(40):
        assert client.get("/", headers={"x-u": f"u{number}"}).text == f"u{number}"
    assert "must be text" in caplog.text


def test_whether_somebody_asks_is_no_identity(caplog):
    @cache_response(ttl=60, private_by=lambda scope: b"x-u" in dict(scope["headers"]))
    async def me(request):
        return PlainTextResponse(request.headers["x-u"])

    client = client_of(Route("/", me))
    for number in range(3):
        assert client.get("/", headers={"x-u": f"u{number}"}).text == f"u{number}"
    assert "whether and not who" in caplog.text


@pytest.mark.parametrize("part", ["key", "private_by"])
def test_an_async_function_is_refused_as_a_part_of_the_key(part):
    async def of(scope):
        return "x"

    with pytest.raises(ValueError, match="async"):
        cache_response(ttl=60, **{part: of})


def test_a_star_is_no_header_to_vary_by():
    with pytest.raises(ValueError, match="header"):
        cache_response(ttl=60, vary="*")


def test_a_304_about_something_else_asks_the_same_endpoint_again():
    """The router has written a mount into the scope by then: another endpoint has that path."""
    calls = []

    async def inner(request):
        calls.append(dict(request.headers))
        if "if-none-match" in request.headers:
            return Response(status_code=304, headers={"etag": '"other"'})
        headers = {"cache-control": "max-age=0, stale-if-error=60", "etag": '"one"'}
        return PlainTextResponse("inner", headers=headers)

    async def outer(request):
        return PlainTextResponse("outer", headers={"cache-control": "max-age=60"})

    client = client_of(Mount("/sub", routes=[Route("/x", inner)]), Route("/x", outer))
    assert [client.get("/sub/x").text for _ in range(3)] == ["inner"] * 3
    assert client.get("/x").text == "outer"


def test_a_path_that_a_middleware_rewrote_is_part_of_the_key():
    async def page(request):
        headers = {"cache-control": "max-age=60"}
        return JSONResponse({"lang": request.path_params["lang"]}, headers=headers)

    def by_language(app):
        async def middleware(scope, receive, send):
            if scope["type"] == "http":
                language = dict(scope["headers"]).get(b"accept-language", b"en").decode()
                scope["path"] = f"/{language}{scope['path']}"
            await app(scope, receive, send)

        return middleware

    client = client_of(Route("/{lang}/page", page), wrap=by_language)
    for language in ("de", "fr", "de"):
        answer = client.get("/page", headers={"accept-language": language})
        assert answer.json() == {"lang": language}
    assert "hit" in answer.headers["cache-status"]


def test_an_answer_to_a_body_that_no_field_announces_is_not_kept():
    """As over HTTP/2, where a GET with a body needs no Content-Length."""

    async def echo(request):
        body = await request.body()
        return Response(body, headers={"cache-control": "max-age=60"})

    layer = ResponseCacheMiddleware(Starlette(routes=[Route("/", echo)]))

    async def ask(body):
        scope = {
            "type": "http", "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/",
            "query_string": b"", "headers": [(b"host", b"h")],
        }  # fmt: skip
        sent = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        await layer(scope, receive, send)
        return b"".join(message.get("body", b"") for message in sent)

    async def main():
        assert await ask(b"POISON") == b"POISON"
        assert await ask(b"") == b""
        assert len(layer.cache.store) == 1

    anyio.run(main)


@pytest.mark.parametrize("name", ["x-token", "token", "client-cert", "x-auth-request-user", "dpop"])
def test_tokens_by_their_usual_names_are_credentials(name):
    async def told(request):
        headers = {"cache-control": "public, max-age=60"}
        return PlainTextResponse(request.headers.get(name, ""), headers=headers)

    client = client_of(Route("/", told))
    assert client.get("/", headers={name: "alice"}).text == "alice"
    assert client.get("/", headers={name: "bob"}).text == "bob"
    assert client.get("/").text == ""


def test_schemes_are_told_apart():
    async def url(scope, receive, send):
        headers = [(b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": scope["scheme"].encode()})

    layer = ResponseCacheMiddleware(url)

    async def ask(scheme):
        scope = {
            "type": "http", "method": "GET", "scheme": scheme, "path": "/", "raw_path": b"/",
            "query_string": b"", "headers": [(b"host", b"h")],
        }  # fmt: skip
        sent = []

        async def send(message):
            sent.append(message)

        await layer(scope, None, send)
        return sent[1]["body"]

    async def main():
        for scheme in ("ws", "http", "https", "ws"):
            assert await ask(scheme) == scheme.encode()

    anyio.run(main)


@pytest.mark.parametrize(
    "as_user",
    [str, User, lambda name: {"name": name}],
    ids=["a name", "an object of the app's", "claims"],
)
def test_a_user_of_any_kind_in_the_scope_has_an_answer_of_his_own(as_user):
    """Found by a header of the app's own invention, which says nothing to the cache."""

    async def page(request):
        user = request.scope["user"]
        name = user["name"] if isinstance(user, dict) else getattr(user, "name", user)
        return PlainTextResponse(name, headers={"cache-control": "max-age=60"})

    def found(app):
        async def middleware(scope, receive, send):
            if scope["type"] == "http":
                scope["user"] = as_user(dict(scope["headers"])[b"x-member"].decode())
            await app(scope, receive, send)

        return middleware

    client = client_of(Route("/", page), wrap=found)
    told = [client.get("/", headers={"x-member": name}) for name in ("ada", "bob")]
    assert [answer.text for answer in told] == ["ada", "bob"]
    assert 'fwd=bypass; detail="user"' in told[1].headers["cache-status"]


class Untold:
    """What says nothing of itself, and must not be asked."""

    def __bool__(self):
        raise RuntimeError("asked")


class Basket(list):
    """An account that has bought nothing."""


class Anonymous(Untold):
    is_authenticated = False


def told_to_the_second(user):
    """Cache-Status of the same URL once more, both times with this user in the scope."""

    async def page(request):
        return PlainTextResponse("hello", headers={"cache-control": "max-age=60"})

    def found(app):
        async def middleware(scope, receive, send):
            await app({**scope, "user": user}, receive, send)

        return middleware

    client = client_of(Route("/", page), wrap=found)
    return [client.get("/").headers["cache-status"] for _ in range(2)][1]


@pytest.mark.parametrize("user", [0, [], Basket(), Untold()], ids=["0", "a list", "empty", "mute"])
def test_a_user_who_is_empty_is_somebody(user):
    assert 'fwd=bypass; detail="user"' in told_to_the_second(user)


@pytest.mark.parametrize("nobody", [None, "", {}, False, UnauthenticatedUser(), Anonymous()])
def test_nobody_as_the_user_in_the_scope_is_anybody(nobody):
    assert " hit;" in told_to_the_second(nobody)

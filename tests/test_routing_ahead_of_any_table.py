"""Whatever the routes are: the endpoint that is named ahead is the one that the router takes."""

import anyio
from fastapi import APIRouter, FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router

from perf_middleware.routing_ahead import RoutingAhead
from tests.driving import ask, http_scope

SEGMENTS = ["a", "b", "{x}", "{n:int}", "{f:float}", "{p:path}", "a{y}", "{u:uuid}", "{z}.txt"]
WORDS = ["a", "b", "1", "2.5", "ax", "x.txt", "6f9619ff-8b86-d011-b42d-00c04fc964ff", ""]


def path_of(segments, ends_open):
    path = "/" + "/".join(segments)
    return path + "/" if ends_open and path != "/" else path


PATHS = st.builds(
    path_of, st.lists(st.sampled_from(SEGMENTS), max_size=3, unique=True), st.booleans()
)
ROUTES = st.tuples(
    st.just("route"),
    PATHS,
    st.sampled_from([None, ["GET"], ["POST"], ["GET", "POST"], ["HEAD"]]),
    st.sampled_from(["function", "class"]),
)
PREFIXES = st.sampled_from(["/a", "/b", "/a/b", "/{k}", "/a/{i:int}"])


EXAMPLES = {
    "{x}": "b", "{n:int}": "1", "{f:float}": "2.5", "{p:path}": "a/b", "{y}": "x", "{k}": "b",
    "{u:uuid}": "6f9619ff-8b86-d011-b42d-00c04fc964ff", "{z}": "x", "{i:int}": "1",
}  # fmt: skip


def paths_in(table, prefix=""):
    """A path for each route of the table; a request for it may still reach one before."""
    for kind, at, *rest in table:
        if kind == "host":
            yield from paths_in(rest[0], prefix)
            continue
        path = prefix + at
        for parameter, example in EXAMPLES.items():
            path = path.replace(parameter, example)
        if kind == "route":
            yield path
        else:
            yield from paths_in(rest[1], path)


def nested(table):
    ways = st.sampled_from(["routes", "app", "behind a middleware", "fastapi", "included"])
    return st.lists(
        st.one_of(
            ROUTES,
            st.tuples(st.just("mount"), PREFIXES, ways, table),
            st.tuples(st.just("host"), st.sampled_from(["a.test", "{sub}.test"]), table),
        ),
        max_size=5,
    )


TABLES = st.recursive(st.lists(ROUTES, max_size=5), nested, max_leaves=4)
REQUESTS = st.tuples(
    st.lists(st.sampled_from(WORDS), max_size=4).map(lambda words: "/" + "/".join(words)),
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from(["a.test", "b.test", "elsewhere.example"]),
    st.sampled_from(["", "/proxy", "/a"]),
    st.booleans(),
)


def endpoint(kind, number):
    def said(request):
        return PlainTextResponse(said.__name__)

    async def told():
        return PlainTextResponse(told.__name__)

    async def get(self, request):
        return PlainTextResponse(type(self).__name__)

    found = {"class": type("Endpoint", (HTTPEndpoint,), {"get": get}), "fastapi": told}.get(kind)
    found = found or said
    found.__name__ = f"e{next(number)}"
    return found


def starlette_routes(table, number):
    routes = []
    for kind, at, *rest in table:
        if kind == "route":
            routes.append(Route(at, endpoint(rest[1], number), methods=rest[0]))
        elif kind == "host":
            routes.append(Host(at, Router(starlette_routes(rest[0], number))))
        elif rest[0] == "fastapi":
            routes.append(Mount(at, app=fastapi_app(rest[1], number)))
        elif rest[0] == "app":
            routes.append(Mount(at, app=Starlette(routes=starlette_routes(rest[1], number))))
        else:
            around = [Middleware(GZipMiddleware)] if rest[0] == "behind a middleware" else []
            inner = starlette_routes(rest[1], number)
            routes.append(Mount(at, routes=inner, middleware=around))
    return routes


def fill(router, table, number):
    for kind, at, *rest in table:
        if kind == "mount" and rest[0] == "included":
            inner = APIRouter(prefix=at)
            fill(inner, rest[1], number)
            router.include_router(inner)
        elif kind == "route" and rest[1] == "function":
            router.add_api_route(at, endpoint("fastapi", number), methods=rest[0])
        else:
            router.routes.extend(starlette_routes([(kind, at, *rest)], number))


def fastapi_app(table, number):
    app = FastAPI(openapi_url=None)
    fill(app.router, table, number)
    return app


def app_of(table, *, is_fastapi):
    """None for a table that the framework itself refuses: one name twice in a path."""
    number = iter(range(10_000))
    try:
        if is_fastapi:
            app = fastapi_app(table, number)
            app.router.matches(http_scope("/"))  # some are refused only when they are gone through
            return app
        return Starlette(routes=starlette_routes(table, number))
    except ValueError:
        return None


async def compare(app, requests):
    ahead = RoutingAhead(app)
    for path, method, host, root_path, is_stripped in requests:
        whole = path if is_stripped else root_path + path
        about = {"method": method, "headers": [("host", host)], "root_path": root_path}
        named = ahead(http_scope(whole, **about))
        try:
            answer = await ask(app, http_scope(whole, **about))
        except ValueError:
            continue  # refused now
        taken = answer.body.decode() if answer.status == 200 else None
        if answer.status != 405:  # which the endpoint itself says, where it is a class
            name = getattr(named, "__name__", None)  # an app without routes has none
            assert name == taken, (whole, about)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(TABLES, st.booleans(), st.lists(REQUESTS, min_size=4, max_size=4))
def test_the_endpoint_named_ahead_is_the_one_that_the_router_takes(table, is_fastapi, requests):
    app = app_of(table, is_fastapi=is_fastapi)
    aimed = [
        (path, *about) for path in paths_in(table) for _, *about in requests
    ]  # at its routes, with each of the methods, hosts and roots
    if app is not None:
        anyio.run(compare, app, [*requests, *aimed])

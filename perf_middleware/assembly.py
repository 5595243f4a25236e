"""Puts the layers around an app: inside a Starlette or FastAPI app, outside any other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.decorators import ATTRIBUTE as CACHE_RULE
from perf_middleware.metrics.middleware import name_route
from perf_middleware.own_routes import has_own_route, rules_without_route
from perf_middleware.rejections import RejectionLayer, with_rejections
from perf_middleware.resource import LifespanPlugin
from perf_middleware.routing_ahead import RoutingAhead
from perf_middleware.stack import (
    REJECTIONS,
    REQUEST_SCOPE,
    Entrance,
    Inner,
    Layer,
    LayerInfo,
    composed,
    in_order,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
    from perf_middleware.bundle import Bundle
    from perf_middleware.perf import Perf

# Of Starlette, brotli-asgi, starlette-compress and asgi-compression.
OTHER_COMPRESSION: Final = frozenset(
    {"GZipMiddleware", "BrotliMiddleware", "CompressMiddleware", "CompressionMiddleware"}
)

logger = logging.getLogger("perf_middleware")


def assemble_around(bundle: Bundle, app: ASGIApp) -> Perf:
    """All layers outside an app whose inside we do not know."""

    def takes(path: str) -> bool:
        name_route(path)
        return True

    layers = bundle.layers(takes=takes)
    ordered = [*in_order(layers, "outer"), *_inner(layers, users=())]
    _name_layers(bundle, ordered)

    def entrance(scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        return stack(scope, receive, send)

    perf = bundle.make_perf(entrance, lambda: _described(app, ordered))
    stack = _entrance(bundle, app, ordered, perf)
    return perf


def assemble_inside(bundle: Bundle, app: Any) -> Perf:
    """Outer layers outside the user's middlewares, inner ones between them and the router.

    Starlette builds its middleware stack lazily, once; at that moment every middleware of the user
    is known, whether it was added before or after `install`.
    """
    from starlette.middleware import Middleware

    own_paths = _OwnPaths(bundle, app)
    ahead = RoutingAhead(app)
    layers = bundle.layers(takes=own_paths.takes, ahead=ahead)
    build_own_stack = app.build_middleware_stack

    def has_rejections(users: Sequence[Any]) -> bool:
        return bool(users) and bundle.database.is_configured  # else none of them refuses anybody

    def description() -> tuple[LayerInfo, ...]:
        users = app.user_middleware
        outer = in_order(layers, "outer")
        if has_rejections(users):
            outer.append(Layer(REJECTIONS, RejectionLayer))
        return _described(app, outer, users, _inner(layers, users))

    def build_middleware_stack() -> ASGIApp:
        own_paths.leave_to_app(list(bundle.endpoints))
        _tell_rules_without_route(bundle, app)
        _tell_other_compression(bundle, app.user_middleware)
        users = app.user_middleware
        bundle.protection.read_routes(ahead)
        learn_tracked()
        outer, inner = in_order(layers, "outer"), _inner(layers, users)
        _name_layers(bundle, [*outer, *inner])

        def inner_layers(core: ASGIApp) -> ASGIApp:
            if not bundle.overhead:
                return composed(inner, core)  # nothing is sampled: no head that asks for it
            return Inner(core, layers=inner, first=len(outer), overhead=bundle.overhead)

        around = [Middleware(RejectionLayer)] if has_rejections(users) else []
        app.user_middleware = [*around, *users, *([Middleware(inner_layers)] if inner else [])]
        handlers = app.exception_handlers
        app.exception_handlers = with_rejections(handlers)
        try:
            core = build_own_stack()
        finally:
            app.user_middleware, app.exception_handlers = users, handlers
        entrance = _entrance(bundle, core, outer, perf)
        is_wrapped = vars(app).get("build_middleware_stack") is not build_middleware_stack
        return _as_starlettes(entrance) if is_wrapped else entrance

    def build() -> None:
        if app.middleware_stack is None:  # no lifespan of its own: mounted in another app
            app.middleware_stack = app.build_middleware_stack()

    bundle.warming.build = build

    def learn_tracked() -> None:
        bundle.cache.tracked.learn(ahead.marks(CACHE_RULE))

    bundle.resources.when_started(learn_tracked)  # routes may come while the app starts
    perf = bundle.make_perf(app, description)
    app.build_middleware_stack = build_middleware_stack
    return perf


def _as_starlettes(entrance: ASGIApp) -> ASGIApp:
    """The stack as Starlette builds it, for who wraps what builds it: its outermost layer first.

    OpenTelemetry's FastAPIInstrumentor takes that one apart, and traces nothing where it is
    missing.  The app's own handler of errors runs in the same layer further in, and only there.
    """
    from starlette.middleware.errors import ServerErrorMiddleware

    return ServerErrorMiddleware(entrance)


class _OwnPaths:
    """Which of our paths are ours: an app keeps its own route at a default one, with a warning."""

    def __init__(self, bundle: Bundle, app: Any) -> None:
        self._bundle = bundle
        self._app = app
        self._ours: set[str] = set()

    def takes(self, path: str) -> bool:
        """Whether we answer at `path`; asked once more at its first request, because the app may
        have added routes while it started.
        """
        if path not in self._ours:
            self.leave_to_app([path])
            if path not in self._bundle.endpoints:
                return False
            self._ours.add(path)
        name_route(path)
        return True

    def leave_to_app(self, paths: Iterable[str]) -> None:
        """Give up those at which the app answers itself; a path that was set stays ours."""
        settings = self._bundle.settings
        for path in paths:
            key = "metrics.path" if path == settings.metrics.path else "dashboard.prefix"
            if settings.origin_of(key) == "default" and has_own_route(self._app, path):
                del self._bundle.endpoints[path]
                logger.warning(
                    "the app answers %s itself, so ours is not served there; "
                    "PERFORMANCE_%s gives it another path",
                    path,
                    key.upper().replace(".", "_"),
                )


def _tell_rules_without_route(bundle: Bundle, app: Any) -> None:
    section = bundle.settings.cache
    if not section.enabled:
        return
    for text in rules_without_route(app, [rule.pattern() for rule in section.rules]):
        logger.warning("cache.rules: no route of the app matches %s", text)


def _tell_other_compression(bundle: Bundle, users: Sequence[Any]) -> None:
    if not bundle.settings.compression.enabled:
        return
    for middleware in users:
        name = getattr(middleware.cls, "__name__", "")
        if name in OTHER_COMPRESSION:
            logger.warning(
                "%s encodes answers too: what it has encoded leaves as it is.  Take it out, or "
                "switch ours off with PERFORMANCE_COMPRESSION_ENABLED=false",
                name,
            )


def _name_layers(bundle: Bundle, ordered: Sequence[Layer]) -> None:
    if bundle.overhead is not None:
        bundle.overhead.name_layers([layer.rank.name for layer in ordered])


def _inner(layers: Sequence[Layer], users: Sequence[object]) -> list[Layer]:
    """The inner layers that have something to do below these middlewares of the user's."""
    inner = in_order(layers, "inner")
    return [layer for layer in inner if users or layer.rank is not REQUEST_SCOPE]


def _entrance(bundle: Bundle, app: ASGIApp, layers: list[Layer], perf: Perf) -> Entrance:
    lifespan, resources = bundle.settings.lifespan, bundle.resources
    bundle.warming.enter(app, layers, perf)
    plugin = LifespanPlugin(app, resources=resources, last_word_s=lifespan.drain_timeout_s)
    return Entrance(
        app,
        layers=layers,
        lifespan=plugin if lifespan.enabled else None,
        lifespan_ran=lambda: resources.running,
        perf=perf,
        overhead=bundle.overhead or None,  # none of no layers
        sample_every=bundle.settings.metrics.overhead_sample_every,
    )


def _described(
    app: Any,
    outer: Sequence[Layer],
    users: Sequence[Any] | None = None,
    inner: Sequence[Layer] = (),
) -> tuple[LayerInfo, ...]:
    """One line for each layer; `users` None for an app whose own middlewares are not known."""
    rows: list[tuple[str, Any, str, str]] = [_row(layer) for layer in outer]
    rows += [
        (
            getattr(middleware.cls, "__name__", type(middleware.cls).__name__),
            "yours",
            "what the layers above let through",
            "the app's own middleware, in the app's own order",
        )
        for middleware in users or ()
    ]
    rows += [_row(layer) for layer in inner]
    where = (
        "all layers wrap it from outside: its inside is not known"
        if users is None
        else "your routes"
    )
    rows.append((type(app).__name__, "app", "what is left", where))
    return tuple(LayerInfo(position, *row) for position, row in enumerate(rows, start=1))


def _row(layer: Layer) -> tuple[str, Any, str, str]:
    rank = layer.rank
    return rank.name, rank.place, rank.sees, rank.why

"""The operators' endpoints of the database; who may call them is decided before.

GET  /database                               pools, retries, and what is told of statements
GET  /database/statements?top=50&by=calls    statements, by their whole time or by another order
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from perf_middleware.asgi import send_response
from perf_middleware.database.statements.listing import ORDERS
from perf_middleware.operator_routes import (
    READING,
    OperatorRoute,
    Parameters,
    WrongParameterError,
)
from perf_middleware.problem import NO_STORE, send_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perf_middleware.asgi import Receive, Scope, Send
    from perf_middleware.database.runtime import Database
    from perf_middleware.database.statements.listing import Order

JSON: Final = b"application/json"
TOP_MAX: Final = 1_000
FEW: Final = 5  # statements beside the pools


def database_routes(database: Database) -> tuple[OperatorRoute, ...]:
    """The endpoints of one app's databases."""
    top = f"a whole number from 1 to {TOP_MAX}"
    by = f"one of {', '.join(ORDERS)}"

    def tell(_given: Parameters) -> dict[str, Any]:
        return {
            "databases": database.status(),
            "statements": database.statements.status(FEW),
        }

    def tell_statements(given: Parameters) -> dict[str, Any]:
        order = cast("Order", given.one_of("by", "seconds", ORDERS))
        return database.statements.status(given.whole("top", 50, TOP_MAX), order)

    def route(
        path: str, answer: Callable[[Parameters], dict[str, Any]], **allowed: str
    ) -> OperatorRoute:
        return OperatorRoute(path, partial(_answer, answer, allowed), READING)

    return (
        route("/database", tell),
        route("/database/statements", tell_statements, top=top, by=by),
    )


async def _answer(
    answer: Callable[[Parameters], dict[str, Any]],
    allowed: Mapping[str, str],
    scope: Scope,
    _receive: Receive,
    send: Send,
) -> None:
    import orjson

    try:
        told = answer(Parameters(scope.get("query_string", b""), allowed))
    except WrongParameterError as error:
        return await send_problem(scope, send, 400, f"{error}.")
    body = orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2, default=str)
    await send_response(scope, send, status=200, body=body, content_type=JSON, headers=(NO_STORE,))
    return None

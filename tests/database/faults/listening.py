"""The app whose own listener sets up each connection that is lent, and has a mistake there."""

from typing import Any

from sqlalchemy import event
from sqlalchemy.pool import Pool

from tests.database.faults.app import app

STATEMENTS = {
    "function": "select set_tennant()",
    "table": "select * from no_such_table",
    "syntax": "selekt 1",
}
wrong = [""]


@event.listens_for(Pool, "checkout")
def set_up(connection: Any, _record: object, _proxy: object) -> None:
    if wrong[0] == "permission":
        raise PermissionError("no such tenant")
    if wrong[0]:
        cursor = connection.cursor()
        try:
            cursor.execute(STATEMENTS[wrong[0]])
        finally:
            cursor.close()


@app.post("/wrong/{what}")
async def becomes_wrong(what: str) -> None:
    wrong[0] = what


@app.post("/right")
async def becomes_right() -> None:
    wrong[0] = ""

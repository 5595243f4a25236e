"""The public tests of HTTP caches against ours: `make conformance`; needs Node.js and npm.

    the suite's client -> uvicorn: the response cache around a proxy -> the suite's origin

The suite is http-cache-tests, behind cache-tests.fyi; npm brings it into build/conformance.  Ends
with 1 where a test fails that is not in DECIDED, or one in there passes.  With two ports, its own
and the origin's, it is that server itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httptools
import uvicorn
from browser_check import free_port, served

from perf_middleware import Settings, install

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]
SUITE = "http-cache-tests@0.4.5"
MADE = ROOT / "build" / "conformance" / SUITE.partition("@")[2]
INSTALLED = MADE / "node_modules" / "http-cache-tests"
CLIENT = """
import fetch from 'node-fetch'
import { runTests, getResults } from './node_modules/http-cache-tests/client/runner.mjs'
import suites from './node_modules/http-cache-tests/tests/index.mjs'

await runTests(suites, fetch, false, process.argv[2])
const results = getResults()
console.log(JSON.stringify(suites.flatMap(suite => suite.tests)
  .filter(test => !test.browser_only)
  .map(test => [test.kind || 'required', test.id, results[test.id]])))
"""
DECIDED = {
    "of several Age values the first counts, an invalid one is ignored (RFC 9111 §5.1)": (
        "age-parse-nonnumeric", "age-parse-negative", "age-parse-float", "age-parse-dup-*",
        "age-parse-prefix-twoline", "age-parse-parameter", "age-parse-numeric-parameter",
    ),
    "the app's failure is passed on: what is not the origin's counts as cached with the suite": (
        "stale-close-*",
    ),
    "an answer with Set-Cookie is one client's, until a rule says otherwise": (
        "headers-store-Set-Cookie", "304-etag-update-response-Set-Cookie",
    ),
    "a 304 with another entity tag confirms nothing: the app is asked again (RFC 9111 §4.3.4)": (
        "304-etag-update-response-ETag",
    ),
    "nothing keeps Content-MD5 from being updated (RFC 9111 §3.2)": (
        "304-etag-update-response-Content-MD5",
    ),
}  # fmt: skip
"""Required tests that fail, and why that is right; patterns of their ids."""
HOP_BY_HOP = frozenset({b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade"})
OTHERS = ("compression", "metrics", "runtime", "dashboard", "memory", "lifespan")
CACHE_ALONE: dict[str, Any] = {section: {"enabled": False} for section in OTHERS}


class Answer:
    """What httptools reads of one answer."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.has_head = self.is_whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_whole = True


async def ask(port: int, scope: dict[str, Any], body: bytes) -> tuple[int, Answer]:
    """The origin's answer, its fields as they came: a client library would mend or refuse some.

    Raises ConnectionError where it hangs up instead.
    """
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    lines = [b"%b %b HTTP/1.1" % (scope["method"].encode(), target)]
    lines += [b"%b: %b" % field for field in scope["headers"] if field[0] != b"connection"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = Answer()
    parser = httptools.HttpResponseParser(answer)
    try:
        writer.write(b"\r\n".join([*lines, b"connection: close", b"", body]))
        while not answer.is_whole:
            read = await reader.read(1 << 16)
            if not read:
                break
            try:
                parser.feed_data(read)
            except httptools.HttpParserError:
                if not answer.has_head:  # else its Content-Length was less than it sent
                    raise
                break
            if answer.has_head and scope["method"] == "HEAD":
                break
    finally:
        writer.close()
    if not answer.has_head:
        raise ConnectionError("the origin has hung up")
    return parser.get_status_code(), answer


def make_proxy(port: int) -> Any:
    """An ASGI app that answers with what the origin at `port` answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, answer = await ask(port, scope, body)
        fields = [
            (name, value)
            for name, value in answer.headers
            if name not in HOP_BY_HOP and (name, value) != (b"connection", b"close")
        ]
        # 999 says that a condition was missing: no status of ASGI, and none that passes a test.
        status = min(status, 599)
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": answer.body})

    return app


def serve(port: int, origin: int) -> None:
    """Serve the cache around the proxy until the process is ended."""
    app = install(make_proxy(origin), Settings(**CACHE_ALONE))
    uvicorn.run(
        app, port=port, lifespan="off", log_level="critical", access_log=False,
        server_header=False, date_header=False,
    )  # fmt: skip


def fetch_suite() -> None:
    """Have npm bring the suite; it stays in build/."""
    if shutil.which("npm") is None:
        raise SystemExit("make conformance needs Node.js and npm: apt install nodejs npm")
    MADE.mkdir(parents=True, exist_ok=True)
    if not INSTALLED.is_dir():
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", ".", SUITE]
        subprocess.run(command, cwd=MADE, check=True)
    (MADE / "client.mjs").write_text(CLIENT)


@contextmanager
def running(*command: str, **environment: str) -> Iterator[None]:
    """A server, until the block is left; in the suite's folder, from which the origin has files."""
    outside = {name: value for name, value in os.environ.items() if name[:12] != "PERFORMANCE_"}
    with subprocess.Popen(
        command, cwd=INSTALLED, env=outside | environment, stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def run_suite() -> list[tuple[str, str, Any]]:
    """Kind, id and result (true, or why not) of each test."""
    fetch_suite()
    origin, port = free_port(), free_port()
    with ExitStack() as stack:
        stack.enter_context(
            running(
                "node", "server/server.mjs",
                npm_config_protocol="http", npm_config_port=str(origin),
                npm_config_pidfile=str(MADE / "origin.pid"),
            )
        )  # fmt: skip
        stack.enter_context(running(sys.executable, __file__, str(port), str(origin)))
        served(f"http://127.0.0.1:{port}/")
        told = subprocess.run(
            ["node", "--no-warnings", "client.mjs", f"http://127.0.0.1:{port}"],
            cwd=MADE, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    found: list[tuple[str, str, Any]] = json.loads(told.stdout)
    return found


def why_decided(test: str) -> str | None:
    """The reason for which a required test fails, None where there is none."""
    for why, patterns in DECIDED.items():
        if any(fnmatchcase(test, pattern) for pattern in patterns):
            return why
    return None


def tell(found: Sequence[tuple[str, str, Any]]) -> int:
    """Print what passed; the exit code."""
    passed = Counter(kind for kind, _, result in found if result is True)
    for kind, all_of_it in Counter(kind for kind, _, _ in found).items():
        print(f"{kind}: {passed[kind]} of {all_of_it}")
    wrong = 0
    for kind, test, result in found:
        if kind != "required":
            continue
        why = why_decided(test)
        if result is not True:
            print(f"  {test}: {why or f'NOT EXPECTED: {result}'}")
        elif why is not None:
            print(f"  {test}: passes, though it is in DECIDED")
        wrong += (result is True) == (why is not None)
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(int(sys.argv[1]), int(sys.argv[2]))
    else:
        sys.exit(tell(run_suite()))

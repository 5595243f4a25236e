"""`python -m examples.fastapi_app`: the shop under uvicorn."""

import argparse
import errno
import os
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from examples.fastapi_app.database import PATH_VARIABLE

PORT_MAX = 65_535
WORKERS_MAX = 64
GOODBYE_S_MAX = 5  # what is still open then is cut off


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.fastapi_app", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the port")
    arguments = parser.parse_args()
    if not 0 <= arguments.port <= PORT_MAX:
        parser.error(f"--port must be 0 to {PORT_MAX}")
    if not 1 <= arguments.workers <= WORKERS_MAX:
        parser.error(f"--workers must be 1 to {WORKERS_MAX}")

    # Bound here, not by uvicorn: a taken port is noticed before anything else has started.
    listener = _listen(arguments.host, arguments.port)
    _print_addresses(arguments.host, listener.getsockname()[1])
    config = uvicorn.Config(
        "examples.fastapi_app.app:app",
        workers=arguments.workers,
        timeout_graceful_shutdown=GOODBYE_S_MAX,
    )
    with suppress(KeyboardInterrupt):
        if arguments.workers == 1:
            uvicorn.Server(config).run(sockets=[listener])
        else:
            _run_workers(config, listener)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sys.exit(
                f"Port {port} of {host} is taken: choose another with --port (make demo PORT=…)."
            )
        sys.exit(f"Cannot listen on {host}: {error.strerror}.")


def _print_addresses(host: str, port: int) -> None:
    if host in {"0.0.0.0", "::"}:
        host = "localhost"
    elif ":" in host:
        host = f"[{host}]"
    base = f"http://{host}:{port}"
    sys.stdout.write(
        f"The shop opens at\n"
        f"  {base}/               what there is to see\n"
        f"  {base}/docs           its API\n"
        f"  {base}/metrics        what perf_middleware measures\n"
        f"  {base}/_perf/summary  the same for people; the token is in the log below\n"
        f"Ctrl-C closes it.\n"
    )
    sys.stdout.flush()


def _run_workers(config: uvicorn.Config, listener: socket.socket) -> None:
    if "PERFORMANCE_REDIS_URL" not in os.environ:
        # A commit of one process must be heard of by all that keep what was read before.
        sys.stdout.write("Nothing is cached: for several workers name a PERFORMANCE_REDIS_URL.\n")
        sys.stdout.flush()
        os.environ.setdefault("PERFORMANCE_CACHE_ENABLED", "false")
        os.environ.setdefault("PERFORMANCE_MEMO_ENABLED", "false")
    # All worker processes serve one file, so it is named before they start.
    with tempfile.TemporaryDirectory(prefix="perf-middleware-example-") as directory:
        os.environ.setdefault(PATH_VARIABLE, str(Path(directory, "shop.sqlite3")))
        Multiprocess(config, sockets=[listener]).run()


if __name__ == "__main__":
    main()

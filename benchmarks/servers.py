"""Real servers on loopback: started on a free port, their CPU time read, ended by their ids.

uvicorn and granian serve a factory of served_apps.py; nginx keeps an upstream's answers in its
proxy_cache, from a configuration in a temporary directory, as whoever runs it.
"""

from __future__ import annotations

import gzip
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import IO, TYPE_CHECKING, Final

import psutil

from benchmarks.installed_apps import PATH, accepting
from benchmarks.runner import CheckError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.runner import LoopName

ROOT: Final = Path(__file__).parents[1]
ASKED_PATH: Final = PATH.replace("{item}", "17")
START_S: Final = 60.0
END_S: Final = 10.0
LOOK_S: Final = 0.02  # between two looks at a server that starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answers on `port`; `process` is the first of its processes."""

    name: str
    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """CPU time of all its processes so far, user and system."""
        spent = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            times = process.cpu_times()
            spent += times.user + times.system
        return spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An answer as it came; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes

    @property
    def plain(self) -> bytes:
        """The body, decoded."""
        if self.headers.get("content-encoding") == "gzip":
            return gzip.decompress(self.body)
        return self.body


def fetch(port: int, coding: str, path: str = ASKED_PATH) -> Fetched:
    """One GET by a client that takes this coding."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    try:
        connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        for name, value in accepting(coding.encode()):
            connection.putheader(name.decode(), value.decode())
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
    except http.client.HTTPException as error:
        raise CheckError(f"port {port}: {error!r}") from error
    finally:
        connection.close()
    fields = answer.getheaders()
    lines = [f"HTTP/1.1 {answer.status}", *(f"{name}: {value}" for name, value in fields)]
    return Fetched(
        status=answer.status,
        headers={name.lower(): value for name, value in fields},
        body=body,
        head="\r\n".join(lines).encode(),
    )


def missing_servers() -> dict[str, str]:
    """What cannot be started here, and why."""
    missing = {}
    if find_spec("granian") is None:
        missing["granian"] = 'is not installed: no row (the extra "bench" has it)'
    if nginx_path() is None:
        missing["nginx"] = "is not installed: no row"
    return missing


def nginx_path() -> str | None:
    """Where nginx is: not on everybody's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def uvicorn(
    factory: str,
    *,
    loop: LoopName = "uvloop",
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """A factory of served_apps.py under uvicorn."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "--factory", f"benchmarks.served_apps:{factory}",
        "--host", "127.0.0.1", "--port", str(port), "--loop", loop, "--http", "httptools",
        "--no-access-log", "--log-level", "warning", "--workers", str(workers),
    ]  # fmt: skip
    with _started(f"uvicorn, {factory}", command, port, environment) as running:
        yield running


@contextmanager
def granian(
    factory: str, *, loop: LoopName = "uvloop", environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """The same under granian: one worker, one thread of its runtime, HTTP/1."""
    port = free_port()
    command = [
        sys.executable, "-m", "granian", "--factory", f"benchmarks.served_apps:{factory}",
        "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--loop", loop,
        "--http", "1", "--no-ws", "--workers", "1", "--log-level", "warning",
    ]  # fmt: skip
    with _started(f"granian, {factory}", command, port, environment) as running:
        yield running


NGINX_CONF: Final = """
daemon off;
{user}
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  proxy_cache_path cache keys_zone=answers:1m inactive=1d use_temp_path=off;
  open_file_cache max=16;
  map $http_accept_encoding $upstream {{ gzip 127.0.0.1:{gzip}; default 127.0.0.1:{plain}; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://$upstream;
      proxy_http_version 1.1;
      proxy_cache answers;
      proxy_cache_key $uri$http_accept_encoding;
      proxy_cache_valid 200 1d;
      proxy_ignore_headers Cache-Control Expires Vary;
      add_header x-cache $upstream_cache_status;
    }}
  }}
}}
"""


@contextmanager
def nginx(*, plain: int, gzip: int) -> Iterator[Running]:
    """nginx, one worker, before two raw servers: it has their answers after the first request."""
    with tempfile.TemporaryDirectory(prefix="perf-nginx-") as made:
        # Its worker would become another user, who may not enter the directory.
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        port = free_port()
        text = NGINX_CONF.format(
            user="user root;" if is_root else "", port=port, plain=plain, gzip=gzip
        )
        Path(made, "nginx.conf").write_text(text)
        command = [nginx_path() or "nginx", "-p", made, "-c", "nginx.conf", "-e", "error.log"]
        with _started("nginx", command, port, None) as running:
            yield running


def free_port() -> int:
    """A port of loopback that nobody has a moment later, most likely."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def _started(
    name: str, command: Sequence[str], port: int, environment: Mapping[str, str] | None
) -> Iterator[Running]:
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("PERFORMANCE_")
    }
    inherited |= {"PYTHONPATH": str(ROOT), **(environment or {})}
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, cwd=ROOT, env=inherited, stdout=said, stderr=said) as started,
    ):
        process = psutil.Process(started.pid)
        try:
            _await_answer(name, started, port, said)
            yield Running(name=name, port=port, process=process)
        finally:
            _end(started, process)


def _await_answer(name: str, started: subprocess.Popen[bytes], port: int, said: IO[bytes]) -> None:
    until_s = monotonic() + START_S
    while started.poll() is None and monotonic() < until_s:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_S):
                return
        except OSError:
            sleep(LOOK_S)
    said.seek(0)
    raise CheckError(f"{name} did not start: {said.read()[-2000:].decode(errors='replace')}")


def _end(started: subprocess.Popen[bytes], process: psutil.Process) -> None:
    """Ask all of its processes to end, and end those that do not."""
    if started.poll() is not None:
        return
    below = process.children(recursive=True)
    started.terminate()
    _, left = psutil.wait_procs([process, *below], timeout=END_S)
    for each in left:
        each.kill()

"""A browser and curl read the example in each coding: `make browser`; needs Chromium and curl.

The first page of the example is rendered from answers in br, zstd and gzip, and has to be the same
page; `curl --compressed` has to give the bytes of `curl`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep
from urllib.error import URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
CODINGS = ("br", "zstd", "gzip")
PATHS = ("/catalogue/categories", "/openapi.json", "/")
START_S = 30.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def served(url: str) -> None:
    until_s = monotonic() + START_S
    while True:
        try:
            urlopen(url, timeout=5).close()
        except URLError:
            if monotonic() > until_s:
                raise
            sleep(0.1)
        else:
            return


def output_of(*command: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout


def coding_of(url: str, accepts: str) -> str:
    with urlopen(Request(url, headers={"Accept-Encoding": accepts}), timeout=10) as answer:
        return str(answer.headers.get("Content-Encoding", "identity"))


def check(browser: str, coding: str) -> dict[str, bytes]:
    """What the browser shows of each page, where the server offers this coding alone."""
    port = free_port()
    environment = os.environ | {
        "PERFORMANCE_COMPRESSION_CODINGS": coding,
        "PERFORMANCE_COMPRESSION_MINIMUM_BYTES": "1",
    }
    shop = subprocess.Popen(
        [sys.executable, "-m", "examples.fastapi_app", "--port", str(port)],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    shown = {}
    try:
        base = f"http://127.0.0.1:{port}"
        served(f"{base}/")
        for path in PATHS:
            url = base + path
            if coding_of(url, "gzip, deflate, br, zstd") != coding:
                raise SystemExit(f"{path} did not come in {coding}")
            if output_of("curl", "-s", "--compressed", url) != output_of("curl", "-s", url):
                raise SystemExit(f"{path}: curl --compressed is not curl ({coding})")
            with tempfile.TemporaryDirectory() as profile:
                shown[path] = output_of(
                    browser, "--headless", "--no-sandbox", "--disable-gpu",
                    f"--user-data-dir={profile}", "--timeout=4000", "--dump-dom", url,
                )  # fmt: skip
            if len(shown[path]) < 200:
                raise SystemExit(f"{path} in {coding} is empty in the browser")
            print(f"{coding:5} {path:22} {len(shown[path]):6} bytes shown")
    finally:
        shop.terminate()
        shop.wait(timeout=20)
    return shown


def main() -> None:
    """Check each coding; the exit status tells."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None or shutil.which("curl") is None:
        raise SystemExit("this check needs Chromium and curl")
    pages = [check(browser, coding) for coding in CODINGS]
    for path in PATHS:
        texts = {page[path].replace(b"\r", b"") for page in pages}
        if path != "/" and len(texts) != 1:
            raise SystemExit(f"{path} is not the same page in each coding")
    print("the same pages in each coding")


if __name__ == "__main__":
    main()

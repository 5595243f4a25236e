"""Content codings: ratio and CPU time of every level, beside what other middlewares do.

    python -m benchmarks.codecs            # starlette-compress and brotli-asgi are in bench-peers
    python -m benchmarks.codecs --quick    # only the levels that are defaults, and the peers

Every row encodes the same body; before anything is timed it must be decoded to what it was.  All
rows of a body run in interleaved rounds, in an order that is drawn anew; the time is CPU time.

- `ratio`: body / coded body.  `x peer`: this row divided by the fastest peer of its coding, in the
  same round; `ratio x peer` the same of the ratios.  Below 1 and at least 1 is better in both.
- Peers are called as their middlewares call them: Starlette's GZipMiddleware makes a zlib
  compressor at level 9 for each response, starlette-compress calls gzip.compress at 4, brotli at 4
  and a kept zstd compressor at 4, brotli-asgi a compressor of quality 4.
- Streams: 400 server-sent events, a flush after each; memory is what 200 open ones take.
"""

from __future__ import annotations

import gc
import json
import platform
import random
import zlib
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import monotonic, process_time_ns
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.figures import Spread, spread
from benchmarks.runner import CheckError, arguments, write_json
from perf_middleware.compression.drivers.available import available_codecs
from perf_middleware.compression.levels import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.compression.codecs import Codec

    Encode = Callable[[bytes], bytes]

CODECS = {codec.name: codec for codec in available_codecs()}
ROUND_US = 3_000  # of each row: a cheap level runs often, an expensive one once
STREAMS = 200
EVENTS = 400
WORDS = (
    "account address after amount anna archive available before between blue cable carrier change "
    "city client colour comment contact country created customer delivery describe draft during "
    "email event every expected failed first forward garden general green group have height house "
    "inside into invoice item january keep label large later latest letter light limit line list "
    "manager market message minimum monday more name next north number object offer order other "
    "paper part partner payment people phone place please price product quality quantity quick "
    "reason received region report request result return river road room same second sender "
    "service shipped short small stock street summary system table their there thing time title "
    "today total track under unit update user value version wait week weight where which width "
    "with without work world yellow your zone"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to encode a body."""

    coding: str
    name: str
    encode: Encode
    is_peer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one row took for one body."""

    body: str
    coding: str
    name: str
    ratio: float
    body_us: Spread
    x_peer: float | None
    ratio_x_peer: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLine:
    """What one kind of open stream took."""

    name: str
    ratio: float
    event_us: float
    kilobytes: int


# --- bodies ---------------------------------------------------------------------------------------


def record(draw: random.Random, number: int, words: Sequence[str]) -> dict[str, Any]:
    """One row as an API sends it: a third of it does not compress."""
    return {
        "id": 100_000 + number,
        "uuid": f"{draw.getrandbits(128):032x}",
        "name": f"{draw.choice(words).title()} {draw.choice(words).title()}",
        "email": f"{draw.choice(words)}.{draw.choice(words)}@example.org",
        "price": round(draw.lognormvariate(3, 1), 2),
        "stock": draw.randrange(500),
        "active": draw.random() < 0.8,
        "created_at": f"2026-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}T"
        f"{draw.randrange(24):02}:{draw.randrange(60):02}:{draw.randrange(60):02}Z",
        "tags": draw.sample(words, 3),
        "description": " ".join(draw.choices(words, k=draw.randrange(6, 18))),
    }


def json_body(size: int) -> bytes:
    draw, words = random.Random(size), WORDS.split()
    rows: list[bytes] = []
    so_far = 0
    while so_far < size:
        rows.append(json.dumps(record(draw, len(rows), words), separators=(",", ":")).encode())
        so_far += len(rows[-1]) + 1
    return b'{"items":[' + b",".join(rows) + b"]}"


def html_body(size: int) -> bytes:
    draw, words = random.Random(size), WORDS.split()
    page = ['<!doctype html><html lang="en"><head><title>Products</title></head><body><main>']
    so_far = 0
    while so_far < size:
        one = record(draw, len(page), words)
        page.append(
            f'<article class="card card--{"on" if one["active"] else "off"}" id="item-{one["id"]}">'
            f'<h2 class="card__title"><a href="/products/{one["id"]}">{one["name"]}</a></h2>'
            f'<p class="card__text">{one["description"].capitalize()}.</p>'
            f'<span class="card__price">{one["price"]} EUR</span></article>\n'
        )
        so_far += len(page[-1])
    return ("".join(page) + "</main></body></html>").encode()


def source_body(size: int) -> bytes:
    """Program text, as scripts and style sheets are: this project's own."""
    files = sorted((Path(__file__).parents[1] / "perf_middleware").rglob("*.py"))
    return b"".join(path.read_bytes() for path in files)[:size]


def bodies() -> dict[str, bytes]:
    return {
        "JSON, 2 kB": json_body(2_000),
        "JSON, 20 kB": json_body(20_000),
        "JSON, 30 kB": json_body(30_000),
        "HTML, 30 kB": html_body(30_000),
        "source text, 60 kB": source_body(60_000),
        "JSON, 1 MB": json_body(1_000_000),
    }


def events() -> list[bytes]:
    draw, words = random.Random(1), WORDS.split()
    return [
        b"data: "
        + json.dumps(
            {"seq": number, "kind": draw.choice(words[:6]), "value": round(draw.random(), 4),
             "at": f"2026-11-21T11:{number // 60 % 60:02}:{number % 60:02}Z"}
        ).encode()
        + b"\n\n"
        for number in range(EVENTS)
    ]  # fmt: skip


# --- rows -----------------------------------------------------------------------------------------


def ours(*, quick: bool) -> list[Row]:
    found = []
    for name, codec in CODECS.items():
        chosen = LEVELS[name]
        levels = (
            sorted({chosen.under_pressure, chosen.on_the_fly, chosen.kept})
            if quick
            else range(chosen.lowest, chosen.highest + 1)
        )
        found += [
            Row(coding=name, name=f"{name} {level}", encode=partial(codec.encode, level=level))
            for level in levels
        ]
    return found


def peers() -> list[Row]:
    found = [
        Row(coding="gzip", name="Starlette GZipMiddleware", encode=starlette_gzip, is_peer=True)
    ]
    if find_spec("starlette_compress") is not None:
        found += [
            Row(coding=coding, name=f"starlette-compress, {coding}", encode=encode, is_peer=True)
            for coding, encode in starlette_compress().items()
        ]
    if find_spec("brotli_asgi") is not None:
        found.append(Row(coding="br", name="brotli-asgi", encode=brotli_asgi, is_peer=True))
    return found


def starlette_gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def starlette_compress() -> dict[str, Encode]:
    """Its own one-shot functions, at its default levels."""
    from starlette_compress import CompressMiddleware

    middleware: Any = CompressMiddleware(no_app)
    found: dict[str, Encode] = {
        "zstd": middleware._zstd.oneshot,  # noqa: SLF001 - what it calls for a whole body
        "br": middleware._brotli.oneshot,  # noqa: SLF001
        "gzip": middleware._gzip.oneshot,  # noqa: SLF001
    }
    return found


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    """The app of a middleware that is never called."""


def brotli_asgi(body: bytes) -> bytes:
    library: Any = import_module("brotli")
    compressor = library.Compressor(quality=4, mode=library.MODE_TEXT, lgwin=22, lgblock=0)
    encoded: bytes = compressor.process(body) + compressor.finish()
    return encoded


# --- measuring ------------------------------------------------------------------------------------


def measured(
    name: str, body: bytes, rows: Sequence[Row], *, rounds: int, seconds_max: float
) -> list[Line]:
    sizes = {row.name: checked(row, body) for row in rows}
    calls = {row.name: max(1, int(ROUND_US / timed(row, body, 1))) for row in rows}
    times: dict[str, list[float]] = {row.name: [] for row in rows}
    order = list(rows)
    shuffle = random.Random(1).shuffle
    until_s = monotonic() + seconds_max
    gc.collect()
    for _ in range(rounds):
        shuffle(order)
        for row in order:
            times[row.name].append(timed(row, body, calls[row.name]))
        if monotonic() >= until_s:
            break
    return [line(name, body, row, rows, times, sizes) for row in rows]


def checked(row: Row, body: bytes) -> int:
    """The size of the coded body, once it was decoded."""
    encoded = row.encode(body)
    decoder = CODECS[row.coding].decoder()
    if decoder.decode(encoded, len(body) + 1) != body or not decoder.is_complete:
        raise CheckError(f"{row.name}: another body")
    return len(encoded)


def timed(row: Row, body: bytes, calls: int) -> float:
    """CPU microseconds of one call."""
    encode = row.encode
    encode(body)
    began_ns = process_time_ns()
    for _ in range(calls):
        encode(body)
    return (process_time_ns() - began_ns) / calls / 1000


def line(
    name: str,
    body: bytes,
    row: Row,
    rows: Sequence[Row],
    times: dict[str, list[float]],
    sizes: dict[str, int],
) -> Line:
    rivals = [one.name for one in rows if one.is_peer and one.coding == row.coding]
    rival = min(rivals, key=lambda one: median(times[one]), default=None)
    shares = None
    if rival is not None:
        pairs = zip(times[row.name], times[rival], strict=True)
        shares = median(own / theirs for own, theirs in pairs)
    return Line(
        body=name,
        coding=row.coding,
        name=row.name,
        ratio=len(body) / sizes[row.name],
        body_us=spread(times[row.name]),
        x_peer=shares,
        ratio_x_peer=None if rival is None else sizes[rival] / sizes[row.name],
    )


def streamed(codec: Codec, level: int, *, small_window: bool) -> StreamLine:
    """In a process of its own: memory that one kind has left behind would be the next one's."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_streamed, (codec.name, level, small_window))


def _streamed(name: str, level: int, small_window: bool) -> StreamLine:
    codec = CODECS[name]
    sent = events()

    def encoder() -> Any:
        return codec.encoder(level=level, small_window=small_window)

    def through(encoder: Any) -> int:
        return sum(len(encoder.encode(event)) + len(encoder.flush()) for event in sent)

    coded = through(encoder())
    best_us = min(_stream_us(through, encoder()) for _ in range(9))
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    kept = [encoder() for _ in range(STREAMS)]
    for one in kept:
        through(one)
    after = process.memory_info().rss
    return StreamLine(
        name=f"{name} {level}{', small window' if small_window else ''}",
        ratio=sum(map(len, sent)) / coded,
        event_us=best_us,
        kilobytes=round((after - before) / len(kept) / 1000),
    )


def _stream_us(through: Callable[[Any], int], encoder: Any) -> float:
    began_ns = process_time_ns()
    through(encoder)
    return (process_time_ns() - began_ns) / EVENTS / 1000


# --- telling --------------------------------------------------------------------------------------


def told(title: str, lines: Sequence[Line]) -> str:
    """A Markdown table, the default levels in bold."""
    text = [
        f"### {title}",
        "",
        "| | ratio | us | quartiles | x peer | ratio x peer |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    defaults = {f"{name} {levels.on_the_fly}" for name, levels in LEVELS.items()}
    for one in lines:
        name = f"**{one.name}**" if one.name in defaults else one.name
        shares = "| |"
        if one.x_peer is not None and one.ratio_x_peer is not None:
            shares = f"{one.x_peer:.2f} | {one.ratio_x_peer:.3f} |"
        us = one.body_us
        text.append(
            f"| {name} | {one.ratio:.2f} | {us.median:.0f} "
            f"| {us.low:.0f} .. {us.high:.0f} | {shares}"
        )
    return "\n".join(text)


def told_streams(lines: Sequence[StreamLine]) -> str:
    text = ["### Event streams", "", "| | ratio | us/event | kB/stream |", "|---|--:|--:|--:|"]
    text += [
        f"| {one.name} | {one.ratio:.2f} | {one.event_us:.1f} | {one.kilobytes} |" for one in lines
    ]
    return "\n".join(text)


def main() -> None:
    parser = arguments(__doc__, rounds=200)
    parser.add_argument("--quick", action="store_true", help="only the default levels and peers")
    parser.add_argument("--seconds-max", type=float, default=20.0, help="for each body")
    options = parser.parse_args()
    rows = [*ours(quick=options.quick), *peers()]
    print(f"Python {platform.python_version()}, {platform.machine()}")
    reports: list[Line | StreamLine] = []
    for name, body in bodies().items():
        lines = measured(name, body, rows, rounds=options.rounds, seconds_max=options.seconds_max)
        print(f"\n{told(f'{name}: {len(body):,} bytes', lines)}", flush=True)
        reports += lines
    streams = [
        streamed(codec, level, small_window=small)
        for codec in CODECS.values()
        for level in sorted({LEVELS[codec.name].stream, LEVELS[codec.name].on_the_fly})
        for small in (False, True)
    ]
    print(f"\n{told_streams(streams)}")
    reports += streams
    write_json(options.json, reports)


if __name__ == "__main__":
    main()

"""The generator and the report of benchmarks/overload.py: right before they are believed."""

import asyncio
import math
import xml.etree.ElementTree as ET
from contextlib import asynccontextmanager

import pytest

from benchmarks.open_load import BROKEN, GAVE_UP, Phase, Sent, capacity_per_s, run
from benchmarks.overload import Result, each_second, good, percentile, plotted

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def serving(answer):
    """A server that says `answer` to whatever it reads, or nothing for None."""
    asked = []

    async def talk(reader, writer):
        while await reader.read(4096):
            asked.append(1)
            if answer is not None:
                # In two pieces: the end of a head is looked for in what has come so far.
                writer.write(answer[:9])
                await writer.drain()
                writer.write(answer[9:])
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()


def outcome(answer, *, patience_s=5.0, rate_per_s=200.0):
    async def main():
        async with serving(answer) as (port, asked):
            phase = Phase(rate_per_s=rate_per_s, seconds=0.3, path="/")
            return await run(port, phase, patience_s=patience_s), len(asked)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(ANSWER, 200, id="whole answers"),
        pytest.param(REFUSAL, 503, id="refusals that close the connection"),
    ],
)
def test_each_request_is_sent_when_it_is_due_and_its_answer_is_read(answer, status):
    sent, asked = outcome(answer)
    assert len(sent) == asked > 20
    assert {one.status for one in sent} == {status}
    assert all(one.took_s > 0 for one in sent)


def test_requests_do_not_wait_for_those_before_them():
    sent, asked = outcome(None, patience_s=0.5)
    assert len(sent) == asked > 20  # nobody was answered, and all the same all were sent
    assert {one.status for one in sent} == {GAVE_UP}


def test_a_server_that_is_not_there_is_told():
    async def main():
        async with serving(ANSWER) as (port, _):
            pass
        return await run(port, Phase(rate_per_s=50, seconds=0.2, path="/"))

    assert {one.status for one in asyncio.run(main())} == {BROKEN}


def test_the_capacity_is_what_a_closed_loop_gets():
    async def main():
        async with serving(ANSWER) as (port, asked):
            per_s = await capacity_per_s(port, "/", workers=3, seconds=0.2)
            return per_s, len(asked)

    per_s, asked = asyncio.run(main())
    assert 0 < per_s <= asked / 0.2


def test_a_phase_is_the_same_for_the_same_seed():
    first, again = [sorted(one.due_s for one in outcome(ANSWER)[0]) for _ in range(2)]
    assert first == again


def result(**fields):
    values = dict.fromkeys(Result.__dataclass_fields__, 0.0)
    return Result(**{**values, "app": "cpu", **fields})


def test_a_percentile_is_a_value_that_was_seen():
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.5) == 51.0
    assert percentile(values, 0.99) == 100.0
    assert percentile([7.0], 0.99) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_requests_are_told_by_the_second_in_which_they_were_due():
    sent = [Sent(0.1, 0.5, 200), Sent(1.9, 0.5, 503), Sent(1.2, 0.2, 200), Sent(2.0, 0.1, 200)]
    seconds = each_second(sent, 2)
    assert [len(second) for second in seconds] == [1, 3]
    assert good(seconds[1]) == [0.2, 0.1]


def test_the_plot_is_a_picture_with_both_runs():
    nan = math.nan
    runs = [
        result(bundle=True, goodput_each_s=(40.0, 41.0, 20.0), p99_each_s=(0.03, 0.04, 0.02)),
        result(bundle=False, goodput_each_s=(40.0, 2.0, 0.0), p99_each_s=(0.5, 1.9, nan)),
    ]
    shown = plotted("cpu", runs, overload_s=2)
    assert "nan" not in shown
    lines = ET.fromstring(shown).findall('.//{*}g/{*}path[@stroke-width="1.5"]')
    assert len(lines) == 4

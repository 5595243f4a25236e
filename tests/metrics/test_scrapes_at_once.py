"""Many scrapes at once: one page is rendered, few are served, and no reader stays for ever."""

import anyio
import anyio.lowlevel
import pytest

from perf_middleware.metrics import routes
from perf_middleware.metrics.routes import AT_ONCE_MAX, MetricsPage
from tests.metrics.wires import http


class Gated:
    """Stands in for Metrics: says when a page is begun and goes on when it is let."""

    def __init__(self):
        self.begun = 0
        self.may_go_on = anyio.Event()

    async def page(self, form):
        self.begun += 1
        yield f"page {self.begun}\n".encode()
        await self.may_go_on.wait()
        yield b"end\n"


class Reader:
    """A client: what it was sent; `reads` False makes it take nothing."""

    def __init__(self, *, reads=True):
        self.sent = []
        self._reads = reads

    async def receive(self):
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message):
        if not self._reads:
            await anyio.sleep_forever()
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)


async def settled():
    """Let every task run until it waits."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@pytest.fixture(params=["asyncio", "trio"])
def backend(request):
    return request.param


def test_who_came_while_a_page_was_made_shares_the_next_one(backend):
    async def main():
        metrics = Gated()
        page = MetricsPage(metrics)
        readers = [Reader() for _ in range(4)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(page, http("/metrics"), readers[0].receive, readers[0].send)
            await settled()
            for reader in readers[1:]:
                tasks.start_soon(page, http("/metrics"), reader.receive, reader.send)
            await settled()
            metrics.may_go_on.set()
        assert readers[0].body == b"page 1\nend\n"
        assert {reader.body for reader in readers[1:]} == {b"page 2\nend\n"}
        assert metrics.begun == 2

    anyio.run(main, backend=backend)


def test_a_later_scrape_gets_a_page_of_its_own():
    async def main():
        metrics = Gated()
        metrics.may_go_on.set()
        page = MetricsPage(metrics)
        bodies = []
        for _ in range(2):
            reader = Reader()
            await page(http("/metrics"), reader.receive, reader.send)
            bodies.append(reader.body)
        assert bodies == [b"page 1\nend\n", b"page 2\nend\n"]

    anyio.run(main)


def test_more_scrapes_than_the_bound_are_told_to_come_again(backend):
    async def main():
        metrics = Gated()
        page = MetricsPage(metrics)
        served = [Reader() for _ in range(AT_ONCE_MAX)]
        refused = Reader()
        async with anyio.create_task_group() as tasks:
            for reader in served:
                tasks.start_soon(page, http("/metrics"), reader.receive, reader.send)
            await settled()
            await page(http("/metrics"), refused.receive, refused.send)
            metrics.may_go_on.set()
        assert refused.status == 503
        assert (b"retry-after", b"1") in refused.sent[0]["headers"]
        assert {reader.status for reader in served} == {200}
        again = Reader()
        await page(http("/metrics"), again.receive, again.send)
        assert again.status == 200

    anyio.run(main, backend=backend)


def test_readers_that_take_nothing_do_not_keep_their_places(backend, monkeypatch):
    monkeypatch.setattr(routes, "SEND_S_MAX", 0.05)

    async def main():
        metrics = Gated()
        metrics.may_go_on.set()
        page = MetricsPage(metrics)
        with anyio.fail_after(120):
            async with anyio.create_task_group() as tasks:
                for _ in range(AT_ONCE_MAX):
                    reader = Reader(reads=False)
                    tasks.start_soon(page, http("/metrics"), reader.receive, reader.send)
            reader = Reader()
            await page(http("/metrics"), reader.receive, reader.send)
        assert reader.status == 200

    anyio.run(main, backend=backend)


def test_a_new_scrape_takes_the_place_of_a_reader_that_had_its_time(backend, monkeypatch):
    async def main():
        metrics = Gated()
        metrics.may_go_on.set()
        page = MetricsPage(metrics)
        with anyio.fail_after(120):
            async with anyio.create_task_group() as tasks:
                for _ in range(AT_ONCE_MAX):
                    reader = Reader(reads=False)
                    tasks.start_soon(page, http("/metrics"), reader.receive, reader.send)
                await settled()
                refused, served = Reader(), Reader()
                await page(http("/metrics"), refused.receive, refused.send)
                monkeypatch.setattr(routes, "SEND_S_SURE", 0.0)
                await page(http("/metrics"), served.receive, served.send)
                assert (refused.status, served.status) == (503, 200)
                tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)


def test_a_scrape_whose_client_left_lets_the_next_one_in():
    async def main():
        metrics = Gated()
        page = MetricsPage(metrics)
        gone, next_one = Reader(), Reader()
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(0.05):
                await page(http("/metrics"), gone.receive, gone.send)
            tasks.start_soon(page, http("/metrics"), next_one.receive, next_one.send)
            await settled()
            metrics.may_go_on.set()
        assert next_one.status == 200

    anyio.run(main)

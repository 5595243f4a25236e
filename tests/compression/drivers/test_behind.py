"""The thread that encodes behind answers: it may come to its end at any moment."""

import zlib
from types import SimpleNamespace

from perf_middleware.compression.drivers.behind import EncodingBehind, Job
from perf_middleware.compression.drivers.gzip import GzipCodec
from tests.http.wire import eventually


class EndsMeanwhile(EncodingBehind):
    """Its thread has nothing more to do, and ends, right behind the first look at it."""

    @property
    def _thread(self):
        thread, self.thread = self.thread, None
        return thread

    @_thread.setter
    def _thread(self, thread):
        self.thread = thread


def test_a_thread_that_ends_while_it_is_looked_at_takes_no_answer_with_it():
    """A fixed bug: without a GIL a hit could end with an AttributeError, once in its idle time."""
    behind = EndsMeanwhile(waiting_max=2, bytes_max=1_000)
    body = b"body " * 100
    for _ in range(2):
        assert behind.put(Job(SimpleNamespace(body=body), GzipCodec(), 1))
    done = []
    eventually(lambda: done.extend(behind.collect()) or len(done) == 2, what="both encoded")
    assert [zlib.decompress(each.coded, 31) for each in done] == [body, body]
    assert behind.waiting == 0

"""The chunked list: a list to append to, whatever its codec, and from any thread."""

from threading import Event

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from perf_middleware.memory_watch.structures.stores.chunked import ChunkedList
from tests.memory_watch.structures.threads import together

CODECS = pytest.mark.parametrize("codec", ["plain", "q", "json"])


@CODECS
@given(
    items=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30),
    dropped=st.integers(0, 35),
    chunk_items=st.integers(1, 9),
    bounds=st.tuples(*[st.none() | st.integers(-40, 40)] * 2),
    step=st.sampled_from([None, 1, 2, 5, -1, -3]),
)
def test_it_reads_as_a_list(codec, items, dropped, chunk_items, bounds, step):
    chunked = ChunkedList(items, codec=codec, chunk_items=chunk_items)
    assert chunked.drop_front(dropped) == min(dropped, len(items))
    model = items[dropped:]
    assert list(chunked) == model
    assert len(chunked) == len(model)
    assert chunked[slice(*bounds, step)] == model[slice(*bounds, step)]
    for index in range(-len(model), len(model)):
        assert chunked[index] == model[index]
    for index in (len(model), -len(model) - 1):
        with pytest.raises(IndexError):
            chunked[index]
    assert list(reversed(chunked)) == model[::-1]


@pytest.mark.parametrize(
    ("codec", "item", "error"),
    [
        pytest.param("B", 256, OverflowError, id="a number that is too large"),
        pytest.param("d", "5", TypeError, id="a text where a number belongs"),
        pytest.param("json", object(), TypeError, id="what is no JSON"),
    ],
)
def test_what_the_codec_cannot_keep_is_refused_at_the_append(codec, item, error):
    chunked = ChunkedList(codec=codec)
    with pytest.raises(error):
        chunked.append(item)
    with pytest.raises(error):
        chunked.extend([item])
    assert len(chunked) == 0


def test_rows_cannot_be_changed_from_outside():
    rows = ChunkedList(codec="json", chunk_items=2)
    row = {"a": [1]}
    for _ in range(3):
        rows.append(row)
    row["a"].append(2)
    for index in range(3):
        rows[index]["a"].append(3)
    next(iter(rows))["a"].append(4)
    assert rows[:] == [{"a": [1]}] * 3


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_rows_of_a_kind_take_little(compression):
    rows = ChunkedList(
        ({"id": number, "state": "delivered", "city": "Oslo"} for number in range(4_096)),
        codec="json", compression=compression,
    )  # fmt: skip
    assert 0 < rows.size_bytes < 10 * 4_096
    assert rows[4_095]["id"] == 4_095


def test_the_oldest_leave_at_the_bound_and_memory_goes_by_chunks():
    chunked = ChunkedList(codec="q", chunk_items=10, items_max=25)
    for number in range(100):
        chunked.append(number)
        assert len(chunked) <= 25
    assert list(chunked) == list(range(75, 100))
    assert chunked.dropped == 75
    assert chunked.size_bytes == 8 * 30
    chunked.extend(range(1_000, 3_000))
    assert list(chunked) == list(range(2_975, 3_000))
    chunked.clear()
    assert (len(chunked), chunked.size_bytes) == (0, 0)
    chunked.append(7)
    assert list(chunked) == [7]


def test_what_is_appended_meanwhile_is_read_too_and_what_is_dropped_is_not():
    chunked = ChunkedList(range(10), chunk_items=4)
    seen = []
    for item in chunked:
        seen.append(item)
        if item == 1:
            chunked.drop_front(9)
        if item == 9:
            chunked.append(10)
    assert seen == [0, 1, 2, 3, 9, 10]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"codec": "u"}, id="a typecode of texts"),
        pytest.param({"codec": ""}, id="no codec"),
        pytest.param({"chunk_items": 0}, id="no chunk"),
        pytest.param({"items_max": 0}, id="no items"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"codec|max"):
        ChunkedList(**arguments)


@CODECS
def test_threads_that_append_lose_nothing_and_readers_see_each_writers_order(codec):
    chunked = ChunkedList(codec=codec, chunk_items=7)
    done = Event()

    def work(number):
        if number == 0:
            while not done.is_set():
                in_order(list(chunked))
                in_order(chunked[:])
            return
        for at in range(600):
            chunked.append(number * 1_000 + at)
        chunked.extend(number * 1_000 + at for at in range(600, 900))
        finished.append(number)
        if len(finished) == 3:
            done.set()

    def in_order(items):
        for number in (1, 2, 3):
            mine = [item for item in items if item // 1_000 == number]
            assert mine == [number * 1_000 + at for at in range(len(mine))]

    finished = []
    together(4, work)
    assert sorted(chunked) == [n * 1_000 + at for n in (1, 2, 3) for at in range(900)]


class AgainstAList(RuleBasedStateMachine):
    """A chunked list of rows does as a list."""

    rows = st.dictionaries(st.sampled_from("ab"), st.integers(0, 9))

    def __init__(self):
        super().__init__()
        self.chunked, self.model = ChunkedList(codec="json", chunk_items=3, items_max=12), []

    @rule(row=rows)
    def append(self, row):
        self.chunked.append(row)
        self.model = [*self.model, row][-12:]

    @rule(some=st.lists(rows, max_size=30))
    def extend(self, some):
        self.chunked.extend(some)
        self.model = [*self.model, *some][-12:]

    @rule(count=st.integers(0, 9))
    def drop(self, count):
        assert self.chunked.drop_front(count) == min(count, len(self.model))
        del self.model[:count]

    @invariant()
    def is_as_the_model(self):
        assert self.chunked[:] == list(self.chunked) == self.model
        assert len(self.chunked) == len(self.model)
        assert self.chunked.size_bytes == sum(map(len, self.chunked._chunks))
        assert len(self.chunked._chunks) <= 5


AgainstAList.TestCase.settings = settings(max_examples=50, stateful_step_count=20)
test_any_sequence_of_calls_does_as_a_list = AgainstAList.TestCase


@pytest.mark.parametrize("length", [3, 3_000])
def test_it_can_be_extended_by_itself(length):
    chunked = ChunkedList(range(length), codec="q", items_max=4 * length)
    chunked.extend(chunked)
    assert list(chunked) == [*range(length)] * 2


@CODECS
def test_nothing_is_kept_when_nothing_is_left(codec):
    chunked = ChunkedList(range(10), codec=codec, chunk_items=4)
    begun = iter(chunked)
    next(begun)
    chunked.clear()
    assert (len(chunked), chunked.size_bytes, len(chunked._tail)) == (0, 0, 0)
    chunked.extend(range(20, 30))
    assert (list(chunked), chunked[0], chunked[-1]) == ([*range(20, 30)], 20, 29)
    assert list(begun) == [1, 2, 3, *range(20, 30)]


def test_a_finalizer_may_append_in_the_middle_of_a_step():
    """It may come wherever a step makes an object, such as a slice of what is to be appended."""
    chunked = ChunkedList(codec="plain", chunk_items=3)

    class Kept(list):
        def __getitem__(self, index):
            piece = super().__getitem__(index)
            chunked.append("late")
            return piece

    chunked._kind.encoded = Kept
    chunked.extend(range(5))
    del chunked._kind.encoded
    chunked.extend(range(5, 9))
    items = list(chunked)
    assert [item for item in items if item != "late"] == [*range(9)]
    assert [chunked[index] for index in range(len(items))] == items
    assert {len(chunk) for chunk in chunked._chunks} == {3}


def test_a_row_with_line_breaks_is_one_row():
    chunked = ChunkedList(codec="json", chunk_items=2)
    chunked.extend([orjson.Fragment(b'{\n"a": 1\n}'), 2, 3])
    assert list(chunked) == [{"a": 1}, 2, 3]
    with pytest.raises(ValueError, match="unexpected end"):
        chunked.append(orjson.Fragment(b"{\n"))

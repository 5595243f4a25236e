"""The compressed JSON store: what goes in comes out, and its bytes add up."""

import gc
import pickle
import sys
from threading import Event

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from perf_middleware.memory_watch.structures.drivers.compressors import (
    compressor,
    learned_dictionary,
)
from perf_middleware.memory_watch.structures.stores import documents
from perf_middleware.memory_watch.structures.stores.documents import (
    CompressedJSONStore,
    StoreFullError,
)
from tests.memory_watch.structures.threads import together

CODECS = pytest.mark.parametrize("codec", ["zlib", "zstd"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=12,
)  # fmt: skip


def order(number):
    return {
        "id": number, "customer": f"customer-{number * 7919 % 1000}", "state": "delivered",
        "lines": [{"article": number % 17, "quantity": number % 5, "price_cents": number * 31}],
        "address": {"street": f"{number % 90} Main Street", "city": "Oslo", "country": "Norway"},
    }  # fmt: skip


TRAINED = learned_dictionary("zstd", [orjson.dumps(order(number)) for number in range(500)])


@CODECS
@given(value=JSON)
def test_json_comes_out_as_it_went_in(codec, value):
    store = CompressedJSONStore(codec=codec)
    store["a"] = value
    assert store["a"] == value
    assert store.get_text("a") == orjson.dumps(value)


@given(text=st.binary(), known=st.binary(max_size=200))
def test_any_bytes_come_back_with_any_dictionary(text, known):
    engine = compressor("zlib", dictionary=known)
    assert engine.decode(engine.encode(text)) == text


@given(text=st.binary())
def test_any_bytes_come_back_with_a_trained_dictionary(text):
    engine = compressor("zstd", dictionary=TRAINED)
    assert engine.decode(engine.encode(text)) == text


def test_a_dictionary_of_another_codec_is_refused_where_it_has_a_form():
    with pytest.raises(ValueError, match="dictionary"):
        CompressedJSONStore(codec="zstd", dictionary=b"some text of mine")


@CODECS
def test_nobody_changes_what_is_kept(codec):
    store = CompressedJSONStore(codec=codec)
    value = order(1)
    store["a"] = value
    value["lines"].clear()
    store["a"]["lines"].clear()
    assert store["a"] == order(1)


def test_what_is_short_is_kept_as_it_is():
    store = CompressedJSONStore()
    store["a"] = 1
    assert store.size_bytes == sys.getsizeof(b"\x001")
    assert store.ratio == 0.5


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(2**70, id="more than 64 bits"),
        pytest.param({1: 2}, id="keys that are no text"),
        pytest.param(object(), id="an object"),
    ],
)
def test_what_is_no_json_is_refused_at_the_put(value):
    store = CompressedJSONStore()
    with pytest.raises(TypeError):
        store["a"] = value
    with pytest.raises(TypeError):
        store[5] = 1
    assert (len(store), store.size_bytes) == (0, 0)


@CODECS
def test_a_learned_dictionary_makes_alike_documents_small(codec):
    store = CompressedJSONStore(codec=codec)
    for number in range(1_000):
        store[str(number)] = order(number)
    before = store.size_bytes
    learned = store.learn()
    assert learned.before_bytes == before
    assert learned.after_bytes == store.size_bytes == sizes_of(store)
    assert store.size_bytes < 0.7 * before
    assert store.ratio > 3
    assert all(store[str(number)] == order(number) for number in range(1_000))
    assert len(store._compressors) == 1
    # What was learned serves the next store as well.
    other = CompressedJSONStore(codec=codec, dictionary=store.dictionary)
    other["5"] = order(5)
    assert other.size_bytes < 150


def sizes_of(store):
    return sum(sys.getsizeof(frame) for frame in store._frames.values())


@CODECS
def test_too_few_documents_teach_nothing(codec):
    store = CompressedJSONStore(codec=codec)
    learned = store.learn()
    assert (learned.documents, learned.dictionary_bytes) == (0, 0)
    store["a"] = order(1)
    assert store["a"] == order(1)


def test_it_learns_more_often_than_there_are_marks():
    store = CompressedJSONStore()
    for number in range(3):
        store[str(number)] = order(number)
    for _ in range(300):
        store.learn()
    assert store["1"] == order(1)
    assert len(store._compressors) == 1


def test_what_is_put_while_it_learns_is_readable():
    store = CompressedJSONStore()
    for number in range(400):
        store[str(number)] = order(number)
    learned = Event()

    def work(number):
        if number == 0:
            store.learn()
            store.learn()
            learned.set()
            return
        at = 0
        while not learned.is_set():
            key = str((at * 3 + number) % 500)
            store[key] = order(int(key))
            assert store.get(str(at % 400)) in (None, order(at % 400))
            if at % 7 == 0:
                store.pop(key)
            at += 1

    together(3, work)
    assert store.size_bytes == sizes_of(store)
    assert all(value == order(int(key)) for key, value in store.items())
    assert len(store._compressors) == 1


def test_a_document_that_is_encoded_while_a_dictionary_is_learned_is_encoded_again():
    store = CompressedJSONStore()
    for number in range(50):
        store[str(number)] = order(number)
    engine = store._compressors[1]

    class LearnsMeanwhile:
        def encode(self, text):
            store._compressors[1] = engine
            frame = engine.encode(text)
            store.learn()
            return frame

    store._compressors[1] = LearnsMeanwhile()
    store["late"] = order(5)
    assert store["late"] == order(5)
    assert set(store._compressors) == {2}


def test_one_thread_learns_at_a_time(monkeypatch):
    store, told = CompressedJSONStore(), []

    def learn_within(codec, samples):
        try:
            store.learn()
        except RuntimeError:
            told.append(1)
        return b""

    monkeypatch.setattr(documents, "learned_dictionary", learn_within)
    store.learn()
    assert told == [1]


def test_a_full_store_refuses_and_stays_as_it_was():
    store = CompressedJSONStore(bytes_max=400)
    store["a"] = "x" * 50
    before = store.size_bytes
    with pytest.raises(StoreFullError) as told:
        store["b"] = [f"{number * 7919 % 1009}" for number in range(200)]
    assert (store.keys(), store.size_bytes) == (["a"], before)
    assert "'b' takes" in str(told.value)
    assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)
    with pytest.raises(StoreFullError):
        store["a"] = [f"{number * 7919 % 1009}" for number in range(200)]
    assert store["a"] == "x" * 50
    assert store.shrink(1) == 0


def test_a_store_that_drops_lets_go_of_the_oldest():
    store = CompressedJSONStore(bytes_max=3 * sys.getsizeof(b"\x001"), when_full="drop_oldest")
    for key in "abc":
        store[key] = 1
    store["a"] = 2  # the youngest now
    store["d"] = 1
    assert store.keys() == ["c", "a", "d"]
    assert store.evictions == 1
    assert store.shrink(0.5) == 2 * sys.getsizeof(b"\x001")
    assert store.keys() == ["d"]
    with pytest.raises(StoreFullError):
        store["e"] = list(range(1000))
    assert store.keys() == ["d"]


def test_samples_come_from_all_over_the_store():
    store = CompressedJSONStore()
    for number in range(100):
        store[str(number)] = number
    assert store._samples(10) == [b"%d" % number for number in range(0, 100, 10)]
    assert len(store._samples(1_000)) == 100


def test_a_deflate_dictionary_has_whole_documents_within_the_window():
    samples = [b"x" * 10_000, b"y" * 10_000, b"z" * 20_000, b"w" * 10_000]
    assert learned_dictionary("zlib", samples) == samples[3] + samples[1] + samples[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param({"codec": "gzip"}, "a codec is one of zlib, zstd", id="codec"),
        pytest.param({"level": 0}, "from 1 to 9", id="level"),
        pytest.param({"codec": "zstd", "level": 20}, "from 1 to 19", id="level of zstd"),
        pytest.param({"bytes_max": 0}, "bytes_max", id="no room"),
        pytest.param({"when_full": "explode"}, "refuse or drop_oldest", id="answer"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        CompressedJSONStore(**arguments)


def test_a_finalizer_may_use_the_store():
    store = CompressedJSONStore()

    class Comes:
        def __init__(self):
            self.me = self

        def __del__(self):
            store["back"] = 1

    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for number in range(200):
            Comes()
            store[str(number % 7)] = number
            store.keys()
    finally:
        gc.set_threshold(*before)
    assert store.size_bytes == sizes_of(store)


class AgainstADict(RuleBasedStateMachine):
    """A store does as a dict of JSON, whenever it learns."""

    keys = st.sampled_from(["a", "b", "c", "d", "e"])

    def __init__(self):
        super().__init__()
        self.store, self.model = CompressedJSONStore(), {}

    @rule(key=keys, value=JSON)
    def put(self, key, value):
        self.store[key] = self.model[key] = value

    @rule(key=keys)
    def pop(self, key):
        assert self.store.pop(key, "none") == self.model.pop(key, "none")

    @rule(key=keys)
    def delete(self, key):
        if key in self.model:
            del self.store[key], self.model[key]
        else:
            with pytest.raises(KeyError):
                del self.store[key]
            with pytest.raises(KeyError):
                self.store[key]

    @rule()
    def learn(self):
        self.store.learn()

    @rule()
    def clear(self):
        self.store.clear()
        self.model.clear()

    @invariant()
    def is_as_the_model(self):
        assert dict(self.store.items()) == self.model
        assert set(self.store) == set(self.model)
        assert self.store.size_bytes == sizes_of(self.store)


AgainstADict.TestCase.settings = settings(max_examples=40, stateful_step_count=15)
test_any_sequence_of_calls_does_as_a_dict = AgainstADict.TestCase


def test_it_stays_in_its_bounds_where_a_dictionary_fits_worse_than_the_one_before():
    def row(number, kind):
        return {"kind": kind * 20, "number": number, "of": f"{kind} and nothing else " * 5}

    store = CompressedJSONStore(when_full="drop_oldest", bytes_max=18_000)
    for number in range(100):
        store[f"old:{number}"] = row(number, "old")
    store.learn()
    while not store.evictions:
        number = len(store)
        store[f"old:{number}"] = row(number, "old")
    for number in range(10):  # these alone are looked at
        store[f"new:{number}"] = row(number, "new")
    store._samples = lambda samples_max: [store.get_text(f"new:{number}") for number in range(10)]
    store.learn()
    assert len(store) > 50
    assert store.size_bytes <= store.bytes_max
    assert store["new:5"] == row(5, "new")


def test_a_finalizer_may_put_the_same_key_in_the_middle_of_a_put(monkeypatch):
    kept = CompressedJSONStore()
    remove, due = kept._remove_locked, [True]

    def removed(key):
        found = remove(key)
        if due:  # a collection of garbage begins
            due.clear()
            kept["a"] = "late"
        return found

    monkeypatch.setattr(kept, "_remove_locked", removed)
    kept["a"] = "xy"
    assert kept["a"] == "xy"
    del kept["a"]
    assert kept.size_bytes == 0

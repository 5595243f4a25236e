"""Arguments as text: equal arguments give one text in every process, different ones differ."""

import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel

from perf_middleware.caching.values.keys import (
    DEPTH_MAX,
    KEY_CHARS_MAX,
    NODES_MAX,
    Texts,
    Unkeyable,
    shortened,
)


class Color(Enum):
    RED = 1
    BLUE = "red"


class Permission(Flag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


@dataclass
class Filter:
    owner: int
    tags: list
    seen: int = field(default=0, compare=False)


@dataclass
class Other:
    owner: int
    tags: list


class Model(BaseModel):
    owner: int
    tags: list


class Open(BaseModel, extra="allow"):
    owner: int


class Private(BaseModel):
    owner: int
    _tenant: str = "a"

    def of(self, tenant):
        self._tenant = tenant
        return self


class Point(NamedTuple):
    x: int
    y: int


class Named:
    def __init__(self, number):
        self.number = number

    def __cache_key__(self):
        return self.number


def text(value):
    return Texts().of(value)


SUMMER = datetime(2026, 7, 1, 12, tzinfo=UTC)
DISTINCT = [
    None, True, False, 0, 1, -1, 2**80, 10**5000, 1.0, 0.0, -0.0, float("nan"), float("inf"), 1e300,
    "", "1", "True", "None", "-", "1.0", "b'1'", "a,b", "a", "b", "'", '"', "\\", "\n", "\ud800",
    b"", b"1", b"'", bytearray(b"1"), memoryview(b"1"), 1j, Decimal(1), Decimal("1.0"),
    Decimal("NaN"), Fraction(1), UUID(int=1), UUID(int=2), Color.RED, Color.BLUE, Permission.READ,
    Permission.READ | Permission.WRITE, Text("1"), PurePosixPath("1"), range(1), int, str, Color,
    SUMMER, SUMMER.replace(tzinfo=None), SUMMER.replace(tzinfo=timezone(timedelta(hours=2))),
    SUMMER.replace(tzinfo=ZoneInfo("Europe/Berlin")),
    SUMMER.replace(tzinfo=ZoneInfo("Africa/Cairo")),
    SUMMER.replace(tzinfo=None, fold=1), SUMMER.date(), date(2026, 7, 2), time(12),
    time(12, tzinfo=UTC),
    timedelta(1), timedelta(0, 1), timedelta(0, 0, 1),
    [], (), {}, set(), frozenset(), [[]], [()], [1], (1,), {1}, frozenset({1}), {1: 1}, {"1": 1},
    {1: "1"}, ["a,b"], ["a", "b"], ["a'", "b"], [["a"], "b"], [["a", "b"]], [1, 2], [2, 1],
    [None], [True],
    deque([1]), OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), Counter("a"), defaultdict(int, a=1),
    MappingProxyType({"a": 1}), {"a": 1}, {"a": {"b": 1}}, {"a": 1, "b": 1}, Point(1, 2), (1, 2),
    Filter(1, []), Filter(1, ["a"]), Other(1, []), Model(owner=1, tags=[]), Model(owner=2, tags=[]),
    Open(owner=1), Open(owner=1, more=2), Private(owner=1), Private(owner=1).of("b"),
    RootModel[int](1), Named(1), Named("1"),
]  # fmt: skip


def test_values_that_differ_have_texts_that_differ():
    texts = [text(value) for value in DISTINCT]
    assert len(set(texts)) == len(texts)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.decimals(allow_nan=False) | st.uuids() | st.datetimes() | st.dates() | st.timedeltas()
    | st.sampled_from(Color)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
        | st.frozensets(SCALARS, max_size=4)
        | st.builds(Filter, owner=st.integers(), tags=st.lists(inner, max_size=2))
    ),
    max_leaves=8,
)


def kinds(value):
    """`value` with the types of everything in it, so that 1, 1.0 and True are not equal."""
    name = type(value).__name__
    if isinstance(value, dict):
        pairs = value.items()
        return name, frozenset(
            (hashable(kinds(key)), hashable(kinds(inner))) for key, inner in pairs
        )
    if isinstance(value, frozenset):
        return name, frozenset(kinds(inner) for inner in value)
    if isinstance(value, list | tuple):
        return name, *(kinds(inner) for inner in value)
    if isinstance(value, Filter):
        return name, value.owner, kinds(value.tags)
    return name, repr(value)


def hashable(value):
    return frozenset(map(hashable, value)) if isinstance(value, set | frozenset) else (
        tuple(map(hashable, value)) if isinstance(value, list | tuple) else value
    )  # fmt: skip


@given(VALUES, VALUES)
def test_two_values_share_a_text_only_where_they_are_the_same(one, other):
    same = hashable(kinds(one)) == hashable(kinds(other))
    assert (text(one) == text(other)) is same


@given(st.lists(VALUES, max_size=3), st.lists(VALUES, max_size=3))
def test_texts_in_a_row_stay_apart(some, others):
    joined = ",".join(map(text, some)) == ",".join(map(text, others))
    assert joined is (hashable(kinds(some)) == hashable(kinds(others)))


@given(st.dictionaries(st.text(max_size=3) | st.integers(), SCALARS, max_size=5), st.randoms())
def test_the_order_in_which_a_dict_was_filled_does_not_count(values, random):
    shuffled = list(values.items())
    random.shuffle(shuffled)
    assert text(dict(shuffled)) == text(values)


READABLE = [
    (5, "5"),
    (True, "True"),
    ("ann", "'ann'"),
    (b"x", "b'x'"),
    (1.5, "1.5"),
    ([1, "a"], "[1,'a']"),
    ({"b": 1, "a": (2,)}, "{'a':(2),'b':1}"),
    ({"b", "a"}, "set{'a','b'}"),
    (UUID(int=1), "UUID('00000000-0000-0000-0000-000000000001')"),
    (Decimal("1.10"), "Decimal('1.10')"),
    (SUMMER, "datetime.datetime(2026-07-01T12:00:00+00:00 utc)"),
]


@pytest.mark.parametrize(("value", "expected"), READABLE, ids=[row[1] for row in READABLE])
def test_a_text_is_readable(value, expected):
    assert text(value) == expected


def test_an_enum_and_a_dataclass_are_named_by_their_class():
    assert text(Color.RED).endswith("test_value_keys.Color.RED")
    assert text(Filter(5, ["a"])).endswith("test_value_keys.Filter(owner=5,tags=['a'])")
    assert text(Model(owner=5, tags=[])).endswith("test_value_keys.Model(owner=5,tags=[])")


def test_what_a_dataclass_does_not_compare_by_does_not_count():
    assert text(Filter(1, [], seen=7)) == text(Filter(1, []))


CHILD = """
from perf_middleware.caching.values.keys import Texts
from decimal import Decimal
print(Texts().of([{"b", "a", "c", "d"}, {"x": {1, 2}, "a": frozenset("xyz")}, Decimal("1.0")]))
"""


def test_the_text_is_the_same_in_every_process():
    texts = {
        subprocess.run(
            [sys.executable, "-c", CHILD],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(texts) == 1


class Session:
    """A service object."""


class QueryParams(dict):
    """May hold more than its items."""


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def cyclic():
    value = []
    value.append(value)
    return value


REFUSED = [
    pytest.param(Session(), "", "cannot be part of a key", id="a service object"),
    pytest.param({"a": [1, Session()]}, "['a'][1]", "cannot be part", id="one inside a container"),
    pytest.param(Filter(1, [Session()]), ".tags[0]", "cannot be part", id="one in a dataclass"),
    pytest.param({Session(): 1}, " key", "cannot be part", id="one as a key"),
    pytest.param(lambda: 1, "", "cannot be part", id="a function"),
    pytest.param(iter([1]), "", "cannot be part", id="an iterator, which may be read once"),
    pytest.param(QueryParams(a=1), "", "cannot be part", id="a subclass of dict"),
    pytest.param(cyclic(), None, f"more than {DEPTH_MAX} deep", id="a cycle"),
    pytest.param(nested(DEPTH_MAX + 2), None, f"more than {DEPTH_MAX} deep", id="nested too deep"),
    pytest.param([0] * (NODES_MAX + 1), None, f"more than {NODES_MAX} values", id="too many"),
    pytest.param(Fraction(10**5000), "", "too long a number", id="a fraction of long numbers"),
]


@pytest.mark.parametrize(("value", "path", "why"), REFUSED)
def test_what_cannot_be_told_apart_is_refused_with_the_way_to_it(value, path, why):
    with pytest.raises(Unkeyable) as caught:
        text(value)
    assert why in caught.value.why
    assert path is None or caught.value.path == path


def test_a_rule_names_objects_of_a_class_and_of_those_below_it():
    class Tenant:
        def __init__(self, number):
            self.number = number

    class Guest(Tenant):
        pass

    texts = Texts()
    texts.rules[Tenant] = lambda tenant: tenant.number
    assert texts.of(Tenant(5)).endswith("Tenant<5>")
    assert texts.of(Guest(5)).endswith("Guest<5>")
    texts.rules[Session] = None
    assert texts.of([Session(), 1]) == "[-,1]"


def test_a_class_names_its_own_objects():
    assert text(Named(5)).endswith("Named<5>")


@given(st.text(max_size=KEY_CHARS_MAX * 2), st.text(max_size=KEY_CHARS_MAX * 2))
def test_long_keys_are_cut_and_stay_apart(one, other):
    assert (shortened(one) == shortened(other)) is (one == other)
    assert len(shortened(one)) <= KEY_CHARS_MAX + 1


def test_no_short_key_is_that_of_a_long_one():
    cut = shortened("users:" + "x" * 1000)
    assert cut.startswith("users:xxx")
    assert shortened(cut) != cut

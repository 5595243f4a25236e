"""Values as bytes and back: what was put in comes out, with its types, or nothing does."""

import zlib
from collections import OrderedDict, deque
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from fractions import Fraction
from functools import cached_property
from types import SimpleNamespace
from typing import Annotated, Any, Generic, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, PrivateAttr, RootModel

from perf_middleware.caching.values import packing
from perf_middleware.caching.values.classes import Classes, _of_dataclass
from perf_middleware.caching.values.packing import MISS, Packer
from perf_middleware.errors import UnpackableValueError

SIGNING_KEY = b"sixteen bytes ok"


class Color(Enum):
    RED = 1
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Permission(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Any


@dataclass
class Leaf:
    color: Color
    price: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Branch:
    leaves: list[Leaf]
    made: datetime | None = None
    count: int = field(default=0, init=False)


class Address(BaseModel):
    street: str
    leaf: Leaf | None = None


class User(BaseModel, extra="allow"):
    id: UUID
    address: dict[str, Address] = {}
    born: Annotated[date | None, AfterValidator(lambda born: born)] = None
    _seen: int = PrivateAttr(default=0)

    @cached_property
    def name(self):
        return object()  # cannot be packed, and need not


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    items: list[T]


class Unknown:
    pass


async def returned() -> dict[str, list[User | Branch | Point]] | Permission | Level | None: ...
def page() -> Page[User] | RootModel[list[int]]: ...


def packer(**options):
    classes = Classes()
    classes.learn(returned)
    classes.learn(page)
    return Packer(classes, **options)


def back(value, packer=None, key="k"):
    packer = packer or PACKER
    return packer.unpack(packer.pack(value, key=key), key=key)


PACKER = packer()
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 7, 1, 12, 0, 0, 123, UTC).replace(tzinfo=None)
USER = User(id=UUID(int=5), address={"home": Address(street="x", leaf=Leaf(Color.RED))}, more=1)
VALUES = [
    None, True, False, 0, -1, 2**63, 2**64, -(2**70), 2**4000, 1.5, float("inf"), -0.0, "", "é",
    "\ud800", b"", b"\x00\xff", bytearray(b"a"), 1j, Decimal("1.10"), Decimal("-Infinity"),
    Fraction(1, 3), UUID(int=7), NOON, NOON.replace(tzinfo=UTC), NOON.replace(tzinfo=BERLIN,
    fold=1), NOON.replace(fold=1), NOON.replace(tzinfo=timezone(timedelta(hours=-5,
    minutes=-30))), NOON.replace(tzinfo=timezone(timedelta(hours=2), "a|b,c")), NOON.date(),
    time(1, 2, 3, 4, tzinfo=UTC), timedelta(-1, 5, 7), UTC, timezone(timedelta(1) / 2, "half"),
    BERLIN, [], (), {}, set(), frozenset(), [1, [2, (3, {4})]], {"a": {"b": (1,)}}, {1: 2, (1, 2):
    [3], None: 4, False: 5, 2.5: 6, "x": 7}, {"\ud800": "\ud800"}, {"é": 2**70}, {b"k":
    frozenset({frozenset({1})})}, OrderedDict([("b", 1), (2, 2)]), deque([1, (2,)], maxlen=5),
    deque(), Color.RED, Color.BLUE, Level.LOW, Permission.READ | Permission.WRITE, Point(1, (2,)),
    Leaf(Color.BLUE, Decimal(3)), Branch([Leaf(Color.RED)], NOON.replace(tzinfo=UTC)), USER,
    Address(street=""), [USER, USER], {"u": USER}, Page[User](items=[USER]),
    RootModel[list[int]]([1]), "x" * 10_000, list(range(5000)),
]  # fmt: skip


def same(one, other):
    if type(one) is not type(other) or repr(one) != repr(other):
        return False
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, datetime | time):
        return (one.tzinfo, one.fold) == (other.tzinfo, other.fold)
    return one == other


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}"[:40])
def test_a_value_comes_back_as_what_it_was(value):
    assert same(back(value), value)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary()
    | st.text(st.characters(codec=None)) | st.decimals(allow_nan=False) | st.uuids() | st.dates()
    | st.datetimes(timezones=st.none() | st.timezones()) | st.times() | st.timedeltas()
    | st.fractions() | st.complex_numbers(allow_nan=False) | st.sampled_from(Color)
)  # fmt: skip
ANY_VALUE = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(SCALARS, inner, max_size=4)
        | st.frozensets(SCALARS, max_size=4)
        | st.builds(Leaf, color=st.sampled_from(Color), price=inner)
        | st.builds(Address.model_construct, street=inner, leaf=inner)
    ),
    max_leaves=12,
)


@given(ANY_VALUE, st.booleans())
def test_any_value_comes_back(value, compressed):
    own = packer(compress_bytes_min=0 if compressed else None)
    assert back(value, own) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_miss(stored):
    for head in (b"", b"\x01\x00", b"\x01\x01", b"\x01\x02", b"\x01\x03"):
        PACKER.unpack(head + stored, key="k")
        packer(pickle_key=SIGNING_KEY).unpack(head + stored, key="k")


@given(st.sampled_from(VALUES), st.data())
def test_a_damaged_value_is_a_value_or_a_miss(value, data):
    stored = bytearray(PACKER.pack(value, key="k"))
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= data.draw(st.integers(1, 255))
    PACKER.unpack(bytes(stored), key="k")
    PACKER.unpack(bytes(stored[:at]), key="k")


def extension(number, state):
    return b"\xc9" + len(state).to_bytes(4) + bytes([number]) + state


def deep(levels, lists):
    body = b"\xc0"
    for _ in range(levels):
        body = extension(2, b"\x91" * lists + body)
    return b"\x01\x00" + body


BAD = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\x01", id="a version alone"),
    pytest.param(b"\x00\x00\xc0", id="an older version"),
    pytest.param(b"\x02\x00\xc0", id="a newer version"),
    pytest.param(b"\x01\x04\xc0", id="an unknown flag"),
    pytest.param(b"\x01\x01\xc0", id="not compressed"),
    pytest.param(b"\x01\x01" + zlib.compress(b"\xc0")[:-1], id="cut off"),
    pytest.param(b"\x01\x01" + zlib.compress(b"\xc0") + b"x", id="something after"),
    pytest.param(b"\x01\x00" + extension(99, b""), id="an unknown type"),
    pytest.param(b"\x01\x00" + extension(2, b"\xc0"), id="a tuple of nothing"),
    pytest.param(b"\x01\x00" + extension(5, b"\x91\x01"), id="a dict of one half"),
    pytest.param(b"\x01\x00" + extension(3, b"\x91\x90"), id="a set of a list"),
    pytest.param(b"\x01\x00" + extension(20, b"../../etc/passwd"), id="a path for a time zone"),
    pytest.param(b"\x01\x00\xdd\xff\xff\xff\xff", id="a list of four thousand million"),
    pytest.param(deep(1, 2000), id="lists too deep"),
    pytest.param(deep(200, 1), id="tuples too deep"),
    pytest.param(deep(100, 1000), id="lists in tuples, that would overflow the stack"),
    pytest.param(None, id="no bytes"),
]


@pytest.mark.parametrize("stored", BAD)
def test_bytes_that_are_no_value_are_a_miss(stored):
    assert PACKER.unpack(stored, key="k") is MISS


def test_what_would_inflate_without_end_is_a_miss(monkeypatch):
    monkeypatch.setattr(packing, "UNPACKED_BYTES_MAX", 1000)
    bomb = b"\x01\x01" + zlib.compress(ormsgpack.packb("x" * 1001))
    assert PACKER.unpack(bomb, key="k") is MISS
    fits = b"\x01\x01" + zlib.compress(ormsgpack.packb("x" * 900))
    assert PACKER.unpack(fits, key="k") == "x" * 900


def named(name, state):
    return b"\x01\x00" + extension(1, ormsgpack.packb([name, state]))


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "subprocess.Popen", f"{__name__}.Unknown", "", None, 5]
)
def test_a_class_that_is_not_registered_is_a_miss_and_is_not_imported(name):
    assert PACKER.unpack(named(name, ["echo"]), key="k") is MISS


def test_a_class_that_has_other_fields_now_is_a_miss():
    def with_field(annotation):
        @dataclass
        class Row:
            value: annotation

        Row.__qualname__ = "Row"
        classes = Classes()
        classes.register(Row)
        return Row, Packer(classes)

    row, before = with_field(int)
    _, after = with_field(str)
    stored = before.pack(row(5), key="k")
    assert before.unpack(stored, key="k") == row(5)
    assert after.unpack(stored, key="k") is MISS


def test_an_object_comes_back_without_its_init_and_validators():
    branch = Branch([Leaf(Color.RED)])
    object.__setattr__(branch, "count", 7)
    assert back(branch).count == 7
    user = User(id=UUID(int=1))
    user._seen = 3
    _ = user.name
    again = back(user)
    assert again._seen == 3
    assert again.model_fields_set == {"id"}
    assert again.name is not user.name


@dataclass
class Indexed:
    words: list[str]

    def __post_init__(self):
        self.index = {word: at for at, word in enumerate(self.words)}

    @cached_property
    def pattern(self):
        return object()  # cannot be packed, and need not


@dataclass
class Tagged(list):
    name: str


@dataclass
class Failure(Exception):  # noqa: N818 - a value that a function returns
    why: str


class Named(Point):
    pass


@pytest.mark.parametrize("beside", [5, [1], {"a": 1}])
def test_what_such_a_state_cannot_be_is_refused(beside):
    allowed = _of_dataclass(Branch, "Branch")
    state = allowed.take(Branch([], None))
    assert allowed.make(state) == Branch([], None)
    with pytest.raises(ValueError, match="other attributes"):
        allowed.make([*state, beside])


def test_what_a_dataclass_holds_beside_its_fields_comes_back_too():
    own = packer()
    own._classes.register(Indexed)
    value = Indexed(["a", "b"])
    assert own.unpack(own.pack(value, key="k"), key="k").index == {"a": 0, "b": 1}
    _ = value.pattern
    again = own.unpack(own.pack([value], key="k"), key="k")[0]
    assert again == value
    assert again.index == value.index
    assert again.pattern is not value.pattern


@pytest.mark.parametrize("value", [Tagged("a"), Failure("no"), Named(1, 2)], ids=repr)
def test_what_its_fields_do_not_tell_is_refused(value):
    own = packer()
    own._classes.register(type(value))
    if isinstance(value, Named):
        value.more = 3
    with pytest.raises(UnpackableValueError, match="fields"):
        own.pack(value, key="k")


class OwnZone(tzinfo):
    def utcoffset(self, moment):
        return timedelta(0)

    def tzname(self, moment):
        return "own"


class Text(str):
    __slots__ = ()


def cyclic():
    value = []
    value.append(value)
    return value


def doubled():
    value = []
    for _ in range(50):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(Unknown(), "register() it", id="an object"),
        pytest.param([{"a": Unknown()}], "register() it", id="one inside containers"),
        pytest.param(SimpleNamespace(a=1), "register() it", id="a namespace"),
        pytest.param(Text("a"), "register() it", id="a subclass of str"),
        pytest.param(lambda: 1, "register() it", id="a function"),
        pytest.param(ormsgpack.Ext(2, b""), "register() it", id="an extension"),
        pytest.param(memoryview(b"a"), "register() it", id="a view"),
        pytest.param(NOON.replace(tzinfo=OwnZone()), "cannot be named", id="a zone of one's own"),
        pytest.param(cyclic(), "64 deep", id="a cycle"),
        pytest.param(doubled(), "values", id="what grows with each level"),
    ],
)
def test_what_would_not_come_back_is_refused(value, said, monkeypatch):
    monkeypatch.setattr(packing, "NODES_MAX", 10_000)
    with pytest.raises(UnpackableValueError, match="cannot be stored") as caught:
        PACKER.pack(value, key="k")
    assert said in str(caught.value)


def test_large_values_are_compressed():
    large = ["the same"] * 1000
    assert len(PACKER.pack(large, key="k")) < 200
    assert len(packer(compress_bytes_min=None).pack(large, key="k")) > 9000
    assert PACKER.pack("x" * 100, key="k")[1] == 0
    assert packer(compress_bytes_min=None).unpack(PACKER.pack(large, key="k"), key="k") == large


class Picklable:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return self.value == other.value

    __hash__ = None


class Ran:
    """Tells whether a pickle of it was loaded."""

    def __reduce__(self):
        return told_by_pickle, ()


TOLD = []


def told_by_pickle():
    TOLD.append(1)


def test_a_pickle_is_written_only_when_switched_on_and_only_for_what_needs_it():
    own = packer(pickle_key=SIGNING_KEY)
    assert back(Picklable(5), own) == Picklable(5)
    assert back(Picklable("x" * 5000), own) == Picklable("x" * 5000)
    assert own.pack({"a": 1}, key="k") == PACKER.pack({"a": 1}, key="k")
    with pytest.raises(UnpackableValueError, match="no pickle"):
        own.pack(lambda: 1, key="k")


def forged(stored):
    yield "another key of the store", stored, "other", SIGNING_KEY
    yield "another secret", stored, "k", b"another sixteen bytes"
    yield "no secret", stored, "k", None
    for at in (1, 2, 20, 40, len(stored) - 1):
        changed = bytearray(stored)
        changed[at] ^= 1
        yield f"byte {at} changed", bytes(changed), "k", SIGNING_KEY
    yield "no signature", stored[:2] + stored[34:], "k", SIGNING_KEY


def test_a_pickle_that_is_not_signed_for_this_key_is_never_loaded():
    stored = packer(pickle_key=SIGNING_KEY).pack(Ran(), key="k")
    TOLD.clear()
    for why, changed, key, secret in forged(stored):
        assert packer(pickle_key=secret).unpack(changed, key=key) is MISS, why
    assert TOLD == []
    packer(pickle_key=SIGNING_KEY).unpack(stored, key="k")
    assert TOLD == [1]


def test_a_short_secret_is_refused():
    with pytest.raises(ValueError, match="at least 16 bytes"):
        packer(pickle_key=b"short")


def test_an_annotation_leads_to_every_class_below_it():
    assert {"Color", "Leaf", "Branch", "User", "Address", "Point", "Permission", "Level"} <= {
        name.rpartition(".")[2] for name in PACKER._classes._by_name
    }


def test_an_annotation_may_name_what_is_defined_later(monkeypatch):
    def early() -> "list[Later]": ...  # noqa: F821

    classes = Classes()
    classes.learn(early)
    later = make_dataclass("Later", ["a"])
    with pytest.raises(UnpackableValueError):
        Packer(classes).pack([later(1)], key="k")
    monkeypatch.setitem(globals(), "Later", later)
    assert back([later(1)], Packer(classes)) == [later(1)]


def test_an_annotation_that_names_nothing_is_not_read_for_ever():
    def broken() -> "Nowhere": ...  # noqa: F821

    classes = Classes()
    classes.learn(broken)
    for _ in range(200):
        with pytest.raises(UnpackableValueError):
            Packer(classes).pack(Unknown(), key="k")
    assert classes._to_learn == {}


def test_classes_are_registered_by_hand_once_for_each_name():
    classes = Classes()
    classes.register(Leaf, name="leaf")
    own = Packer(classes)
    assert b"leaf" in own.pack(Leaf(Color.RED), key="k")
    assert back(Leaf(Color.RED), own) == Leaf(Color.RED)
    with pytest.raises(ValueError, match="'leaf' is the name of"):
        classes.register(Branch, name="leaf")
    with pytest.raises(TypeError, match="no dataclass, pydantic model, enum or named tuple"):
        classes.register(Unknown)


def test_a_module_that_was_loaded_again_has_the_newer_class():
    def made():
        @dataclass
        class Local:
            a: int

        return Local

    older, newer = made(), made()
    classes = Classes()
    classes.register(older)
    classes.register(newer)
    assert type(back(newer(1), Packer(classes))) is newer
    with pytest.raises(UnpackableValueError):
        Packer(classes).pack(older(1), key="k")

"""From the arguments of a call to its key and tags: bound as Python binds them."""

from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.values.keys import KEY_CHARS_MAX, Texts, shortened
from perf_middleware.caching.values.signatures import Arguments
from perf_middleware.errors import UnkeyableArgumentError


class Kind(Enum):
    BOOK = "book"


class User:
    def __init__(self, number):
        self.id = number


def arguments(function, name="f"):
    return Arguments(function, name=name, texts=Texts())


def key_of(function, exclude=()):
    return arguments(function).key_by_arguments(exclude)


def plain(a, b=2): ...
def mixed(a, /, b, *, c=3): ...
def many(a, *rest, flag=False, **more): ...
def keywords(*, a, b=1): ...
def nothing(): ...


KEYS = [
    (plain, (1,), {}, "f:a=1,b=2"),
    (plain, (), {"b": 1, "a": "x"}, "f:a='x',b=1"),
    (mixed, (1, 2), {}, "f:a=1,b=2,c=3"),
    (mixed, (1,), {"c": None, "b": 2}, "f:a=1,b=2,c=None"),
    (many, (1, 2, 3), {"z": 1, "y": 2}, "f:a=1,rest=(2,3),flag=False,more={'y':2,'z':1}"),
    (many, (1,), {}, "f:a=1,rest=(),flag=False,more={}"),
    (keywords, (), {"a": [1]}, "f:a=[1],b=1"),
    (nothing, (), {}, "f:"),
]


@pytest.mark.parametrize(("function", "args", "kwargs", "key"), KEYS, ids=[row[3] for row in KEYS])
def test_the_key_names_each_argument_and_default(function, args, kwargs, key):
    assert key_of(function)(*args, **kwargs) == key


@given(st.integers(), st.integers())
def test_however_a_call_is_written_it_has_one_key(a, b):
    key = key_of(plain)
    assert len({key(a, b), key(a, b=b), key(b=b, a=a), key(*(a, b))}) == 1


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@given(SCALARS, SCALARS)
def test_the_short_way_writes_what_the_long_way_writes(a, b):
    assert key_of(plain)(a, b) == shortened(f"f:a={Texts().of(a)},b={Texts().of(b)}")


def test_wrong_arguments_are_refused_in_pythons_own_words():
    with pytest.raises(TypeError, match=r"^plain\(\) missing 1 required positional argument: 'a'$"):
        key_of(plain)()
    with pytest.raises(TypeError, match=r"plain\(\) got an unexpected keyword argument 'c'"):
        key_of(plain)(1, c=2)


def test_a_default_is_the_functions_own_object():
    marker = User(1)

    def load(a, session=marker): ...

    assert key_of(load, ["session"])(1) == "f:a=1"
    with pytest.raises(UnkeyableArgumentError, match="argument session"):
        key_of(load)(1)


def test_what_is_excluded_does_not_count():
    assert key_of(plain, ["b"])(1, object()) == "f:a=1"
    assert key_of(many, ["rest", "more"])(1, object(), x=object()) == "f:a=1,flag=False"


def test_a_parameter_may_have_any_name():
    def odd(_our_plain, key, type, len, slow): ...

    assert key_of(odd)(1, 2, 3, 4, 5) == "f:_our_plain=1,key=2,type=3,len=4,slow=5"


def test_a_name_with_braces_is_written_as_it_is():
    key = arguments(plain, name="{f}'\"\\").key_by_arguments([])
    assert key(1) == "{f}'\"\\:a=1,b=2"
    assert key([1]) == "{f}'\"\\:a=[1],b=2"


def test_a_number_of_thousands_of_digits_is_keyed():
    assert len(key_of(plain)(10**5000)) == KEY_CHARS_MAX + 1
    assert key_of(plain)(10**5000) != key_of(plain)(10**5000 + 1)


def test_an_unkeyable_argument_is_told_with_what_to_do():
    with pytest.raises(UnkeyableArgumentError) as caught:
        key_of(plain)(1, {"owner": [User(1)]})
    said = str(caught.value)
    assert said.startswith("f: argument b['owner'][0] (")
    assert "exclude=('b',)" in said
    assert "__cache_key__" in said
    assert isinstance(caught.value, TypeError)
    assert caught.value.__context__ is None


TEMPLATES = [
    ("user:{a}", (5,), "f:user:5"),
    ("{a}/{b}", ("x/y", 1), "f:'x/y'/1"),
    ("{a}", ([1],), "f:[1]"),
    ("all", (5,), "f:all"),
    ("{{{a}}}", (5,), "f:{5}"),
    ("{a.id}", (User(7),), "f:7"),
    ("{a.id}:{a.id}", (User("x"),), "f:'x':'x'"),
]


@pytest.mark.parametrize(("template", "args", "key"), TEMPLATES, ids=[row[0] for row in TEMPLATES])
def test_a_template_says_what_the_key_is_made_of(template, args, key):
    assert arguments(plain).key_by_template(template)(*args) == key


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_no_argument_can_take_the_place_of_another_in_a_template(a, b, c, d):
    key = arguments(plain).key_by_template("{a}:{b}")
    assert (key(a, b) == key(c, d)) is ((a, b) == (c, d))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        pytest.param("{c}", "names 'c', and the parameters are a, b", id="no such parameter"),
        pytest.param("{}", "names '', and", id="no name"),
        pytest.param("{a!r}", "must be a parameter", id="a conversion"),
        pytest.param("{a:>5}", "must be a parameter", id="a format"),
        pytest.param("{a.b[0]}", "must be a parameter", id="an item"),
        pytest.param("{a", "expected '}'", id="not closed"),
        pytest.param("{a}{b}", "needs one of", id="nothing between two"),
        pytest.param("{a}0{b}", "needs one of", id="a digit between two"),
    ],
)
def test_a_wrong_template_is_refused_when_it_is_made(template, said):
    with pytest.raises(ValueError, match="f: key=") as caught:
        arguments(plain).key_by_template(template)
    assert said in str(caught.value)


def test_a_function_makes_the_key_or_none():
    key = arguments(plain).key_by_function(lambda a, b=2: (a, b) if a else None)
    assert key("x") == "f:('x',2)"
    assert key(0) is None
    with pytest.raises(UnkeyableArgumentError, match="argument key"):
        key(User(1), User(2))


def test_an_exclusion_that_names_no_parameter_is_refused():
    with pytest.raises(ValueError, match="no parameter 'session' to exclude: a, b"):
        key_of(plain, ["session"])


def test_tags_are_written_as_str_writes_them():
    tags = arguments(plain).tags(["user:{a}", "all", "{a}-{b}"])
    assert tags("ann", b=Kind.BOOK) == ("user:ann", "all", "ann-book")
    assert arguments(plain).tags(["{a.id}"])(User(7)) == ("7",)
    assert arguments(plain).tags([])(1) == ()
    with pytest.raises(ValueError, match="f: tags="):
        arguments(plain).tags(["{user}"])

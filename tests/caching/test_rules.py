"""What the app's owner may say about caching some routes."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perf_middleware.caching.rules import (
    KEY_PART_BYTES_MAX,
    CachePolicy,
    RuleBook,
    field_value,
)
from perf_middleware.caching.syntax.lists import is_token
from perf_middleware.path_patterns import PathPattern


def policy(**said):
    return CachePolicy(name="/a", **said)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        pytest.param({"shared": True, "private_by": ("cookie",)}, "contradict",
                     id="one user's own, and everybody's"),
        pytest.param({"shared": True, "private_by": lambda scope: "x"}, "contradict",
                     id="the same with a function"),
        pytest.param({"vary": (b"Accept",)}, "lower case", id="a header name with case"),
        pytest.param({"vary": (b"",)}, "lower case", id="an empty header name"),
        pytest.param({"vary": (b"a b",)}, "lower case", id="no header name"),
        pytest.param({"vary": (b"accept", b"*:")}, "lower case", id="one of two is none"),
        pytest.param({"private_by": ("Cookie",)}, "lower case", id="an identity with case"),
        pytest.param({"private_by": ("",)}, "lower case", id="no identity"),
        pytest.param({"private_by": ("cookie:",)}, "names no cookie", id="a cookie without name"),
        pytest.param({"private_by": ("cookie: a",)}, "names no cookie",
                     id="a cookie's name with a space, which no cookie has"),
        pytest.param({"private_by": ("x-user:a",)}, "names no cookie",
                     id="a part of what has no parts: it would tell nobody apart"),
        pytest.param({"private_by": ("authorization:Bearer",)}, "names no cookie",
                     id="a part of Authorization"),
    ],
)  # fmt: skip
def test_a_rule_that_contradicts_itself_is_refused(said, problem):
    with pytest.raises(ValueError, match=problem):
        policy(**said)


@pytest.mark.parametrize(
    ("said", "credentials", "covered"),
    [
        pytest.param({}, {b"cookie"}, False, id="a rule of nothing"),
        pytest.param({"vary": (b"cookie",)}, {b"cookie"}, False, id="vary has its own way"),
        pytest.param({"shared": True}, {b"cookie", b"authorization"}, True, id="shared"),
        pytest.param({"private_by": ("cookie",)}, {b"cookie"}, True, id="by cookie"),
        pytest.param({"private_by": ("cookie:a",)}, {b"cookie"}, True, id="by one cookie"),
        pytest.param({"private_by": ("cookie",)}, {b"cookie", b"x-api-key"}, False,
                     id="by one of two"),
        pytest.param({"private_by": ("cookie", "x-api-key")}, {b"cookie", b"x-api-key"}, True,
                     id="by both"),
        pytest.param({"private_by": lambda scope: "x"}, {b"cookie", b"x-api-key"}, True,
                     id="by a function, which vouches for all"),
        pytest.param({"private_by": ("cookie",)}, set(), True, id="no credentials"),
    ],
)  # fmt: skip
def test_a_rule_covers_the_credentials_that_its_key_holds(said, credentials, covered):
    assert policy(**said).covers(frozenset(credentials)) is covered


@pytest.mark.parametrize(
    ("said", "needs", "own_key"),
    [
        pytest.param({}, False, False, id="a rule of nothing"),
        pytest.param(
            {"ttl_s": 5, "tags": ("a",), "vary": (b"a",), "shared": True},
            False,
            False,
            id="what matters only to the answer",
        ),
        pytest.param({"bypass": True}, True, False, id="bypass"),
        pytest.param({"query": ()}, True, True, id="no parameter counts"),
        pytest.param({"query": ("q",)}, True, True, id="some parameters count"),
        pytest.param({"key": lambda scope: "x"}, True, True, id="a key of its own"),
        pytest.param({"private_by": ("cookie",)}, True, True, id="an identity"),
        pytest.param({"private_by": lambda scope: "x"}, True, True, id="an identity function"),
    ],
)
def test_a_rule_knows_whether_the_url_is_the_whole_key(said, needs, own_key):
    assert policy(**said).needs_request is needs
    assert policy(**said).has_own_key is own_key


def suffix(rule, query=b"", **fields):
    lines = {
        name.replace("_", "-").encode(): [value] if isinstance(value, bytes) else value
        for name, value in fields.items()
    }
    return rule.key_suffix({"query_string": query}, lines)


BY_COOKIE = policy(private_by=("cookie",))
BY_SESSION = policy(private_by=("cookie:session",))
BY_TOKEN = policy(private_by=("authorization",))
BY_BOTH = policy(private_by=("authorization", "cookie:session"))


@pytest.mark.parametrize(
    ("rule", "one", "other"),
    [
        pytest.param(BY_SESSION, {"cookie": b"session=1"}, {"cookie": b"a=1; session=1; b=2"},
                     id="other cookies do not count"),
        pytest.param(BY_SESSION, {"cookie": b"session=1"}, {"cookie": [b"a=1", b"session=1"]},
                     id="nor which line it is on"),
        pytest.param(BY_SESSION, {"cookie": b"session=1"}, {"cookie": b";  session = 1\t;"},
                     id="white space around name and value"),
        pytest.param(BY_SESSION, {}, {"cookie": b"a=1"}, id="no cookie, and none of this name"),
        pytest.param(BY_SESSION, {}, {"cookie": b"xsession=1; sessionx=2; Session=3"},
                     id="names that are alike"),
        pytest.param(BY_TOKEN, {"authorization": b"x"}, {"authorization": b"x", "cookie": b"a"},
                     id="a field that the rule does not name"),
    ],
)  # fmt: skip
def test_the_same_identity_gives_the_same_key(rule, one, other):
    assert suffix(rule, **one) == suffix(rule, **other)


@pytest.mark.parametrize(
    ("rule", "one", "other"),
    [
        pytest.param(BY_SESSION, {"cookie": b"session=1"}, {"cookie": b"session=2"}, id="values"),
        pytest.param(BY_SESSION, {"cookie": b"session=1"}, {}, id="some and none"),
        pytest.param(BY_SESSION, {"cookie": b"session="}, {}, id="empty and none"),
        pytest.param(BY_SESSION, {"cookie": b"session=A"}, {"cookie": b"session=a"}, id="case"),
        pytest.param(BY_SESSION, {"cookie": b"session=1"}, {"cookie": b"session=1; session=2"},
                     id="two of one name: the app may take the second"),
        pytest.param(BY_SESSION, {"cookie": b"session=2"}, {"cookie": b"session=1; session=2"},
                     id="two of one name: the app may take the first"),
        pytest.param(BY_SESSION, {"cookie": b"session=1; session=2"},
                     {"cookie": b"session=2; session=1"}, id="two of one name, in another order"),
        pytest.param(BY_SESSION, {"cookie": [b"session=1", b"session=2"]},
                     {"cookie": b"session=1"}, id="a second one on another line"),
        pytest.param(BY_SESSION, {}, {"cookie": b"session =1"}, id="a space after the name"),
        pytest.param(BY_SESSION, {}, {"cookie": b"\xa0session=1"},
                     id="white space of Latin-1 before it, as an app would take it off"),
        pytest.param(BY_SESSION, {"cookie": b"session=1=2"}, {"cookie": b"session=1"},
                     id="an equals sign in the value"),
        pytest.param(BY_SESSION, {"cookie": b"session=\xff"}, {"cookie": b"session=\xfe"},
                     id="values that are no text"),
        pytest.param(BY_COOKIE, {}, {"cookie": b""}, id="the whole field: none and empty"),
        pytest.param(BY_COOKIE, {"cookie": b"-"}, {}, id="what could stand for none"),
        pytest.param(BY_COOKIE, {"cookie": b"a=1; b=2"}, {"cookie": b"b=2; a=1"}, id="its order"),
        pytest.param(BY_TOKEN, {"authorization": b"a; b"}, {"authorization": [b"a", b"b"]},
                     id="one line and two"),
        pytest.param(BY_TOKEN, {"authorization": [b"a", b"b"]}, {"authorization": [b"b", b"a"]},
                     id="two lines, in another order"),
        pytest.param(BY_BOTH, {"authorization": b"1"}, {"cookie": b"session=1"},
                     id="the same value in another field"),
        pytest.param(BY_BOTH, {"authorization": b"1"}, {"authorization": b"1",
                                                        "cookie": b"session=1"}, id="one of two"),
    ],
)  # fmt: skip
def test_different_identities_give_different_keys(rule, one, other):
    assert suffix(rule, **one) != suffix(rule, **other)


def test_no_key_holds_a_secret():
    for rule, fields in (
        (BY_SESSION, {"cookie": b"session=s3cret"}),
        (BY_TOKEN, {"authorization": b"s3cret"}),
        (policy(private_by=lambda scope: "s3cret"), {}),
    ):
        assert b"s3cret" not in suffix(rule, **fields)


def test_a_function_says_whose_answer_it_is_or_keeps_the_request_out():
    rule = policy(private_by=lambda scope: scope.get("user"))
    one, other = (rule.key_suffix({"user": user}, {}) for user in ("ann", "bob"))
    assert one != other
    assert one == rule.key_suffix({"user": b"ann"}, {})
    assert rule.key_suffix({}, {}) is None
    assert policy(key=lambda scope: None).key_suffix({}, {}) is None
    surrogate = policy(key=lambda scope: "\udcff").key_suffix({}, {})
    assert surrogate != policy(key=lambda scope: "?").key_suffix({}, {})


BY_Q = policy(query=("q", "ü b"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(b"q=1", b"x=9&q=1&y", id="other parameters do not count"),
        pytest.param(b"q=a+b", b"q=a%20b", id="spaces in two spellings"),
        pytest.param(b"q=a", b"%71=%61", id="escapes that were not needed"),
        pytest.param(b"q", b"q=", id="no value and an empty one, which apps take for one"),
        pytest.param(b"", b"x=1", id="none of them"),
        pytest.param(b"q=1", b"&&q=1&", id="nothing between separators"),
        pytest.param(b"%C3%BC+b=1", b"%c3%bc%20b=1", id="a name that needs escapes"),
    ],
)
def test_queries_that_choose_the_same_share_a_key(one, other):
    assert suffix(BY_Q, one) == suffix(BY_Q, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(b"q=1", b"q=2", id="values"),
        pytest.param(b"", b"q=", id="none and an empty one"),
        pytest.param(b"q=1&q=2", b"q=2&q=1", id="the order of one name"),
        pytest.param(b"q=1&q=2", b"q=2", id="one of two"),
        pytest.param(b"q=a%26q%3Db", b"q=a&q=b", id="an escaped separator"),
        pytest.param(b"q=a%2Bb", b"q=a+b", id="a plus and a space"),
        pytest.param(b"q=%FF", b"q=%FE", id="bytes that are no text"),
        pytest.param(b"q=%FF", b"q=%EF%BF%BD", id="and what a decoder makes of them"),
        pytest.param(b"q=\xc3\xbc", b"q=%C3%BC", id="raw bytes, which an app may read otherwise"),
        pytest.param(b"q=%C3%BC", b"q=%FC", id="two encodings of one letter"),
        pytest.param(b"%C3%BC+b=1", b"", id="a name that needs escapes"),
        pytest.param(b"\xfc+b=1", b"", id="a name in Latin-1, as some apps read it"),
        pytest.param(b"\xc3\xbc+b=1", b"", id="a name in raw UTF-8"),
        pytest.param(b"q=%", b"q=%25x", id="no escape and one"),
    ],
)
def test_queries_that_choose_differently_have_different_keys(one, other):
    assert suffix(BY_Q, one) != suffix(BY_Q, other)


def test_parts_are_told_with_their_lengths():
    def key_of(scope):
        return scope["key"]

    rule = policy(query=("q",), key=key_of)
    keys = {
        rule.key_suffix({"query_string": query, "key": key}, {})
        for query in (b"", b"q=1", b"q=1%002:ab")
        for key in (b"", b"q=1", b"\x002:ab", b"ab", "ab\x00")
    }
    assert len(keys) == 15


def test_a_part_too_long_for_a_key_is_digested():
    for length in (KEY_PART_BYTES_MAX, KEY_PART_BYTES_MAX + 1, 10**6):
        one, other = (suffix(BY_Q, b"q=" + letter * length) for letter in (b"a", b"b"))
        assert one != other
        assert len(one) <= KEY_PART_BYTES_MAX + 10


around_the_longest = st.builds(
    lambda head, size, tail: head + b"\0" * size + tail,
    st.binary(max_size=8), st.integers(4_085, 4_100), st.binary(max_size=8),
)  # fmt: skip
parts = st.one_of(st.binary(max_size=8), around_the_longest)
identities = st.lists(st.tuples(parts, parts), min_size=2, max_size=4, unique=True)


@given(identities)
@example([(b"a", b"\x001:b"), (b"a\x001:b", b"")])
def test_different_keys_and_identities_never_share_a_suffix(pairs):
    rule = policy(key=lambda scope: scope["key"], private_by=lambda scope: scope["who"])
    made = {rule.key_suffix({"key": key, "who": who}, {}) for key, who in pairs}
    assert len(made) == len(pairs)


lines = st.dictionaries(
    st.sampled_from([b"cookie", b"authorization"]),
    st.lists(st.one_of(st.binary(max_size=12), st.sampled_from([b"session=1", b"session=2;"])),
             max_size=2),
)  # fmt: skip


@given(lines, lines, st.binary(max_size=20))
def test_any_bytes_have_a_suffix_and_whole_fields_have_their_own(one, other, query):
    rule = policy(private_by=("cookie", "authorization"), query=("q",))
    made = [rule.key_suffix({"query_string": query}, fields) for fields in (one, other)]
    values = [[fields.get(name, []) for name in (b"cookie", b"authorization")]
              for fields in (one, other)]  # fmt: skip
    assert (made[0] == made[1]) == (values[0] == values[1])
    assert BY_SESSION.key_suffix({}, one).startswith(b"\0")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        pytest.param(("a", "b"), ("a", "b"), id="as they are"),
        pytest.param(("item:{id}",), ("item:5",), id="with a parameter"),
        pytest.param(("{id}-{name}",), ("5-x{y}",), id="with two, whose braces mean nothing"),
        pytest.param(("{missing}", "a"), ("a",), id="one that lacks its parameter is left out"),
        pytest.param(("{", "{id", "a"), ("a",), id="one that is no pattern is left out"),
        pytest.param(("{}", "{0}", "a"), ("a",), id="nor are parameters numbered"),
        pytest.param(("{name.nothing}", "{name[x]}", "{id:%%}", "{name:d}", "a"), ("a",),
                     id="nor looked into"),
        pytest.param(("{{id}}",), ("{id}",), id="braces that are meant"),
    ],
)  # fmt: skip
def test_tags_take_the_parameters_of_the_path(tags, expected):
    assert policy(tags=tags).tags_for({"id": 5, "name": "x{y}"}) == expected


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        pytest.param("/a", ["/a"], ["/a/", "/", "/ab", "/A", "/a\n"], id="a path"),
        pytest.param("/a.b", ["/a.b"], ["/axb"], id="a dot is a dot"),
        pytest.param("/items/{id}", ["/items/5", "/items/ü", "/items/a b"],
                     ["/items/", "/items", "/items/5/", "/items/5/x", "/items/5\n/"],
                     id="a segment"),
        pytest.param("/{a}/{b}.json", ["/x/y.json", "/x/y.z.json"], ["/x/.json", "/x/y/z.json"],
                     id="segments and what follows them"),
        pytest.param("/{id:int}/x", ["/5/x"], ["/5/6/x"], id="a segment with a type"),
        pytest.param("/f/{path:path}", ["/f/", "/f/a", "/f/a/b", "/f/a\nb"], ["/f", "/g/a"],
                     id="a path of any length"),
        pytest.param("/s/*", ["/s/", "/s/a/b"], ["/s", "/S/a"], id="a star"),
        pytest.param("*", ["", "/", "/a/b"], [], id="everything"),
        pytest.param("*.js", ["/a.js", "/a/b.js", ".js"], ["/a.json", "/a.js/"], id="an ending"),
        pytest.param("/*/a/*/b", ["/x/a/y/b", "//a//b", "/a/a/a/b"], ["/a/b", "/x/a/b"],
                     id="two stars"),
        pytest.param("/*{x}-{y}*z", ["/a-bz", "/q/a-b-c/z", "/a-b/a-z"], ["/a-z", "/-z", "/z"],
                     id="segments between stars"),
        pytest.param("/**", ["/", "/a"], [""], id="two stars side by side"),
        pytest.param("/(a|b)+[c]", ["/(a|b)+[c]"], ["/a", "/ac"], id="what means more in a regex"),
    ],
)  # fmt: skip
def test_a_pattern_matches_whole_paths(pattern, matching, others):
    compiled = PathPattern.of(pattern)
    assert [path for path in matching + others if compiled.matches(path)] == matching


@pytest.mark.parametrize(
    "text", ["", "a", "{id}", "a/*", "/{", "/}", "/{}", "/{a-b}", "/{a", "/{a:b:c}", "/{a}}"]
)
def test_a_pattern_that_means_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r"brace|start"):
        PathPattern.of(text)


def test_a_long_path_is_not_tried_in_all_ways():
    """`/*a*a*a` took 40 seconds for a path of 4,000 letters; cubic, this would not end."""
    for pattern in ("/*a*a*a*a*a", "/*/a/*/a/*/b", "/{p:path}/a/{q:path}/a/{r:path}/z"):
        assert not PathPattern.of(pattern).matches("/" + "a/" * 30_000)
        assert not PathPattern.of(pattern).matches("/" + "a" * 60_000 + "/")


pieces = st.sampled_from(["*", "{x}", "{x:path}", "a", "b", "/", "-", "/a"])


@given(st.lists(pieces, max_size=7).map("".join), st.text("ab/-", max_size=12))
def test_a_pattern_matches_what_its_plain_reading_does(text, path):
    plain = re.escape("/" + text).replace(r"\{x:path\}", ".*").replace(r"\{x\}", "[^/]+")
    expected = re.fullmatch(plain.replace(r"\*", ".*"), "/" + path, re.DOTALL) is not None
    assert PathPattern.of("/" + text).matches("/" + path) is expected


def test_the_first_rule_that_matches_counts_alone():
    one, other = policy(ttl_s=1), policy(ttl_s=2)
    book = RuleBook([(PathPattern.of("/a/*"), one), (PathPattern.of("/*"), other)])
    assert book.has_any
    assert book.rule_for("/a/b") is one
    assert book.rule_for("/b") is other
    assert book.rule_for("x") is None
    assert not RuleBook().has_any
    assert RuleBook().rule_for("/a") is None


@pytest.mark.parametrize("text", ["", "max-age=5, private", 'a="b"'])
def test_a_field_value_is_printable_ascii(text):
    assert field_value(text) == text.encode()


@pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "a\0", "\t", "ü", "\x7f"])
def test_what_could_end_a_header_is_no_field_value(text):
    with pytest.raises(ValueError, match="header value"):
        field_value(text)


@given(st.text(max_size=8), st.text(max_size=8))
def test_private_by_takes_names_of_cookies_and_fields_and_nothing_else(field, cookie):
    name = f"{field}:{cookie}" if cookie else field
    try:
        policy(private_by=(name,))
    except ValueError:
        return
    assert is_token(field.partition(":")[0].encode())
    assert ":" not in name or name.startswith("cookie:")


def test_a_rule_learnt_from_an_endpoint_holds_for_all_paths_of_its_route():
    book, rule = RuleBook(), CachePolicy(name="learnt", ttl_s=1, on_endpoint=True)
    assert not book.has_any
    book.learn("/items/5", rule, "/items/{id}")
    assert book.rule_for("/items/6") is rule
    assert book.rule_for("/other/6") is None


def test_a_path_that_another_endpoint_answered_is_known_as_that():
    book, rule = RuleBook(), CachePolicy(name="learnt", ttl_s=1, on_endpoint=True)
    book.learn("/items/5", rule, "/items/{id}")
    book.learn("/items/special", None, "/items/special")
    assert book.rule_for("/items/special") is None
    assert book.rule_for("/items/6") is rule


def test_a_configured_rule_comes_before_a_learnt_one():
    configured = CachePolicy(name="configured", ttl_s=1)
    book = RuleBook([(PathPattern.of("/items/*"), configured)])
    book.learn("/items/5", CachePolicy(name="learnt", ttl_s=1, on_endpoint=True), "/items/{id}")
    assert book.rule_for("/items/6") is configured


@pytest.mark.parametrize("route", ["unmatched", "", "other", "/a{b"])
def test_a_route_without_a_template_teaches_of_one_path_only(route):
    book, rule = RuleBook(), CachePolicy(name="learnt", ttl_s=1, on_endpoint=True)
    book.learn("/items/5", rule, route)
    assert book.rule_for("/items/5") is rule
    assert book.rule_for("/items/6") is None


def test_what_is_remembered_of_paths_is_bounded():
    book = RuleBook([(PathPattern.of("/a"), CachePolicy(name="a", ttl_s=1))])
    for number in range(25_000):
        book.rule_for(f"/{number}")
    assert len(book.known) <= 10_000

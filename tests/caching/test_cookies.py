"""Cookies that do not count, and further fields that do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware import Settings, SettingsError
from perf_middleware.caching.cookies import IgnoredCookies
from tests.caching.stage import MAX_AGE, App, ask, cached, run, verdict

STATISTICS = ("_ga", "_ga_*", "__utm*")


@pytest.mark.parametrize(
    ("lines", "ignored", "left"),
    [
        pytest.param([b"_ga=1"], True, [], id="one of them"),
        pytest.param([b"_ga=1; _ga_X2=2;__utma=3"], True, [], id="several, two by their beginning"),
        pytest.param([b"_ga=1", b"__utmz=4"], True, [], id="on two lines, as HTTP/2 may send them"),
        pytest.param([b""], True, [], id="an empty line"),
        pytest.param([b" ;; "], True, [], id="nothing between semicolons"),
        pytest.param([b"_ga=1; session=x"], False, [b" session=x"], id="beside another"),
        pytest.param([b"_ga=1", b"session=x"], False, [b"session=x"], id="on a line of its own"),
        pytest.param([b"_gab=1"], False, [b"_gab=1"], id="a longer name than the one without star"),
        pytest.param([b"_GA=1"], False, [b"_GA=1"], id="names are told apart by case"),
        pytest.param([b"_ga"], False, [b"_ga"], id="a value without a name"),
        pytest.param([b"=_ga"], False, [b"=_ga"], id="an empty name"),
        pytest.param([b"x=_ga=1"], False, [b"x=_ga=1"], id="the name inside a value"),
        pytest.param([b'x="; _ga=1"'], False, [b'x="'], id="quotes do not hold pairs together"),
    ],
)
def test_which_lines_of_cookies_do_not_count(lines, ignored, left):
    cookies = IgnoredCookies(STATISTICS)
    assert cookies.are_all_of(lines) is ignored
    assert cookies.leave_of(lines) == left


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"_ga=1; a=b", b"_ga=1"]), max_size=4))
def test_any_bytes_are_cookies_that_count_or_do_not(lines):
    cookies = IgnoredCookies(STATISTICS)
    left = cookies.leave_of(lines)
    assert cookies.leave_of(left) == left
    counting = [
        pair.strip(b" \t") for line in left for pair in line.split(b";") if pair.strip(b" \t")
    ]
    assert cookies.are_all_of(lines) is (not counting)


@pytest.mark.parametrize("name", ["", "*", "a*b", "a=b", "a b", "a;b", "é", "**"])
def test_what_is_no_name_of_a_cookie_is_refused(name):
    with pytest.raises(ValueError, match="no name of a cookie"):
        IgnoredCookies([name])
    with pytest.raises(SettingsError, match=r"ignored_cookies.*no name of a cookie"):
        Settings(cache={"ignored_cookies": [name]})


def test_a_request_with_ignored_cookies_alone_is_anybodys():
    async def act():
        app = App()
        layer = cached(app, ignored_cookies=STATISTICS)
        told = [
            verdict(await ask(layer, "/", *headers))
            for headers in (
                [(b"cookie", b"_ga=1")],
                [(b"cookie", b"_ga=2; _ga_X=1")],
                [],
                [(b"cookie", b"_ga=1"), (b"cookie", b"session=x")],
                [(b"cookie", b"_ga=1"), (b"authorization", b"Basic eA==")],
            )
        ]
        assert told == [
            "fwd=uri-miss; stored",
            "hit; ttl=60",
            "hit; ttl=60",
            'fwd=bypass; detail="credentials: cookie"',
            'fwd=bypass; detail="credentials: authorization"',
        ]
        assert app.seen(b"cookie", call=0) == [b"_ga=1"], "the app gets every cookie all the same"

    run(act)


def test_ignored_cookies_tell_no_answers_apart():
    async def act():
        app = App(MAX_AGE, (b"vary", b"cookie"))
        rules = [{"path": "/mine", "ttl": 60, "private_by": "cookie"}]
        layer = cached(app, rules=rules, ignored_cookies=STATISTICS)
        for path in ("/varied", "/mine"):
            told = [
                verdict(await ask(layer, path, (b"cookie", value)))
                for value in (b"a=1; _ga=1", b"a=1; _ga=2", b"a=2; _ga=2")
            ]
            assert ["hit" in each for each in told] == [False, True, False], path

    run(act)


def test_a_field_of_the_apps_own_can_say_who_asks():
    async def act():
        layers = [cached(App()), cached(App(), credentials=(b"x-member",))]
        told = [
            verdict(await ask(layer, "/", (b"x-member", member)))
            for layer in layers
            for member in (b"ada", b"bob")
        ]
        assert told == [
            "fwd=uri-miss; stored",
            "hit; ttl=60",
            'fwd=bypass; detail="credentials: x-member"',
            'fwd=bypass; detail="credentials: x-member"',
        ]

    run(act)


def test_an_answer_that_varies_by_such_a_field_is_kept_for_each_value():
    async def act():
        layer = cached(App(MAX_AGE, (b"vary", b"x-member")), credentials=(b"x-member",))
        told = [
            verdict(await ask(layer, "/", (b"x-member", member)))
            for member in (b"ada", b"bob", b"ada")
        ]
        assert ["hit" in each for each in told] == [False, False, True]

    run(act)

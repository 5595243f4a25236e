"""What is asked, and in which order."""

import pytest

from perf_middleware import Settings, SettingsError
from perf_middleware.caching.warming.decorators import Warmer
from perf_middleware.caching.warming.plan import (
    Agenda,
    Ask,
    Base,
    ask_of,
    spread_s,
    variants_of,
)

SHOP = Base.of("https://shop.example/v1")


@pytest.mark.parametrize(
    ("url", "ask"),
    [
        pytest.param(
            "/items?page=1",
            Ask("https", b"shop.example", b"/v1/items", b"page=1", (), "/v1"),
            id="a path is below the root path of the base",
        ),
        pytest.param(
            "http://other.example:8080/a%20b",
            Ask("http", b"other.example:8080", b"/a%20b"),
            id="a URL has its own host, and the root path only where it is below it",
        ),
        pytest.param(
            "https://shop.example/v1/x",
            Ask("https", b"shop.example", b"/v1/x", b"", (), "/v1"),
            id="a URL below the root path",
        ),
    ],
)
def test_a_url_is_asked_for_as_its_clients_would(url, ask):
    assert ask_of(url, base=SHOP) == ask


def test_a_request_of_warming_names_no_client_and_begins_at_the_full_path():
    scope = ask_of("/a%20b?x=1", ((b"accept-language", b"de"),), base=SHOP).scope()
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
        "/v1/a b", b"/v1/a%20b", b"x=1",
    )  # fmt: skip
    assert (scope["client"], scope["method"], scope["root_path"]) == (None, "GET", "/v1")
    assert scope["server"] == ("shop.example", 443)
    assert (b"accept-language", b"de") in scope["headers"]


@pytest.mark.parametrize(
    ("url", "server", "path"),
    [
        ("http://[::1]:8080/a", ("::1", 8080), "/a"),
        ("http://[::1]/a", ("::1", 80), "/a"),
        ("https://a.example:444/%C3%A4", ("a.example", 444), "/ä"),
        ("https://a.example/%FF", ("a.example", 443), "/\ufffd"),
    ],
)
def test_the_app_sees_it_as_servers_show_it(url, server, path):
    scope = ask_of(url, base=None).scope()
    assert (scope["server"], scope["path"]) == (server, path)


def test_each_combination_of_values_is_a_variant_and_an_empty_one_is_left_out():
    assert variants_of({"Accept-Encoding": ["gzip", ""], "accept-language": ["de", "en"]}) == (
        ((b"accept-encoding", b"gzip"), (b"accept-language", b"de")),
        ((b"accept-encoding", b"gzip"), (b"accept-language", b"en")),
        ((b"accept-language", b"de"),),
        ((b"accept-language", b"en"),),
    )
    assert variants_of({}) == ((),)


def taken(agenda):
    return list(iter(agenda.take, None))


def test_each_is_asked_once_and_the_last_when_there_is_nothing_else():
    one, two, three = (ask_of(f"/{number}", base=SHOP) for number in range(3))
    agenda = Agenda(9)
    agenda.add([three], last=True)
    agenda.add([one, two, one])
    assert (agenda.planned, agenda.take()) == (3, one)
    agenda.add([two, three, one])
    assert taken(agenda) == [two, three]
    agenda.add([one, two, three])
    assert agenda.take() is None


def test_no_more_are_asked_for_than_allowed():
    asks = [ask_of(f"/{number}", base=SHOP) for number in range(4)]
    agenda = Agenda(2)
    agenda.add(asks[:1], last=True)
    assert not agenda.is_full
    agenda.add(asks[1:])
    assert agenda.is_full
    assert (agenda.planned, taken(agenda)) == (4, asks[1:3])


def test_runs_are_spread_by_a_tenth():
    spread = [round(spread_s(100, draw), 6) for draw in (0.0, 0.5, 1.0)]
    assert spread == [90, 100, 110]


def test_a_warmer_is_a_function_and_stays_itself():
    warmer = Warmer()
    assert warmer(test_runs_are_spread_by_a_tenth) is test_runs_are_spread_by_a_tenth
    with pytest.raises(TypeError, match="a warmer is a function"):
        warmer("/items")


@pytest.mark.parametrize(
    ("warming", "problem"),
    [
        ({"urls": "/items"}, "'/items' has no host: set warming.base_url"),
        ({"urls": "items"}, "'items' is neither a path"),
        ({"urls": ["https://a.example/ä"]}, "must be written as it is sent"),
        ({"base_url": "shop.example"}, "is neither a path"),
        ({"base_url": "/v1"}, "must be scheme and host"),
        ({"vary": {"authorization": ["Bearer x"]}}, "warming asks as nobody"),
        ({"vary": {"cookie": ["a=b"]}}, "warming asks as nobody"),
        ({"vary": {"range": ["bytes=0-1"]}}, "tells no variants apart"),
        ({"vary": {"accept": ["a\r\nb: c"]}}, "a value that no client can send"),
        ({"vary": {"x": [str(n) for n in range(65)]}}, "65 variants of each URL"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_at_the_start(warming, problem):
    with pytest.raises(SettingsError) as refused:
        Settings(warming=warming)
    assert problem in str(refused.value)

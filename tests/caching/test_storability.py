"""What a shared cache may store, and for whom (RFC 9111 §3, §3.5, §5.2.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.storability import (
    INDISPENSABLE,
    STATUSES_UNDERSTOOD,
    refusal,
    uncovered_credentials,
)
from perf_middleware.caching.syntax.directives import (
    ResponseDirectives,
    parse_response_directives,
)


def refused(status, *cache_control, request_no_store=False):
    directives = parse_response_directives(cache_control)
    return refusal(status, directives, request_no_store=request_no_store)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(100, "not-final", id="100 is not the answer yet"),
        pytest.param(101, "not-final", id="101 is no answer at all"),
        pytest.param(103, "not-final", id="103 is not the answer yet"),
        pytest.param(199, "not-final", id="any other 1xx"),
        pytest.param(200, None, id="200"),
        pytest.param(203, None, id="203"),
        pytest.param(204, None, id="204"),
        pytest.param(206, "partial", id="206 is a part, and parts are not combined"),
        pytest.param(299, None, id="299 is final, if unknown"),
        pytest.param(301, None, id="301"),
        pytest.param(302, None, id="302 with explicit freshness"),
        pytest.param(304, "not-final", id="304 speaks of another response"),
        pytest.param(308, None, id="308"),
        pytest.param(404, None, id="404"),
        pytest.param(412, "conditional", id="412 is about one request's conditions"),
        pytest.param(416, "conditional", id="416 is about one request's ranges"),
        pytest.param(418, None, id="418"),
        pytest.param(428, "status", id="428 is about the request (RFC 6585 §3)"),
        pytest.param(429, "status", id="429 is about the client (RFC 6585 §4)"),
        pytest.param(431, "status", id="431 is about the request (RFC 6585 §5)"),
        pytest.param(511, "status", id="511 is about the network (RFC 6585 §6)"),
        pytest.param(499, None, id="499 is final, if unknown"),
        pytest.param(500, None, id="500 with explicit freshness"),
        pytest.param(599, None, id="599 is final, if unknown"),
    ],
)
def test_a_final_status_may_be_stored(status, expected):
    assert refused(status, b"max-age=60") == expected


@pytest.mark.parametrize(
    ("cache_control", "expected"),
    [
        pytest.param([], None, id="nothing forbids it"),
        pytest.param([b"public, max-age=60"], None, id="public"),
        pytest.param([b"no-store"], "no-store", id="no-store"),
        pytest.param([b"max-age=60", b"No-Store"], "no-store", id="no-store on another line"),
        pytest.param([b"public, no-store"], "no-store", id="public permits nothing beside it"),
        pytest.param([b"no-store; max-age=60"], "no-store", id="no-store in a broken element"),
        pytest.param([b"private"], "private", id="private"),
        pytest.param([b"private, s-maxage=60, public"], "private", id="private beside public"),
        pytest.param([b"private="], "private", id="private of no field is the whole response"),
        pytest.param([b'private="x-user"'], None, id="private of one field: the rest is not"),
        pytest.param([b'private="x-user", private'], "private", id="both forms of private"),
        pytest.param([b"no-cache"], None, id="no-cache may be stored, and not used unasked"),
        pytest.param([b'no-cache="x-user"'], None, id="no-cache of one field"),
        pytest.param([b'private="vary"'], "private", id="private of what it cannot go without"),
        pytest.param([b'private="x, Content-Encoding"'], "private",
                     id="without its coding the body is noise"),
        pytest.param([b'no-cache="cache-control"'], "no-cache",
                     id="no-cache of what it cannot go without"),
        pytest.param([b'no-cache="location"'], "no-cache", id="no-cache of where it leads"),
        pytest.param([b'ext="no-store, private"'], None, id="words in an extension's string"),
        pytest.param([b"must-revalidate, proxy-revalidate, no-transform, immutable"], None,
                     id="what restricts reuse does not forbid to store"),
    ],
)  # fmt: skip
def test_the_response_may_forbid_to_store_it(cache_control, expected):
    assert refused(200, *cache_control) == expected


@pytest.mark.parametrize(
    ("status", "cache_control", "expected"),
    [
        pytest.param(200, b"must-understand, no-store", None,
                     id="no-store is for those who do not understand 200"),
        pytest.param(200, b"no-store, must-understand", None, id="in whatever order"),
        pytest.param(404, b"must-understand, no-store", None, id="404 is understood"),
        pytest.param(299, b"must-understand, no-store", "must-understand",
                     id="299 is not understood"),
        pytest.param(299, b"must-understand, max-age=60", "must-understand",
                     id="then it may not be stored, without no-store either"),
        pytest.param(599, b"must-understand, public", "must-understand", id="599 neither"),
        pytest.param(206, b"must-understand, no-store", "partial", id="a part stays a part"),
        pytest.param(304, b"must-understand, no-store", "not-final", id="304 stays a 304"),
        pytest.param(200, b"must-understand, no-store, private", "private",
                     id="it lifts no-store, not private"),
        pytest.param(200, b"must-understand=1, no-store", "no-store",
                     id="with an argument it is not the directive that lifts anything"),
        pytest.param(200, b"must-understand; no-store", "no-store", id="nor in a broken element"),
    ],
)  # fmt: skip
def test_must_understand_lifts_no_store_where_the_status_is_understood(
    status, cache_control, expected
):
    assert refused(status, cache_control) == expected


def test_a_cache_understands_what_it_could_guess_and_no_unknown_status():
    assert {200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501} <= STATUSES_UNDERSTOOD
    assert STATUSES_UNDERSTOOD.isdisjoint({100, 206, 299, 304, 499, 599})


@pytest.mark.parametrize(
    ("status", "cache_control", "expected"),
    [
        pytest.param(200, b"public, max-age=60", "request-no-store", id="whatever it permits"),
        pytest.param(200, b"no-store", "no-store", id="what the response says is told first"),
        pytest.param(200, b"must-understand, no-store", "request-no-store",
                     id="must-understand speaks of the response's own no-store"),
    ],
)  # fmt: skip
def test_a_request_may_forbid_to_store_its_answer(status, cache_control, expected):
    assert refused(status, cache_control, request_no_store=True) == expected


def uncovered(credentials, cache_control, vary=(), by_rfc=True):
    return uncovered_credentials(
        frozenset(credentials),
        parse_response_directives([cache_control]),
        vary=frozenset(vary),
        authorization_by_rfc=by_rfc,
    )


AUTHORIZATION = {b"authorization"}


@pytest.mark.parametrize(
    ("cache_control", "safe"),
    [
        pytest.param(b"public", True, id="public"),
        pytest.param(b"s-maxage=60", True, id="s-maxage"),
        pytest.param(b"s-maxage=0", True, id="s-maxage=0, which must be validated"),
        pytest.param(b"must-revalidate", True, id="must-revalidate"),
        pytest.param(b"max-age=60", False, id="max-age does not suffice"),
        pytest.param(b"max-age=60, proxy-revalidate", False, id="nor does proxy-revalidate"),
        pytest.param(b"immutable, no-transform", False, id="nor what says nothing of sharing"),
        pytest.param(b"public=1", False, id="nor public with an argument"),
        pytest.param(b"must-revalidate; x", False, id="nor must-revalidate in a broken element"),
        pytest.param(b'ext="public"', False, id="nor public in an extension's string"),
    ],
)
def test_by_the_rfc_the_app_may_share_answers_to_authorization(cache_control, safe):
    assert uncovered(AUTHORIZATION, cache_control) == (set() if safe else AUTHORIZATION)
    assert uncovered(AUTHORIZATION, cache_control, by_rfc=False) == AUTHORIZATION


@pytest.mark.parametrize(
    ("credentials", "vary", "left"),
    [
        pytest.param({b"cookie"}, (), {b"cookie"}, id="a cookie is no Authorization"),
        pytest.param({b"x-api-key"}, (), {b"x-api-key"}, id="nor is an API key"),
        pytest.param({b"cookie", b"authorization"}, (), {b"cookie"},
                     id="both: the RFC lifts the one"),
        pytest.param({b"cookie"}, [b"cookie"], set(), id="Vary tells cookies apart"),
        pytest.param({b"cookie"}, [b"accept"], {b"cookie"}, id="Vary of something else"),
        pytest.param({b"cookie", b"x-api-key"}, [b"cookie"], {b"x-api-key"},
                     id="Vary of one of two"),
        pytest.param({b"cookie", b"authorization"}, [b"cookie"], set(),
                     id="Vary for the one, the RFC for the other"),
        pytest.param(set(), (), set(), id="no credentials"),
    ],
)  # fmt: skip
def test_other_credentials_are_shared_only_where_vary_names_them(credentials, vary, left):
    assert uncovered(credentials, b"public, s-maxage=60", vary) == left


@pytest.mark.parametrize("by_rfc", [True, False])
def test_authorization_needs_the_word_of_the_app_beside_vary(by_rfc):
    for cache_control, left in ((b"public", set()), (b"max-age=60", AUTHORIZATION)):
        assert uncovered(AUTHORIZATION, cache_control, AUTHORIZATION, by_rfc=by_rfc) == left


flags = st.booleans()
all_directives = st.builds(
    ResponseDirectives,
    no_store=flags, private=flags, public=flags, must_understand=flags,
    private_fields=st.frozensets(st.sampled_from([b"x", *INDISPENSABLE]), max_size=2),
)  # fmt: skip


@given(st.integers(100, 999), all_directives, flags)
def test_no_permission_outweighs_a_prohibition(status, directives, request_no_store):
    if refusal(status, directives, request_no_store=request_no_store) is not None:
        return
    assert status >= 200
    assert status not in {206, 304}
    assert not directives.private
    assert not directives.private_fields & INDISPENSABLE
    assert not request_no_store
    if directives.must_understand:
        assert status in STATUSES_UNDERSTOOD
    else:
        assert not directives.no_store

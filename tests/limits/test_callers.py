"""Who is the client: what of a proxy's word is believed, and what of a client's never is."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from perf_middleware.limits.callers import NAMELESS, REMEMBERED_MAX, Callers
from perf_middleware.limits.forwarding import FIELD_BYTES_MAX, HOPS_MAX, hops
from perf_middleware.limits.networks import address_of, is_ipv4, network_of
from perf_middleware.limits.settings import CallersSettings

PROXIES = [ip_network("10.0.0.0/8"), ip_network("2001:db8:ffff::/48")]
PROXY = "10.0.0.1"


def scope_of(peer, *fields):
    return {
        "type": "http",
        "client": None if peer is None else (peer, 50_000),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields],
    }


def client(peer, *fields, **options):
    options = {"trusted_proxies": PROXIES} | options
    return Callers(**options).client_of(scope_of(peer, *fields)).decode()


def xff(*values):
    return [("x-forwarded-for", value) for value in values]


def forwarded(*values):
    return [("forwarded", value) for value in values]


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        pytest.param("203.0.113.7", "203.0.113.7", id="an address of IPv4"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="one of IPv6 by its /64"),
        pytest.param("::ffff:203.0.113.7", "203.0.113.7", id="IPv4 mapped into IPv6 is IPv4"),
        pytest.param("fe80::1%eth0", "fe80::/64", id="without its zone"),
        pytest.param(None, "-", id="no peer: a unix socket"),
        pytest.param("", "-", id="an empty one"),
        pytest.param("testclient", "-", id="a name is no address"),
    ],
)
def test_a_peer_is_the_client_by_its_address(peer, key):
    assert client(peer) == key


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        pytest.param(xff("203.0.113.7"), "203.0.113.7", id="one hop"),
        pytest.param(xff("203.0.113.7, 10.0.0.2"), "203.0.113.7", id="a chain of proxies"),
        pytest.param(xff("203.0.113.7", "10.0.0.2"), "203.0.113.7", id="over two lines"),
        pytest.param(xff("1.1.1.1", "203.0.113.7 , 10.0.0.2"), "203.0.113.7", id="a forged line"),
        pytest.param(xff("1.1.1.1, 203.0.113.7"), "203.0.113.7", id="a forged left part"),
        pytest.param(xff("10.0.0.9, 203.0.113.7"), "203.0.113.7", id="forged as a proxy"),
        pytest.param(xff("10.0.0.3, 10.0.0.2"), "10.0.0.3", id="proxies alone: the leftmost"),
        pytest.param(xff("203.0.113.7:4711"), "203.0.113.7", id="with a port"),
        pytest.param(xff("[2001:db8::1]:4711"), "2001:db8::/64", id="IPv6 with a port"),
        pytest.param(xff("2001:db8::1"), "2001:db8::/64", id="IPv6 without brackets"),
        pytest.param(xff("::ffff:203.0.113.7"), "203.0.113.7", id="a mapped one"),
        pytest.param(xff("[fe80::1%25eth0]"), "fe80::/64", id="a zone"),
        pytest.param([], PROXY, id="no field: the proxy itself"),
        pytest.param(xff(""), PROXY, id="an empty field"),
        pytest.param(xff("203.0.113.7, "), PROXY, id="an empty element stops it"),
        pytest.param(xff("203.0.113.7, , 10.0.0.2"), "10.0.0.2", id="behind a good hop"),
        pytest.param(xff("unknown"), PROXY, id="unknown"),
        pytest.param(xff("203.0.113.7, unknown, 10.0.0.2"), "10.0.0.2", id="unknown in between"),
        pytest.param(xff("203.0.113.7, _hidden"), PROXY, id="an obfuscated one"),
        pytest.param(xff("203.0.113.7;evil"), PROXY, id="garbage"),
        pytest.param(xff("010.0.113.7"), PROXY, id="octal digits"),
        pytest.param(xff("203.0.113"), PROXY, id="a short form"),
        pytest.param(xff("[203.0.113.7]"), PROXY, id="IPv4 in brackets"),
        pytest.param(xff("203.0.113.7:99999999"), PROXY, id="a port that is none"),
        pytest.param(xff("[2001:db8::1"), PROXY, id="an open bracket"),
        pytest.param(xff("ÿþ"), PROXY, id="not ASCII"),
        pytest.param(forwarded("for=203.0.113.7"), PROXY, id="the other field is never read"),
    ],
)
def test_x_forwarded_for_is_read_from_the_right(lines, key):
    assert client(PROXY, *lines) == key


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        pytest.param(forwarded("for=203.0.113.7"), "203.0.113.7", id="a token"),
        pytest.param(forwarded("For=203.0.113.7;Proto=https"), "203.0.113.7", id="in any case"),
        pytest.param(forwarded('for="203.0.113.7:80"'), "203.0.113.7", id="a quoted port"),
        pytest.param(forwarded("for=203.0.113.7:80"), "203.0.113.7", id="an unquoted one, too"),
        pytest.param(forwarded('for="203.0.113.7:_p1"'), "203.0.113.7", id="an obfuscated port"),
        pytest.param(forwarded('for="[2001:db8::1]:80"'), "2001:db8::/64", id="IPv6"),
        pytest.param(forwarded('for="20\\3.0.113.7"'), "203.0.113.7", id="an escape"),
        pytest.param(forwarded("proto=https; for=203.0.113.7"), "203.0.113.7", id="later pairs"),
        pytest.param(
            forwarded('for=203.0.113.7;by="a, b;for=1.1.1.1"'), "203.0.113.7", id="in quotes"
        ),
        pytest.param(
            forwarded('for=203.0.113.7;host="a\\",for=1.1.1.1,b"'),
            "203.0.113.7",
            id="an escaped quote",
        ),
        pytest.param(
            forwarded('for=203.0.113.7;host="a\\\\", for=10.0.0.2'), "203.0.113.7", id="a backslash"
        ),
        pytest.param(forwarded("for=1.1.1.1, for=203.0.113.7"), "203.0.113.7", id="forged before"),
        pytest.param(forwarded('for="x', "for=203.0.113.7"), "203.0.113.7", id="an open quote"),
        pytest.param(
            forwarded('for="x', 'for=203.0.113.7, for="10.0.0.2:80"'), "203.0.113.7", id="twice"
        ),
        pytest.param(forwarded('for=1.1.1.1;by="', "for=203.0.113.7"), "203.0.113.7", id="open by"),
        pytest.param(forwarded("proto=https"), PROXY, id="no node"),
        pytest.param(forwarded("for=203.0.113.7;for=1.1.1.1"), PROXY, id="two nodes"),
        pytest.param(forwarded("for=unknown"), PROXY, id="unknown"),
        pytest.param(forwarded('for="_gazonk"'), PROXY, id="obfuscated"),
        pytest.param(forwarded("203.0.113.7"), PROXY, id="no pair"),
        pytest.param(forwarded("for=203.0.113.7,"), PROXY, id="an empty element"),
        pytest.param(forwarded('for=203.0.113.7"'), PROXY, id="a stray quote"),
        pytest.param(xff("203.0.113.7"), PROXY, id="the other field is never read"),
    ],
)
def test_forwarded_is_read_from_the_right(lines, key):
    assert client(PROXY, *lines, header="forwarded") == key


TEXTS = st.one_of(
    st.sampled_from(["10.0.0.1", "1.1.1.1", "unknown", '"', ",", "for=", ";", "\\", "[::1]", " "]),
    st.ip_addresses().map(str),
    st.text(st.characters(max_codepoint=255), max_size=12),
)
VALUES = st.lists(TEXTS, max_size=8).map("".join)
FIELDS = st.sampled_from(["x-forwarded-for", "forwarded", "x-real-ip"])


@settings(deadline=None)
@given(
    st.lists(st.tuples(FIELDS, VALUES), max_size=4),
    st.sampled_from(["x-forwarded-for", "forwarded"]),
)
def test_no_header_from_an_untrusted_peer_changes_a_clients_key(fields, header):
    assert client("203.0.113.7", *fields, header=header) == "203.0.113.7"


@settings(deadline=None)
@given(st.lists(VALUES, max_size=4))
def test_nothing_a_client_sends_changes_what_its_proxy_adds(forged):
    assert client(PROXY, *xff(*forged, "203.0.113.7")) == "203.0.113.7"
    assert client(PROXY, *xff(", ".join([*forged, "203.0.113.7, 10.0.0.2"]))) == "203.0.113.7"


@settings(deadline=None)
@given(
    st.lists(VALUES, max_size=4),
    st.sampled_from(["for=203.0.113.7", 'for="203.0.113.7:80";by="a, \\"b"']),
)
def test_nothing_a_client_sends_changes_what_its_proxy_adds_to_forwarded(forged, added):
    separate = forwarded(*forged, added)
    assert client(PROXY, *separate, header="forwarded") == "203.0.113.7"
    joined = forwarded(", ".join([*forged, added]))
    assert client(PROXY, *joined, header="forwarded") == "203.0.113.7"


@settings(deadline=None)
@given(VALUES, st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_any_field_gives_addresses_or_stops(value, name):
    found = list(hops(name, value.encode("latin-1")))
    assert all(address is not None for address in found[:-1])


def test_a_very_long_field_is_read_at_its_end_only():
    long = "1.1.1.1, " * 2_000
    assert client(PROXY, *xff(long + "203.0.113.7")) == "203.0.113.7"
    assert len(list(hops("x-forwarded-for", (long + "10.0.0.2").encode()))) <= HOPS_MAX + 1


def test_half_an_address_at_the_cut_is_none():
    ends_in = "10.0.0.2"
    read = "23.4.5.6," + ends_in.rjust(FIELD_BYTES_MAX - 9)
    assert len(read) == FIELD_BYTES_MAX
    assert client(PROXY, *xff(read)) == "23.4.5.6"
    assert client(PROXY, *xff("1" + read)) == ends_in


def test_a_chain_longer_than_any_ends_at_a_proxy():
    assert client(PROXY, *xff("203.0.113.7, " + ", ".join(["10.0.0.2"] * 80))) == "10.0.0.2"


def test_a_unix_socket_is_a_proxy_where_that_was_said():
    declared = Callers(trusts_nameless=True)
    assert declared.client_of(scope_of(None, *xff("203.0.113.7"))) == b"203.0.113.7"
    assert declared.client_of(scope_of(None)) == NAMELESS
    assert Callers().client_of(scope_of(None, *xff("203.0.113.7"))) == NAMELESS
    assert declared.client_of(scope_of("a name", *xff("203.0.113.7"))) == NAMELESS


def test_prefixes_decide_who_is_one_client():
    wide = {"ipv4_prefix": 24, "ipv6_prefix": 48}
    assert client("203.0.113.7", **wide) == "203.0.113.0/24"
    assert client("2001:db8:1:2::3", **wide) == "2001:db8:1::/48"


@pytest.mark.parametrize(
    ("peer", "lines", "is_trusted"),
    [
        pytest.param("192.168.1.5", [], True, id="a service beside us"),
        pytest.param("203.0.113.7", [], False, id="anybody else"),
        pytest.param("203.0.113.7", xff("192.168.1.5"), False, id="who says so"),
        pytest.param(PROXY, xff("192.168.1.5"), True, id="a service behind the proxy"),
        pytest.param(PROXY, xff("192.168.1.5, 203.0.113.7"), False, id="a forged left part"),
        pytest.param("10.0.7.7", xff("unknown"), False, id="a proxy that speaks for nobody"),
        pytest.param("10.0.7.7", [], True, id="a trusted proxy itself"),
        pytest.param(None, [], False, id="nobody"),
    ],
)
def test_trust_is_of_the_resolved_client(peer, lines, is_trusted):
    trusted = [ip_network("192.168.0.0/16"), ip_network("10.0.7.0/24")]
    callers = Callers(trusted_proxies=PROXIES, trusted=trusted)
    assert callers.trusts(scope_of(peer, *lines)) is is_trusted


OCTETS = st.integers(-1, 300).map(str) | st.sampled_from(["", "01", "00", "٣", "1 ", "+1", "²"])


@given(st.lists(OCTETS, min_size=3, max_size=5).map(".".join) | st.text(max_size=20))
def test_the_short_way_takes_only_what_the_long_one_writes_the_same(text):
    try:
        expected = str(ip_address(text)) == text and ":" not in text
    except ValueError:
        expected = False
    assert is_ipv4(text) == expected


@pytest.mark.parametrize("peer", ["203.0.113.7", "::ffff:203.0.113.7", "not an address", None])
def test_who_is_told_by_its_text_alone_is_the_same_client_as_by_its_networks(peer):
    by_text = Callers().caller_of(scope_of(peer))
    by_networks = Callers(trusted=[ip_network("10.0.0.0/8")]).caller_of(scope_of(peer))
    assert by_text.key == by_networks.key
    assert by_text.address == by_networks.address
    assert by_text.is_trusted is by_networks.is_trusted is False


def test_a_key_has_the_prefix_that_was_asked_for_last_and_first():
    callers = Callers(trusted_proxies=PROXIES)
    daily, burst = callers.keys_after(b"daily|c"), callers.keys_after(b"burst|c")
    for scope, key in [
        (scope_of("203.0.113.7"), b"203.0.113.7"),
        (scope_of(PROXY, *xff("198.51.100.7")), b"198.51.100.7"),
        (scope_of(None), NAMELESS),
    ]:
        assert [daily(scope), burst(scope), daily(scope), daily(scope)] == [
            b"daily|c" + key, b"burst|c" + key, b"daily|c" + key, b"daily|c" + key,
        ]  # fmt: skip


def test_what_is_remembered_is_bounded():
    callers = Callers(trusted_proxies=PROXIES)
    for number in range(REMEMBERED_MAX + 10):
        address = str(ip_address(number + 2**24))
        callers.client_of(scope_of(address))
        callers.client_of(scope_of(PROXY, *xff(address)))
    callers.client_of(scope_of("x" * 1_000))
    callers.client_of(scope_of(PROXY, *xff("1" * 1_000)))
    assert len(callers._peers) <= REMEMBERED_MAX
    assert len(callers._forwarded) <= REMEMBERED_MAX
    assert max(len(host) for host in callers._peers if host) < 100
    assert max(len(value) for _, value in callers._forwarded if value) < 300


def test_no_field_and_an_empty_one_are_remembered_apart():
    trusted = [ip_network("10.0.0.0/8")]
    callers = Callers(trusted_proxies=PROXIES, trusted=trusted)
    assert callers.trusts(scope_of(PROXY))
    assert not callers.trusts(scope_of(PROXY, *xff("")))
    assert callers.trusts(scope_of(PROXY))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8' has host bits: write 10.0.0.0/8, or 10.0.0.1 for the one"),
        ("proxy.internal", "'proxy.internal' is no network: write 10.0.0.0/8"),
        ("*", "is no network"),
        ("", "is no network"),
    ],
)
def test_a_bad_network_fails_in_clear_words(text, says):
    with pytest.raises(ValidationError, match=r"no network|host bits") as raised:
        CallersSettings(trusted_proxies=[text])
    assert says in str(raised.value)


def test_a_mapped_network_is_one_of_ipv4():
    assert network_of("::ffff:10.0.0.0/104") == ip_network("10.0.0.0/8")
    assert address_of("::ffff:10.1.2.3") in network_of("::ffff:10.0.0.0/104")


def test_the_settings_make_callers():
    callers = CallersSettings(
        trusted_proxies=["10.0.0.0/8", "unix"],
        forwarded_field="forwarded",
        trusted="192.168.0.0/16",
    ).make_callers()
    assert callers.client_of(scope_of(None, *forwarded("for=203.0.113.7"))) == b"203.0.113.7"
    assert callers.trusts(scope_of("192.168.1.1"))

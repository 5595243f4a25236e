"""Addresses and networks as texts give them: of a socket, of a forwarding field, of a setting."""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

ADDRESS_CHARS_MAX: Final = 64  # with a port and brackets 54; a zone may have some more
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_PORT_CHARS_MAX: Final = 5
_OCTETS: Final = frozenset(map(str, range(256)))


def address_of(text: str) -> Address | None:
    """The address in `text`, without its port, brackets and zone; None for anything else.

    One of IPv4 that is mapped into IPv6 is that of IPv4: a socket for both tells it so.
    Source: RFC 4291 §2.5.5.2; RFC 4007 §11 (zones); RFC 7239 §6.
    """
    if len(text) > ADDRESS_CHARS_MAX:
        return None
    host = text
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not (port[0] == ":" and _is_port(port[1:]))):
            return None
        if ":" not in host:
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not _is_port(port) or "." not in host:
            return None
    host, zone, _ = host.partition("%")
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if address.version == 4:
        return None if zone else address
    return address.ipv4_mapped or address


def is_ipv4(text: str) -> bool:
    """Whether it is an address of IPv4 as it is written, and nothing else: a tenth of the time."""
    parts = text.split(".")
    if len(parts) != 4:
        return False
    return _OCTETS.issuperset(parts)


def network_of(text: str) -> Network:
    """The network that a setting names: 10.0.0.0/8, 2001:db8::/32, or one address.

    Raises ValueError, in clear words, for what is none.
    """
    text = text.strip()
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError(_why_not(text)) from None
    if network.version == 6 and network.subnet_of(_MAPPED):
        # As those addresses are read: else it would never hold any.
        return IPv4Network((network.network_address.packed[12:], network.prefixlen - 96))
    return network


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """Each of them; raises ValueError as network_of does."""
    return tuple(network_of(text) for text in texts)


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of `networks` has it."""
    return any(address in network for network in networks)


def _why_not(text: str) -> str:
    try:
        meant = ip_interface(text)
    except ValueError:
        return f"{text!r} is no network: write 10.0.0.0/8, 2001:db8::/32, or one address"
    return f"{text!r} has host bits: write {meant.network}, or {meant.ip} for the one address"


def _is_port(text: str) -> bool:
    # An obfuscated one is a port, too: RFC 7239 §6.
    if text.startswith("_"):
        return len(text) > 1
    return 0 < len(text) <= _PORT_CHARS_MAX and text.isascii() and text.isdigit()

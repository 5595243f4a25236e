"""Who is the client: the address that asks, and what of a proxy's word is believed.

    client ----> proxy 2 ----> proxy 1 ----> us        scope["client"] is proxy 1
                 XFF: client   XFF: client, proxy 2    read from the right, while it is trusted

A forwarding field is read only where the peer itself is a declared proxy, and only as far to the
left as declared proxies have written it.  Where it stops to tell an address, the last proxy that
was reached is the caller: those requests share its quota, and nobody gets a fresh one by sending
garbage.  One field is read, never both: a proxy that writes one hands the other on as it came.
An address is remembered, so that a request costs a look-up.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.field_names import NAME
from perf_middleware.limits.forwarding import hops
from perf_middleware.limits.networks import ADDRESS_CHARS_MAX, address_of, is_in, is_ipv4

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from perf_middleware.limits.forwarding import FieldName
    from perf_middleware.limits.networks import Address, Network

REMEMBERED_MAX: Final = 10_000  # peers, and pairs of peer and field; then it starts anew
REMEMBERED_FIELD_BYTES_MAX: Final = 256  # a longer one is read each time
FIELDS: Final = frozenset({b"x-forwarded-for", b"forwarded"})
NAMELESS: Final = b"-"
"""The key of peers without an address: a unix socket, a name that a test gives."""


class Caller:
    """One client: its key, and its address where it has one."""

    __slots__ = ("_address", "is_trusted", "key", "key_after")

    def __init__(self, key: bytes, address: Address | str | None, *, is_trusted: bool) -> None:
        self.key = key
        self.is_trusted = is_trusted
        self._address = address  # as text until somebody asks
        self.key_after = b"", key
        """The newest prefix asked for, and the key behind it: bytes that stay know their hash."""

    @property
    def address(self) -> Address | None:
        address = self._address
        return address_of(address) if isinstance(address, str) else address


class Callers:
    """Tells the callers of requests apart.

    `trusted_proxies`: whose forwarding field (`header`) is believed; `trusts_nameless`: a peer
    without an address (a unix socket) is such a proxy, too.  `trusted`: the networks of services
    whose word on deadlines and criticality holds.  Clients are told apart by the first
    `ipv4_prefix` or `ipv6_prefix` bits: a household or a server has a /64 of IPv6 to itself.
    """

    def __init__(
        self,
        *,
        trusted_proxies: Sequence[Network] = (),
        header: FieldName = "x-forwarded-for",
        ipv4_prefix: int = 32,
        ipv6_prefix: int = 64,
        trusted: Sequence[Network] = (),
        trusts_nameless: bool = False,
    ) -> None:
        self.header: FieldName = header
        self._field = header.encode()
        self._proxies = tuple(trusted_proxies)
        self._trusted = tuple(trusted)
        self._trusts_nameless = trusts_nameless
        self._ipv4_prefix = ipv4_prefix
        self._ipv6_prefix = ipv6_prefix
        # Who is told apart by all of an address, and is of no network: its text says it all.
        self._tells_by_text = ipv4_prefix == 32 and not self._proxies and not self._trusted
        # None: a proxy, the field decides.
        self._peers: dict[str | None, Caller | None] = {}
        self.on_undeclared: Callable[[str], None] | None = None
        """Told once of a private address that forwards for others and was not declared."""
        self._forwarded: dict[tuple[str | None, bytes | None], Caller] = {}

    def client_of(self, scope: Mapping[str, Any]) -> bytes:
        """The key of the client that sends this request (or opens this websocket)."""
        client = scope.get("client")
        try:
            caller = self._peers[client[0] if client else None]
        except KeyError:
            caller = self.caller_of(scope)
        if caller is None:
            caller = self.caller_of(scope)
        return caller.key

    def keys_after(self, prefix: bytes) -> Callable[[Mapping[str, Any]], bytes]:
        """`client_of` with `prefix` before it."""
        peers = self._peers

        def key_of(scope: Mapping[str, Any]) -> bytes:
            caller = None
            try:
                client = scope["client"]
                if client:
                    caller = peers[client[0]]
            except KeyError:
                pass
            if caller is None:
                caller = self.caller_of(scope)
            before, key = caller.key_after
            if before is not prefix:
                key = prefix + caller.key
                caller.key_after = prefix, key
            return key

        return key_of

    def trusts(self, scope: Mapping[str, Any]) -> bool:
        """Whether the caller is in a trusted network."""
        return self.caller_of(scope).is_trusted

    def caller_of(self, scope: Mapping[str, Any]) -> Caller:
        """The client that sends this request; the same object at each call, as a rule."""
        client = scope.get("client")
        host: str | None = client[0] if client else None
        try:
            caller = self._peers[host]
        except KeyError:
            caller = self._learn(host, scope)
        return caller if caller is not None else self._behind(host, scope)

    def key_of(self, text: str) -> bytes:
        """The key of a client by its address; NAMELESS for what is none."""
        address = address_of(text)
        return NAMELESS if address is None else self._key(address)

    def _learn(self, host: str | None, scope: Mapping[str, Any]) -> Caller | None:
        if self._tells_by_text and host is not None and is_ipv4(host):
            caller: Caller | None = Caller(host.encode(), host, is_trusted=False)
            if self.on_undeclared is not None:
                self._note_undeclared(host, scope)
            return self._remember(host, caller)
        address = None if host is None else address_of(host)
        if address is None:
            # All that cannot be told apart is one caller.
            is_proxy = self._trusts_nameless and not host
            caller = None if is_proxy else Caller(NAMELESS, None, is_trusted=False)
        else:
            caller = None if is_in(address, self._proxies) else self._caller(address)
            if caller is not None and self.on_undeclared is not None:
                self._note_undeclared(address, scope)
        return self._remember(host, caller)

    def _remember(self, host: str | None, caller: Caller | None) -> Caller | None:
        if host is None or len(host) <= ADDRESS_CHARS_MAX:
            if len(self._peers) >= REMEMBERED_MAX:
                self._peers.clear()
            self._peers[host] = caller
        return caller

    def _note_undeclared(self, peer: Address | str, scope: Mapping[str, Any]) -> None:
        tell = self.on_undeclared
        if tell is None or FIELDS.isdisjoint(map(NAME, scope["headers"])):
            return
        # A client may send the field, too; one with a private address seldom does.
        address = address_of(peer) if isinstance(peer, str) else peer
        if address is None or not address.is_private:
            return
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        plain = b",".join(lines)
        if address in hops("x-forwarded-for", plain):
            # The server has read the field and put the client in the peer's place: no proxy is
            # undeclared, and to declare this client would let him name anybody.
            return
        self.on_undeclared = None
        tell(str(address))

    def _behind(self, host: str | None, scope: Mapping[str, Any]) -> Caller:
        field = self._field
        lines = [value for name, value in scope["headers"] if name == field]
        value: bytes | None = lines[0] if len(lines) == 1 else b",".join(lines) if lines else None
        key = (host, value)
        caller = self._forwarded.get(key)
        if caller is None:
            caller = self._resolve(None if host is None else address_of(host), value)
            if value is None or len(value) <= REMEMBERED_FIELD_BYTES_MAX:
                if len(self._forwarded) >= REMEMBERED_MAX:
                    self._forwarded.clear()
                self._forwarded[key] = caller
        return caller

    def _resolve(self, peer: Address | None, value: bytes | None) -> Caller:
        """The first address from the right that is no declared proxy; `value` None: no field."""
        last = peer
        if value is not None:
            for address in hops(self.header, value):
                if address is None:
                    # The proxy's quota, not its standing: it speaks for somebody unknown.
                    return self._caller(last, may_be_trusted=False)
                last = address
                if not is_in(address, self._proxies):
                    break
        return self._caller(last)

    def _caller(self, address: Address | None, *, may_be_trusted: bool = True) -> Caller:
        if address is None:
            return Caller(NAMELESS, None, is_trusted=False)
        is_trusted = may_be_trusted and is_in(address, self._trusted)
        return Caller(self._key(address), address, is_trusted=is_trusted)

    def _key(self, address: Address) -> bytes:
        if address.version == 4:
            prefix = self._ipv4_prefix
            if prefix == 32:
                return str(address).encode()
            return str(IPv4Network((int(address), prefix), strict=False)).encode()
        return str(IPv6Network((int(address), self._ipv6_prefix), strict=False)).encode()

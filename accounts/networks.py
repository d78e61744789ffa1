"""Networks of addresses: from where a client key may be used, and from where operators work."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

MAX_NETWORKS = 100
UNIX_SOCKET = "unix"


class Networks:
    """Addresses, networks, and "unix" for a Unix socket: `address in networks`."""

    def __init__(self, texts: Iterable[str]) -> None:
        texts = set(texts)
        self._has_socket = UNIX_SOCKET in texts
        self._networks = [ipaddress.ip_network(text) for text in texts - {UNIX_SOCKET}]

    def __contains__(self, address: str) -> bool:
        if address == UNIX_SOCKET:
            return self._has_socket
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self._networks)


def is_network(text: str) -> bool:
    """True for an address or a network of them, without bits that its mask leaves out.

    IPv4 addresses in the form of IPv6 are none: callers are compared by the IPv4 address that they have.
    """
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return False
    return "%" not in text and not (network.version == 6 and network.network_address.ipv4_mapped)

"""Which URLs an upstream may have, and which addresses may be connected to: public ones, unless the environment allows
private ones too. No part of this asks anybody; dial.py resolves names, and asks here about what they resolve to.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

MAX_URL_CHARACTERS = 1000
HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?")
# What resolvers read as an address though it does not look like one: 2130706433, 0x7f.1, 127.1.
NUMERIC = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")

GLOBAL_UNICAST = ip_network("2000::/3")
NAT64 = ip_network("64:ff9b::/96")
# `is_global` differs between versions of Python, and knows no cloud's inner addresses.
NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "240.0.0.0/4",
            "2001::/23",
            "2001:db8::/32",
            "3fff::/20",
        ),
    )
)
# Nobody runs models there, but clouds hand out credentials: not even private upstreams may have these.
METADATA = tuple(
    map(ip_network, ("168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "169.254.0.0/16", "fd00:ec2::/32"))
)

Address = IPv4Address | IPv6Address


class UnsafeAddress(ValueError):
    """An address that must not be connected to. The text says what would be accepted."""


def is_public(text: str) -> bool:
    """True if an IP address is somebody's on the internet; IPv4 within IPv6 counts as what it leads to."""
    address = _unwrapped(ip_address(text))
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    # A multicast address is "global" too.
    return address.is_global and not address.is_multicast and not _is_in(address, NOT_PUBLIC + METADATA)


def check_address(text: str, allow_private: bool) -> None:
    """Raise UnsafeAddress unless an IP address may be connected to."""
    if is_public(text):
        return
    if not allow_private:
        raise UnsafeAddress(
            "its host's address is not public; only the setting ALLOW_PRIVATE_UPSTREAMS lets such ones in"
        )
    address = _unwrapped(ip_address(text))
    if address.is_multicast or address.is_unspecified or address.is_link_local or _is_in(address, METADATA):
        raise UnsafeAddress("its host has an address at which no upstream can be")


def _unwrapped(address: Address) -> Address:
    """The IPv4 address to which an IPv6 address leads by translation or a tunnel; else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    address = IPv6Address(int(address))  # without its zone
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour or address
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else address


def _is_in(address: Address, networks: tuple[object, ...]) -> bool:
    return any(address in network for network in networks)  # type: ignore[operator]


def check_url(url: str, allow_private: bool) -> tuple[str, str, int]:
    """A base URL in its plain form, its host and its port. Raises UnsafeAddress with what is accepted.

    A name passes here; what it resolves to is checked whenever it is resolved.
    """
    if len(url) > MAX_URL_CHARACTERS or not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise UnsafeAddress(f"it must be a URL of at most {MAX_URL_CHARACTERS} ASCII characters, as https://host/v1")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UnsafeAddress("it must be a URL like https://host:443/v1") from None
    host = parts.hostname or ""
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise UnsafeAddress("it must begin with https://; only the setting ALLOW_PRIVATE_UPSTREAMS lets http in")
    if "@" in parts.netloc or "?" in url or "#" in url or not PATH.fullmatch(parts.path):
        raise UnsafeAddress("it must be https://host/path: no user, query, fragment, dot segments or escapes")
    if port == 0 or parts.netloc.endswith(":"):
        raise UnsafeAddress("its port must be a number from 1 to 65535")
    is_ipv6 = parts.netloc.startswith("[")
    try:
        literal: Address | None = ip_address(host)
    except ValueError:
        literal = None
    if literal is not None and is_ipv6 == isinstance(literal, IPv6Address) and "%" not in host:
        check_address(str(literal), allow_private)
    elif is_ipv6 or not HOST.fullmatch(host) or NUMERIC.fullmatch(host):
        raise UnsafeAddress("its host must be a name, an IPv4 address of four numbers, or an IPv6 address in brackets")
    default = 443 if parts.scheme == "https" else 80
    authority = f"[{host}]" if is_ipv6 else host
    if port not in {None, default}:
        authority += f":{port}"
    return f"{parts.scheme}://{authority}{parts.path.rstrip('/')}", host, port or default

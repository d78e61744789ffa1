"""Which address a request comes from: the connection's, or what a trusted reverse proxy says of it."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from accounts.caller import Caller
from accounts.networks import UNIX_SOCKET, Networks
from foundation.logs import event

log = logging.getLogger("http")

CACHED_ADDRESSES = 10_000
LONGEST_ADDRESS = 45  # characters; longer texts are not kept
# An address with its port, as Azure's gateways write it; an IPv6 address in brackets, with a port or without; either
# in quotes, as in the header Forwarded.
WITH_PORT = re.compile(r'("?)(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?\1')
FORWARDED_FOR = "forwarded-for"  # in a process's report


@dataclass(frozen=True, slots=True)
class _Known:
    """What is to be known of one address. person: the address to count by."""

    address: str
    person: str
    is_trusted: bool


class ClientAddresses:
    """Finds the client's address of a request.

    trusted: networks of reverse proxies, and "unix" for a Unix socket. operators: those that operators work from; none
    for any.
    """

    def __init__(self, trusted: Iterable[str], operators: Collection[str] = ()) -> None:
        self._trusted = Networks(trusted)
        self._operators = Networks(operators) if operators else None
        self._socket = _Known(UNIX_SOCKET, UNIX_SOCKET, UNIX_SOCKET in self._trusted)
        self.not_believed = ""
        """The first address without trust that sent X-Forwarded-For to this process."""
        self._look_up = lru_cache(CACHED_ADDRESSES)(self._parse)

    def of(self, environ: dict[str, Any]) -> str:
        """The client's address, to count by: an IPv4 address, an IPv6 network of 64 bits, or "unix"."""
        return self._find(environ).person

    def check(self, caller: Caller, environ: dict[str, Any]) -> None:
        """Refuse a client key that may not be used from where this request comes from. Raises Forbidden."""
        key = caller.client_key
        if key is not None and key.addresses is not None:
            key.check_address(self.exact(environ))

    def is_for_operators(self, environ: dict[str, Any]) -> bool:
        """True if operators may work from where this request comes from."""
        return self._operators is None or self.exact(environ) in self._operators

    def exact(self, environ: dict[str, Any]) -> str:
        """The client's address itself, or "unix"."""
        return self._find(environ).address

    def _find(self, environ: dict[str, Any]) -> _Known:
        """Whom the request comes from.

        X-Forwarded-For counts only if the connection comes from a trusted proxy. It is read from the right, where the
        nearest proxy has written: the first address that is no trusted proxy's is the client's. What stands further
        left the client can have made up.
        """
        # Both servers leave REMOTE_ADDR without an address for Unix sockets.
        known = self._look_up(environ.get("REMOTE_ADDR") or "") or self._socket
        if not known.is_trusted:
            if not self.not_believed and "HTTP_X_FORWARDED_FOR" in environ:
                self._tell(known.person)
        else:
            rest = environ.get("HTTP_X_FORWARDED_FOR", "")
            while rest and known.is_trusted:
                rest, _, text = rest.rpartition(",")
                text = _without_port(text.strip(" \t"))
                if len(text) > LONGEST_ADDRESS or not (further := self._look_up(text)):
                    break
                known = further
        return known

    def _tell(self, person: str) -> None:
        """Say once that a reverse proxy may be there that nobody trusts: all of its clients count as one address."""
        self.not_believed = person
        event(log, "forwarded_for_not_believed", logging.WARNING, address=person, setting="TRUSTED_PROXIES")

    def report(self) -> dict[str, dict[str, Any]]:
        """For the process's report: whose X-Forwarded-For was not believed, if anybody's."""
        return {FORWARDED_FOR: {"health": "ok", "reason": self.not_believed}} if self.not_believed else {}

    def _parse(self, text: str) -> _Known | None:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        is_trusted = str(address) in self._trusted
        if isinstance(address, ipaddress.IPv4Address):
            return _Known(str(address), str(address), is_trusted)
        # A household, or one machine at a hoster, has 2^64 of them to change between.
        return _Known(str(address), str(ipaddress.ip_network((int(address) >> 64 << 64, 64))), is_trusted)


def _without_port(text: str) -> str:
    found = WITH_PORT.fullmatch(text)
    return found.group(2) or found.group(3) if found else text

"""How connections leave the gateway: directly, through an HTTP proxy, or only to addresses that are safe.

A dial is a function of host, port and deadline that returns a connected socket, or raises OSError; its CannotConnect
says why in words that may be logged. It blocks until the deadline is over, and while a name is being resolved even
longer: whoever can't wait that long dials in a thread of its own (http.py). Nothing here reads proxies or anything else
from the environment.
"""

from __future__ import annotations

import base64
import errno
import re
import socket
from collections.abc import Callable, Sequence
from urllib.parse import unquote, urlsplit

from foundation.deadline import Deadline
from upstream.safe_address import UnsafeAddress, check_address, check_url, is_public

Dial = Callable[[str, int, Deadline], socket.socket]
Resolve = Callable[[str, int], list[str]]

MAX_PROXY_HEAD_BYTES = 16 * 1024
STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


def no_files_left(failure: OSError) -> bool:
    """Whether a connection failed because this process may open no more files.

    Looking a name up needs files as well, and its failure does not say so: then we try to open one.
    """
    if failure.errno not in {errno.EMFILE, errno.ENFILE} and isinstance(failure, socket.gaierror | CannotConnect):
        try:
            socket.socket().close()
        except OSError as error:
            failure = error
    return failure.errno in {errno.EMFILE, errno.ENFILE}


class CannotConnect(OSError):
    """Why there is no connection, in words without secrets."""


def dial_directly(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Connect to whatever the name resolves to. Raises OSError."""
    return _dial_any(resolve(host, port), port, deadline)


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system knows them, in its order. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class HttpProxy:
    """Tunnels through an HTTP proxy (CONNECT), which resolves the names. url: http://user:password@host:port."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._authorization = ""
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._authorization = f"Proxy-Authorization: Basic {base64.b64encode(secret).decode()}\r\n"

    def dial(self, host: str, port: int, deadline: Deadline) -> socket.socket:
        """A connection to the host through the proxy. Raises CannotConnect."""
        try:
            sock = dial_directly(*self._address, deadline)
        except OSError as error:
            raise CannotConnect(f"{type(error).__name__} while connecting to the outbound proxy") from None
        try:
            target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{self._authorization}\r\n"
            sock.settimeout(_seconds(deadline))
            sock.sendall(head.encode("ascii"))
            status = _tunnel_status(sock, deadline)
            if not 200 <= status < 300:
                raise CannotConnect(_refusal(status))
        except OSError as error:
            sock.close()
            if isinstance(error, CannotConnect):
                raise
            raise CannotConnect(f"{type(error).__name__} while the outbound proxy was connecting") from None
        except BaseException:
            sock.close()
            raise
        return sock


def _tunnel_status(sock: socket.socket, deadline: Deadline) -> int:
    """The status of the proxy's answer, whose head is read to its end. Raises OSError."""
    head = b""
    while b"\r\n\r\n" not in head:
        sock.settimeout(_seconds(deadline))
        piece = sock.recv(4096)
        head += piece
        if not piece or len(head) > MAX_PROXY_HEAD_BYTES:
            raise CannotConnect("the outbound proxy closed the connection, or speaks no HTTP")
    found = STATUS.match(head)
    if not found:
        raise CannotConnect("the outbound proxy speaks no HTTP")
    status = int(found[1])
    if status < 300 and not head.endswith(b"\r\n\r\n"):  # who is called never speaks first, neither in TLS nor in HTTP
        raise CannotConnect("the outbound proxy sent more than its answer")
    return status


def _refusal(status: int) -> str:
    reasons = {
        403: "does not allow this host",
        407: "did not accept the user and password of OUTBOUND_PROXY",
        502: "could not reach the host",
        503: "could not reach the host",
        504: "did not reach the host in time",
    }
    return f"the outbound proxy {reasons.get(status, 'refused the connection')} ({status})"


class GuardedDial:
    """Connects to upstreams: only to addresses that may be connected to, checked at each connection.

    A name is resolved once and the connection goes to an address that was checked, so that a second answer of its name
    server changes nothing. Through a proxy, it is the proxy that resolves: a name that is private here is refused, but
    what it is there is the proxy's to judge. Private upstreams never go through it.
    """

    def __init__(self, allow_private: bool, proxy: HttpProxy | None = None, resolve: Resolve = resolve) -> None:
        self._allow_private = allow_private
        self._proxy = proxy
        self._resolve = resolve

    def check_url(self, url: str) -> str:
        """A base URL in its plain form. Raises UnsafeAddress; what does not resolve now passes, since it may later."""
        plain, host, port = check_url(url, self._allow_private)
        try:
            self._checked(host, port)
        except OSError:
            pass
        return plain

    def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = self._resolve(host, port)
        except UnicodeError:  # a label that is too long
            raise CannotConnect("the host's name can't be resolved") from None
        for address in addresses:  # one bad one is enough: whoever answers like this is not to be trusted
            check_address(address, self._allow_private)
        return addresses

    def dial(self, host: str, port: int, deadline: Deadline) -> socket.socket:
        """A connection to the host. Raises OSError; CannotConnect if its address is not one to connect to."""
        try:
            addresses = self._checked(host, port)
        except UnsafeAddress as error:
            raise CannotConnect(f"not connected: {error}") from None
        except OSError:
            if not self._proxy:
                raise CannotConnect("the host's name does not resolve") from None
            addresses = []
        if self._proxy and all(map(is_public, addresses)):
            return self._proxy.dial(host, port, deadline)
        return _dial_any(addresses, port, deadline)


def _dial_any(addresses: Sequence[str], port: int, deadline: Deadline) -> socket.socket:
    """A connection to the first address that takes one. They share the time, so that a silent one leaves some."""
    failure: OSError = CannotConnect("the host's name has no address")
    for number, address in enumerate(addresses):
        try:
            return socket.create_connection((address, port), _seconds(deadline) / (len(addresses) - number))
        except OSError as error:
            failure = error
    raise failure


def _seconds(deadline: Deadline) -> float:
    """What is left, as a socket takes it: 0 would mean something else."""
    return max(deadline.left, 0.001)

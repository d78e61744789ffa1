"""The sockets that this process listens on: whether it can, how long a client may leave unread what it is being sent.

What is set on a listening socket holds for every connection that is taken from it, under both servers.
"""

from __future__ import annotations

import os
import resource
import socket
import stat
import sys
from collections.abc import Iterator

WANTED_FILES = 20_000  # connections of clients, connections upstream, and what is open besides
OTHER_FILES = 250  # of log-ins, pages, the database, the journal and libraries


def limit_unread(seconds: float) -> None:
    """End connections whose client has taken nothing of what was sent for so long. Linux only."""
    if sys.platform != "linux":
        return
    with os.scandir("/proc/self/fd") as entries:
        numbers = [int(entry.name) for entry in entries]
    for number in numbers:
        for sock in _listener(number):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


def _listener(number: int) -> Iterator[socket.socket]:
    """The TCP socket of this number, if it listens; borrowed."""
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return
        sock = socket.socket(fileno=number)
    except OSError:
        return
    try:
        is_tcp = sock.type is socket.SOCK_STREAM and sock.family in {socket.AF_INET, socket.AF_INET6}
        if is_tcp and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield sock
    finally:
        sock.detach()


def why_not(host: str, port: int) -> str | None:
    """Why nobody can listen there, in one line; None if one can.

    granian does not find out: it listens with SO_REUSEPORT, and would silently share a port with whoever has it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, UnicodeError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "no such host"
            return f"can't listen on {host}:{port} ({reason}); set HOST and PORT"
    return None


def files_of(calls: int) -> int:
    """How many files a process opens that carries so many calls at once: two for each, and what is open besides."""
    return 2 * calls + OTHER_FILES


def allow_open_files() -> int:
    """Let this process, and what it becomes, open as many files as are wanted here, if it may; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return WANTED_FILES if soft == resource.RLIM_INFINITY else soft

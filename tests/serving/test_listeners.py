"""What is set on listening sockets, and how many files may be open."""

from __future__ import annotations

import resource
import socket

import psutil

from serving import listeners
from tests.support.gateway import run, start_gateway, wait_for
from tests.support.rows import each_row


def test_connections_of_our_listeners_end_when_nothing_is_taken_for_so_long():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as not_listening:
        listeners.limit_unread(1.5)
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as taken:
            option = socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT
            assert [sock.getsockopt(*option) for sock in (listener, taken)] == [1500, 1500]
            assert [sock.getsockopt(*option) for sock in (client, not_listening)] == [0, 0]
        listener.getsockname()  # borrowed, not closed


def test_as_many_files_may_be_open_as_the_system_allows():
    lowered = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))"
    asked = "print(listeners.allow_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    ended = run("-c", f"import resource; from serving import listeners; {lowered}; {asked}")
    assert ended.stdout == "128 128\n", ended.stderr
    assert listeners.WANTED_FILES >= 2 * 4096
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_start_says_so_if_too_few_files_may_be_open(tmp_path):
    lowered = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))"
    for threads, words in ((1100, "few_files files=512 needed=2450 server_threads=1100"), (100, "")):
        checked = f"import resource, app; {lowered}; app.tell_of_few_files(app.configure())"
        ended = run("-c", checked, DATA_DIR=tmp_path, SERVER_THREADS=threads)
        assert ended.returncode == 0, ended.stderr
        assert ("few_files" in ended.stderr) == bool(words)
        assert words in ended.stderr


@each_row("server", ["granian", "gunicorn"])
def test_both_servers_raise_the_limit_of_open_files(tmp_path, server):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    few = {"most_files": 500, "SERVER": server, "SERVER_THREADS": 16}
    gateway = start_gateway(tmp_path / server, by_app_py=True, DATA_DIR=tmp_path, **few)
    try:
        wanted = listeners.WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, listeners.WANTED_FILES)
        children = wait_for(lambda: psutil.Process(gateway.process.pid).children())
        for process in (gateway.process, *children):
            assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0] == wanted
    finally:
        gateway.stop()


def test_says_why_nobody_can_listen_at_an_address():
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        port = taken.getsockname()[1]
        assert "Address already in use" in listeners.why_not("127.0.0.1", port)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert listeners.why_not("127.0.0.1", port) is None
    for host, number in (
        ("no.such.host.invalid", port),
        ("x" * 80, port),
        ("203.0.113.7", port),
        ("127.0.0.1", 70_000),
    ):
        assert listeners.why_not(host, number).startswith(f"can't listen on {host}:{number} (")

"""Connections out: to the address that was checked and to no other, directly or through a real proxy."""

from __future__ import annotations

import errno
import json
import resource
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foundation.deadline import Deadline
from tests.support.connect_proxy import ConnectProxy
from tests.support.gateway import free_port
from tests.support.scripted_upstream import CLOSE, ScriptedUpstream, json_answer
from upstream.connection import ConnectFailed
from upstream.dial import CannotConnect, GuardedDial, HttpProxy, no_files_left, resolve
from upstream.http import UpstreamHttp
from upstream.safe_address import UnsafeAddress

PUBLIC = "93.184.215.14"


class Names:
    """A resolver that answers something else each time; the last answer stays."""

    def __init__(self, *answers: list[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


class Canary:
    """A server on the loopback that notes whether anybody ever connected."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def was_called(self) -> bool:
        self.listener.settimeout(0.2)
        try:
            self.listener.accept()[0].close()
            return True
        except TimeoutError:
            return False


@pytest.fixture
def canary() -> Iterator[Canary]:
    made = Canary()
    yield made
    made.listener.close()


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    scripted.play("", json_answer("200 OK", b"{}"))
    yield scripted
    scripted.close()


@pytest.fixture
def new_proxy() -> Iterator[Callable[..., ConnectProxy]]:
    made: list[ConnectProxy] = []

    def make(*args, **kwargs) -> ConnectProxy:
        made.append(ConnectProxy(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def get(url: str, dial) -> tuple[int, bytes]:
    http = UpstreamHttp(url, 2, dial=dial)
    try:
        return http.get("/models", b"", 5, 1000)
    finally:
        http.close()


# ── guarded


@pytest.mark.parametrize("answer", [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["::ffff:127.0.0.1"], ["::1"], ["0.0.0.0"]])
def test_a_name_that_leads_inside_is_not_connected_to(canary, answer):
    guarded = GuardedDial(allow_private=False, resolve=Names(answer))
    with pytest.raises(CannotConnect, match="not public"):
        guarded.dial("models.example", canary.port, Deadline(2))
    with pytest.raises(UnsafeAddress):
        guarded.check_url(f"https://models.example:{canary.port}/v1")
    assert not canary.was_called()


def test_a_name_that_is_public_when_it_is_saved_and_private_afterwards_is_not_connected_to(canary):
    names = Names([PUBLIC], ["127.0.0.1"])
    guarded = GuardedDial(allow_private=False, resolve=names)
    guarded.check_url(f"https://models.example:{canary.port}/v1")
    with pytest.raises(ConnectFailed, match="not public"):
        get(f"https://models.example:{canary.port}/v1", guarded.dial)
    assert names.asked == [("models.example", canary.port)] * 2
    assert not canary.was_called()


def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(upstream):
    """What a name server says a moment later has no say: between check and connection nobody is asked again."""
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    guarded = GuardedDial(allow_private=True, resolve=names)
    with guarded.dial("models.example", upstream.port, Deadline(2)) as sock:
        assert sock.getpeername() == ("127.0.0.1", upstream.port)
    assert len(names.asked) == 1


def test_the_next_address_is_tried_if_the_first_does_not_answer(upstream):
    guarded = GuardedDial(allow_private=True, resolve=Names(["127.0.0.2", "127.0.0.1"]))
    listener = socket.create_server(("127.0.0.2", 0))  # so that another port of it is surely closed
    listener.close()
    with guarded.dial("models.example", upstream.port, Deadline(2)) as sock:
        assert sock.getpeername()[1] == upstream.port


def test_what_does_not_resolve_is_said_so_and_may_be_saved():
    guarded = GuardedDial(allow_private=False, resolve=Names(OSError("no such name")))
    assert guarded.check_url("https://models.example/v1/") == "https://models.example/v1"
    with pytest.raises(CannotConnect, match="does not resolve"):
        guarded.dial("models.example", 443, Deadline(2))


def test_the_systems_resolver_reads_odd_spellings_and_they_are_refused_too(canary):
    assert resolve("2130706433", canary.port) == ["127.0.0.1"]
    for host in ("2130706433", "0x7f.1", "127.1", "localhost", "x" * 70 + ".example"):
        with pytest.raises(CannotConnect):
            GuardedDial(allow_private=False).dial(host, canary.port, Deadline(2))
    assert not canary.was_called()


def test_a_redirect_is_an_answer_and_leads_nowhere(upstream, canary):
    for status in ("301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
        location = f"Location: http://127.0.0.1:{canary.port}/latest/meta-data\r\n"
        upstream.play("", json_answer(status, b"", location))
        assert get(upstream.url, GuardedDial(allow_private=True).dial) == (int(status[:3]), b"")
    assert not canary.was_called()


# ── through a proxy


def test_a_request_goes_through_the_proxy_with_its_password(new_proxy, upstream):
    proxy = new_proxy("someone", "p@ss/wörd")
    url = f"http://someone:p%40ss%2Fw%C3%B6rd@127.0.0.1:{proxy.port}"
    assert get(upstream.url, HttpProxy(url).dial) == (200, b"{}")
    assert proxy.tunnels == [f"127.0.0.1:{upstream.port}"]


@pytest.mark.parametrize(
    ("status", "words"), [(407, "user and password"), (502, "could not reach"), (403, "not allow"), (418, "refused")]
)
def test_a_proxys_refusal_is_told_without_its_password(new_proxy, upstream, status, words):
    proxy = new_proxy("someone", "right-password" if status != 407 else "other-password")
    proxy.refuse = status
    with pytest.raises(ConnectFailed, match=rf"outbound proxy .*{words}.*\({status}\)") as raised:
        get(upstream.url, HttpProxy(f"http://someone:right-password@127.0.0.1:{proxy.port}").dial)
    assert "right-password" not in repr(raised.value)
    assert raised.value.__cause__ is None


def test_a_proxy_that_is_away_or_speaks_no_http_is_said_so(upstream):
    with pytest.raises(ConnectFailed, match="while connecting to the outbound proxy"):
        get(upstream.url, HttpProxy(f"http://127.0.0.1:{free_port()}").dial)
    for answer in (
        b"SSH-2.0-x\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n\r\nand more",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 20_000,
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def play(listener=listener, answer=answer):
                connection, _ = listener.accept()
                connection.recv(4096)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(4096)
                connection.close()

            thread = threading.Thread(target=play, daemon=True)
            thread.start()
            with pytest.raises(ConnectFailed, match="outbound proxy"):
                get(upstream.url, HttpProxy(f"http://127.0.0.1:{listener.getsockname()[1]}").dial)
            thread.join(10)


def test_a_silent_proxy_is_given_up_in_time(upstream):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http = UpstreamHttp(upstream.url, 0.2, dial=HttpProxy(f"http://127.0.0.1:{listener.getsockname()[1]}").dial)
        with pytest.raises(ConnectFailed, match="TimeoutError while the outbound proxy"):
            http.get("/models", b"", 5, 1000)


def test_names_are_the_proxys_to_resolve_but_what_is_private_here_is_refused(new_proxy, canary, upstream):
    """A place where only the proxy can resolve names is why there is a proxy."""
    proxy = new_proxy(hosts={"models.example": "127.0.0.1"})
    through = HttpProxy(proxy.url)
    url = f"http://models.example:{upstream.port}/api/v1"
    unknown = GuardedDial(allow_private=False, proxy=through, resolve=Names(OSError("no such name")))
    assert get(url, unknown.dial) == (200, b"{}")
    public = GuardedDial(allow_private=False, proxy=through, resolve=Names([PUBLIC]))
    assert get(url, public.dial) == (200, b"{}")
    assert proxy.tunnels == [f"models.example:{upstream.port}"] * 2
    private = GuardedDial(allow_private=False, proxy=through, resolve=Names(["10.0.0.1"]))
    for host in ("models.example", "127.0.0.1", "::1"):
        with pytest.raises(CannotConnect, match="not public"):
            (private if host == "models.example" else GuardedDial(False, through)).dial(host, canary.port, Deadline(2))
    assert len(proxy.tunnels) == 2
    assert not canary.was_called()


def test_a_private_upstream_is_reached_past_the_proxy(new_proxy, upstream):
    proxy = new_proxy()
    assert get(upstream.url, GuardedDial(allow_private=True, proxy=HttpProxy(proxy.url)).dial) == (200, b"{}")
    assert proxy.tunnels == []


@pytest.fixture
def tls_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedUpstream]:
    """Its certificate is for models.example alone."""
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=models.example"]
    command += ["-addext", "subjectAltName=DNS:models.example", "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    names: list[str] = []
    scripted = ScriptedUpstream(context)
    scripted.names = names  # type: ignore[attr-defined]
    scripted.play("m", json_answer("200 OK", b"{}"), CLOSE)
    yield scripted
    scripted.close()


@pytest.mark.parametrize("through_proxy", [False, True])
def test_tls_names_the_host_and_checks_its_certificate_though_the_address_was_looked_up_here(
    tls_upstream, new_proxy, through_proxy
):
    if through_proxy:
        proxy = new_proxy(hosts={"models.example": "127.0.0.1", "other.example": "127.0.0.1"})
        guarded = GuardedDial(allow_private=False, proxy=HttpProxy(proxy.url), resolve=Names([PUBLIC]))
    else:
        guarded = GuardedDial(allow_private=True, resolve=Names(["127.0.0.1"]))
    http = UpstreamHttp(f"https://models.example:{tls_upstream.port}/v1", 2, dial=guarded.dial)
    exchange = http.exchange(http.request_line("POST", "/x"), json.dumps({"model": "m"}).encode())
    exchange.wait_head(Deadline(5))
    assert exchange.status == 200
    exchange.close()
    assert tls_upstream.names == ["models.example"]
    assert tls_upstream.received[0].headers()["host"] == f"models.example:{tls_upstream.port}"
    with pytest.raises(ConnectFailed, match="SSLCertVerificationError"):
        get(f"https://other.example:{tls_upstream.port}/v1", guarded.dial)


def test_proxies_of_the_environment_are_not_used(upstream, new_proxy, monkeypatch):
    proxy = new_proxy()
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    assert get(upstream.url, GuardedDial(allow_private=True).dial) == (200, b"{}")
    assert proxy.tunnels == []


def test_a_lookup_that_fails_for_want_of_files_is_told_from_a_name_that_there_is_not():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    failures = CannotConnect("the host's name does not resolve"), socket.gaierror(socket.EAI_AGAIN, "again")
    assert [no_files_left(failure) for failure in failures] == [False, False]
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        found = [no_files_left(failure) for failure in (*failures, ConnectionRefusedError(errno.ECONNREFUSED, ""))]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == [True, True, False]

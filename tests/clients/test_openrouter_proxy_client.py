"""The Python client against a real socket server that answers byte for byte what each test says."""

import dataclasses
import json
import select
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import openrouter_proxy_client
import pytest
from openrouter_proxy_client import KdfParameters, KeyDerivationRefused, ProxyClient, ProxyError, derive_key

from tests.support.gateway import ROOT

WAIT = 5.0
MESSAGES = [{"role": "user", "content": "Hello"}]
EVENT_STREAM = "Content-Type: text/event-stream; charset=utf-8"
TOKEN = "token-of-the-user"
NEW_TOKEN = "next-token-of-the-user"
REFRESH_TOKEN = "refresh-token-of-the-user"
NEW_REFRESH_TOKEN = "next-refresh-token-of-the-user"
CHAT = "/v1/chat/completions"
REFRESH = "/api/auth/refresh"
NEW_TOKENS = {"access_token": NEW_TOKEN, "refresh_token": NEW_REFRESH_TOKEN}


class Gateway:
    """Serves one answer per connection and keeps each request it received."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: dict[str, Callable[[socket.socket], None]] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as reader:
                connection.settimeout(WAIT)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                request_line = reader.readline().decode()
                if not request_line:
                    return
                headers = dict(line.decode().strip().split(": ", 1) for line in iter(reader.readline, b"\r\n"))
                body = reader.read(int(headers.get("Content-Length", 0)))
                path = request_line.split()[1]
                self.requests.append((path, headers, body))
                # A client may hang up before the end, for example at [DONE].
                with suppress(ConnectionError):
                    self.answers[path](connection)

    def wait_for_another(self) -> None:
        """Until somebody else has connected, too."""
        assert select.select([self._listener], [], [], WAIT)[0]

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]

    def stop(self) -> None:
        # A connection without a request is the sign to stop.
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(WAIT)
        self._listener.close()

    def answer(self, path: str, body: bytes | dict, status: str = "200 OK", *headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "text/html" if isinstance(body, bytes) else "application/json"
        head = answer_head(status, f"Content-Type: {kind}", f"Content-Length: {len(content)}", *headers)
        self.answers[path] = lambda connection: connection.sendall(head + content)

    def stream(self, parts: list[bytes]) -> None:
        def send(connection: socket.socket) -> None:
            connection.sendall(answer_head("200 OK", EVENT_STREAM, "Transfer-Encoding: chunked"))
            for part in [*parts, b""]:
                connection.sendall(http_chunk(part))

        self.answers["/v1/chat/completions"] = send


def answer_head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode()


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(content: str) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": content}}]}


def data_line(chunk: dict) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode()


@pytest.fixture
def start_gateway() -> Iterator[Callable[[], Gateway]]:
    started: list[Gateway] = []

    def start() -> Gateway:
        started.append(Gateway())
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()


@pytest.fixture
def gateway(start_gateway, published) -> Gateway:
    gateway = start_gateway()
    gateway.answer("/api/auth/kdf", published)
    return gateway


@pytest.fixture
def client(gateway) -> Iterator[ProxyClient]:
    with ProxyClient(gateway.url, timeout=WAIT) as client:
        client.token = TOKEN
        yield client


def everything_said_by(problem: BaseException | None) -> str:
    """All that a log or an error tracker would keep, chained exceptions included."""
    said = []
    while problem:
        said += [str(problem), repr(problem), repr(vars(problem)), *traceback.format_exception(problem)]
        for part in vars(problem).values():
            said.append(repr(getattr(part, "__dict__", "")))
        problem = problem.__cause__ or problem.__context__
    return "\n".join(said)


class TestDeriveKey:
    def test_vectors(self, vectors):
        for vector in vectors:
            parameters = KdfParameters(domain=vector["domain"])
            assert derive_key(vector["email"], vector["password"], parameters) == vector["derived_key"]

    def test_vectors_tell_code_points_from_other_units(self, vectors):
        assert any(vector["password"].startswith("🔑") and len(vector["password"]) > 6 for vector in vectors)

    @pytest.mark.parametrize(
        "change",
        [
            {"time_cost": 1},
            {"memory_kib": 1952},
            {"memory_kib": 2**40},
            {"memory_kib": "1953"},
            {"parallelism": 0},
            {"parallelism": True},
            {"hash_len": 63},
            {"algorithm": "argon2i"},
            {"domain": ""},
            {"domain": None},
        ],
        ids=str,
    )
    def test_refuses_weaker_parameters(self, change):
        with pytest.raises(KeyDerivationRefused, match=next(iter(change))):
            KdfParameters(**change)

    def test_parameters_cannot_be_weakened_afterwards(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            KdfParameters().time_cost = 1

    @pytest.mark.parametrize(
        ("username", "password", "reason"),
        [
            ("user", "secret-\ud83d", "the password is not valid Unicode"),
            ("us\udd11er", "secret-1", "the username is not valid Unicode"),
            ("user", "", "the password is empty"),
            ("", "secret-1", "the username is empty"),
        ],
    )
    def test_refuses_texts_that_have_no_key(self, username, password, reason):
        with pytest.raises(KeyDerivationRefused, match=reason) as refused:
            derive_key(username, password)
        assert "secret-" not in everything_said_by(refused.value)

    def test_command_line_reads_the_password_from_stdin(self, vectors, gateway):
        vector = vectors[2]
        for options in ([], ["--server", gateway.url]):
            command = [sys.executable, openrouter_proxy_client.__file__, "derive", vector["email"], *options]
            finished = subprocess.run(
                command, input=vector["password"].encode() + b"\r\n", capture_output=True, check=False
            )
            assert finished.stdout.decode().strip() == vector["derived_key"], finished.stderr
        assert [path for path, _, _ in gateway.requests] == ["/api/auth/kdf"]

    def test_command_line_does_not_repeat_a_bad_password(self):
        command = [sys.executable, openrouter_proxy_client.__file__, "derive", "user"]
        finished = subprocess.run(command, input=b"secret-\xff\n", capture_output=True, check=False)
        assert finished.returncode == 1
        assert finished.stderr.strip() == b"error: the password is not valid Unicode"


class TestPin:
    FOREIGN = "novelai_data_access_key"

    def is_refused(self, gateway, reason, **options):
        with ProxyClient(gateway.url, WAIT, **options) as client, pytest.raises(KeyDerivationRefused, match=reason):
            client.login("user@example.com", "hunter2")
        assert set(gateway.paths()) == {"/api/auth/kdf"}

    def test_another_services_domain_is_taken_only_if_it_is_told_by_name(self, gateway, published):
        gateway.answer("/api/auth/kdf", published | {"domain": self.FOREIGN})
        self.is_refused(gateway, self.FOREIGN)
        self.is_refused(gateway, self.FOREIGN, domain="another")
        with ProxyClient(gateway.url, WAIT, domain=self.FOREIGN) as client:
            pin = client.pin()
        with ProxyClient(gateway.url, WAIT, pin=pin) as client:
            assert client.parameters().domain == self.FOREIGN

    def test_what_was_pinned_at_the_sign_up_holds(self, gateway, published):
        stronger = published | {"time_cost": 3}
        gateway.answer("/api/auth/kdf", stronger)
        with ProxyClient(gateway.url, WAIT) as client:
            pin = json.loads(json.dumps(client.pin()))
        for change in ({"time_cost": 2}, {"memory_kib": 4096}, {"domain": "openrouter-proxy-other"}):
            gateway.answer("/api/auth/kdf", stronger | change)
            self.is_refused(gateway, "otherwise than it did at the sign-up", pin=pin)
            with ProxyClient(gateway.url, WAIT) as client:
                client.parameters()
        gateway.answer("/api/auth/kdf", stronger)
        with ProxyClient(gateway.url, WAIT, pin=pin) as client:
            assert client.pin() == pin
        with pytest.raises(ValueError, match=r"The pin is of http://127"):
            ProxyClient("https://gateway.example", pin=pin)

    def test_http_to_a_public_name_needs_a_switch(self):
        for host in ("gateway.example", "8.8.8.8", "134744072", "[2001:4860:4860::8888]", "172.32.0.1", "10.example"):
            with pytest.raises(ValueError, match="use https"):
                ProxyClient(f"http://{host}")
            ProxyClient(f"http://{host}", allows_http=True)
            ProxyClient(f"https://{host}")
        for host in ("localhost:5000", "127.0.0.1", "[::1]:5000", "10.1.2.3", "192.168.1.9", "gateway", "box.local"):
            ProxyClient(f"http://{host}")


class TestAccount:
    def test_parameters_are_fetched_once(self, gateway, client):
        assert client.parameters() == client.parameters() == KdfParameters()
        assert len(gateway.requests) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"time_cost": 1},
            {"memory_kib": None},
            {"salt": {"algorithm": "blake2b", "digest_bytes": 16, "password_prefix_characters": 60}},
            {"encoding": "hex"},
            {"length": 32},
        ],
        ids=str,
    )
    def test_downgrade_by_the_server_is_refused_before_a_key_is_sent(self, gateway, client, published, change):
        gateway.answer("/api/auth/kdf", {**published, **change})
        with pytest.raises(KeyDerivationRefused, match=next(iter(change))):
            client.login("user@example.com", "hunter2")
        assert [path for path, _, _ in gateway.requests] == ["/api/auth/kdf"]

    def test_register_and_login(self, gateway, vectors):
        vector = vectors[0]
        gateway.answer("/register", {"message": "User registered successfully"}, "201 Created")
        tokens = {"token": TOKEN, "access_token": TOKEN, "refresh_token": REFRESH_TOKEN}
        gateway.answer("/login", {"message": "Login successful", **tokens, "expires_in": 60})
        gateway.answer("/v1/chat/completions", {"choices": []})
        with ProxyClient(gateway.url + "/", WAIT) as client:
            assert client.register(vector["email"], vector["password"]) == {"message": "User registered successfully"}
            assert client.login(vector["email"], vector["password"])["expires_in"] == 60
            client.chat(MESSAGES, "a/model")
            assert (client.token, client.refresh_token) == (TOKEN, REFRESH_TOKEN)
            assert TOKEN not in repr(client) + repr(vars(client))
        _, register, login, chat = gateway.requests
        for path, (sent_path, headers, body) in {"/register": register, "/login": login}.items():
            assert sent_path == path
            assert json.loads(body) == {"username": vector["email"], "derived_key": vector["derived_key"]}
            assert "Authorization" not in headers
        assert chat[1]["Authorization"] == f"Bearer {TOKEN}"

    def test_chat_returns_the_whole_answer(self, gateway, client):
        completion = {"choices": [{"message": {"role": "assistant", "content": "Grüße"}}]}
        gateway.answer("/v1/chat/completions", completion)
        assert client.chat(MESSAGES, "a/model", temperature=0, stream=True) == completion
        body = json.loads(gateway.requests[0][2])
        assert body == {"model": "a/model", "messages": MESSAGES, "temperature": 0, "stream": False}

    def test_login_answer_without_token(self, gateway, client):
        for answer in ({"message": "Login successful"}, {"access_token": "a", "refresh_token": None}):
            gateway.answer("/login", answer)
            with pytest.raises(ProxyError, match="no tokens"):
                client.login("user@example.com", "hunter2")
        assert client.token == TOKEN

    def test_secrets_stay_out_of_errors(self, gateway, client, vectors):
        vector = vectors[0]
        echo = {"message": f"{vector['derived_key']} {TOKEN}", "type": TOKEN, "metadata": {"error_type": TOKEN}}
        gateway.answer("/login", {"error": echo}, "400 Bad Request", f"X-Request-Id: {TOKEN}")
        gateway.answers["/register"] = lambda connection: None
        for call in (client.login, client.register):
            with pytest.raises(ProxyError) as refused:
                call(vector["email"], vector["password"])
            said = everything_said_by(refused.value) + repr(client)
            for secret in (vector["password"], vector["derived_key"], TOKEN):
                assert secret not in said

    @pytest.mark.parametrize("url", ["gateway.example", "ftp://gateway.example", "http://", "http://user:pw@localhost"])
    def test_base_url_that_cannot_work(self, url):
        with pytest.raises(ValueError, match="base_url must") as refused:
            ProxyClient(url)
        assert "pw" not in str(refused.value)


class TestErrors:
    def test_error_shape_of_the_gateway(self, gateway, client):
        message = "Too many requests"
        metadata = {"error_type": "of a shorter list"}
        error = {"code": 429, "message": message, "type": "rate_limited", "metadata": metadata}
        body = {"error": error, "message": message, "detail": message}
        headers = ("X-Request-Id: req-1", "Retry-After: 7")
        gateway.answer("/v1/chat/completions", body, "429 Too Many Requests", *headers)
        for call in (lambda: client.chat(MESSAGES, "a/model"), lambda: next(client.stream(MESSAGES, "a/model"))):
            with pytest.raises(ProxyError) as refused:
                call()
            problem = refused.value
            assert (problem.status, problem.message, problem.error_type, problem.request_id) == (
                429,
                message,
                "rate_limited",
                "req-1",
            )
            assert problem.retry_after_seconds == 7
            assert str(problem) == "Too many requests (429, rate_limited, request req-1)"

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"message": "Invalid credentials"}, "Invalid credentials"),
            (b"<html><h1>502 Bad Gateway", "The gateway's answer is not understood (HTTP 502)"),
            (b"[1]", "The gateway's answer is not understood (HTTP 502)"),
            (b"", "The gateway's answer is not understood (HTTP 502)"),
            ({"error": {"message": 5, "metadata": []}}, "The gateway's answer is not understood (HTTP 502)"),
        ],
    )
    def test_other_error_answers(self, gateway, client, body, message):
        gateway.answer("/v1/chat/completions", body, "502 Bad Gateway")
        with pytest.raises(ProxyError) as refused:
            client.chat(MESSAGES, "a/model")
        assert (refused.value.status, refused.value.message, refused.value.error_type) == (502, message, "")

    def test_error_inside_a_good_answer(self, gateway, client):
        gateway.answer("/v1/chat/completions", b'\n         \n{"error": {"code": 503, "message": "Overloaded"}}')
        with pytest.raises(ProxyError, match="Overloaded") as refused:
            client.chat(MESSAGES, "a/model")
        assert refused.value.status == 503

    def test_page_instead_of_an_answer(self, gateway, client):
        gateway.answer("/v1/chat/completions", b"<html>Sign in to the hotel network")
        for call in (lambda: client.chat(MESSAGES, "a/model"), lambda: next(client.stream(MESSAGES, "a/model"))):
            with pytest.raises(ProxyError, match="not understood"):
                call()

    def test_nobody_answers(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            unused_port = listener.getsockname()[1]
        with ProxyClient(f"http://127.0.0.1:{unused_port}", WAIT) as client:
            client.token = TOKEN
            with pytest.raises(ProxyError) as refused:
                client.chat(MESSAGES, "a/model")
        assert (refused.value.status, refused.value.error_type) == (0, "connection_error")
        assert TOKEN not in everything_said_by(refused.value)

    @pytest.mark.parametrize("status", ["302 Found", "307 Temporary Redirect"])
    def test_redirect_is_not_followed(self, gateway, client, start_gateway, status):
        elsewhere = start_gateway()
        elsewhere.answer("/v1/chat/completions", {"choices": []})
        location = f"Location: {elsewhere.url}/v1/chat/completions"
        gateway.answer("/v1/chat/completions", b"", status, location)
        with pytest.raises(ProxyError, match=f"Redirects are not followed.*{elsewhere.url}"):
            client.chat(MESSAGES, "a/model")
        assert not elsewhere.requests

    def test_environment_does_not_touch_the_token(self, gateway, client, tmp_path, monkeypatch):
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login someone password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(netrc))
        gateway.answer("/v1/chat/completions", {"choices": []})
        client.chat(MESSAGES, "a/model")
        assert gateway.requests[0][1]["Authorization"] == f"Bearer {TOKEN}"

    def test_cookies_are_not_kept(self, gateway, client):
        gateway.answer("/v1/chat/completions", {"choices": []}, "200 OK", "Set-Cookie: session=abc; Path=/")
        client.chat(MESSAGES, "a/model")
        client.chat(MESSAGES, "a/model")
        assert "Cookie" not in gateway.requests[1][1]


class TestStream:
    CONTENTS = ("Grüße", "🔑 👩‍👩‍👧", "конец")

    def read(self, client: ProxyClient) -> list[str]:
        return [chunk["choices"][0]["delta"]["content"] for chunk in client.stream(MESSAGES, "a/model")]

    def events(self, line_end: bytes) -> bytes:
        lines = [b": OPENROUTER PROCESSING", b"", b":", b"", b"event: ignored", b"id: 1", b""]
        for content in self.CONTENTS:
            lines += [data_line(event(content)), b": in between", b""]
        lines += [b"data: [DONE]", b"", b'data: {"after": "the end"}', b"", b""]
        return line_end.join(lines)

    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
    @pytest.mark.parametrize("size", [1, 7, 10_000])
    def test_events_however_they_are_cut(self, gateway, client, line_end, size):
        raw = self.events(line_end)
        gateway.stream([raw[start : start + size] for start in range(0, len(raw), size)])
        assert self.read(client) == list(self.CONTENTS)

    def test_event_of_several_lines(self, gateway, client):
        gateway.stream([b'data:{"choices":\ndata: [{"delta":\n:\ndata: {"content": "x"}}]}\n\ndata:[DONE]\n\n'])
        assert self.read(client) == ["x"]

    def test_fields_are_sent(self, gateway, client):
        gateway.stream([b"data: [DONE]\n\n"])
        assert list(client.stream(MESSAGES, model="a/model", temperature=0, stream=False)) == []
        body = json.loads(gateway.requests[0][2])
        assert body == {"model": "a/model", "messages": MESSAGES, "temperature": 0, "stream": True}

    @pytest.mark.parametrize("transfer", ["Transfer-Encoding: chunked", "X-Transfer: until the connection closes"])
    def test_each_event_is_handed_over_as_it_arrives(self, gateway, client, transfer):
        first_was_read = threading.Event()
        wrap = http_chunk if "chunked" in transfer else bytes

        def send(connection: socket.socket) -> None:
            connection.sendall(answer_head("200 OK", EVENT_STREAM, transfer))
            connection.sendall(wrap(data_line(event("first")) + b"\n\n"))
            assert first_was_read.wait(WAIT)
            last = data_line(event("second")) + b"\n\ndata: [DONE]\n\n"
            connection.sendall(wrap(last) + (wrap(b"") if wrap is http_chunk else b""))

        gateway.answers["/v1/chat/completions"] = send
        chunks = client.stream(MESSAGES, "a/model")
        assert next(chunks) == event("first")
        first_was_read.set()
        assert list(chunks) == [event("second")]

    def test_closing_the_iterator_closes_the_connection(self, gateway, client):
        hung_up = threading.Event()

        def send(connection: socket.socket) -> None:
            connection.sendall(answer_head("200 OK", EVENT_STREAM, "Transfer-Encoding: chunked"))
            connection.sendall(http_chunk(data_line(event("first")) + b"\n\n"))
            if connection.recv(1) == b"":
                hung_up.set()

        gateway.answers["/v1/chat/completions"] = send
        with closing(client.stream(MESSAGES, "a/model")) as chunks:
            next(chunks)
            assert not hung_up.is_set()
        assert hung_up.wait(WAIT)

    @pytest.mark.parametrize(
        ("chunk", "status", "error_type"),
        [
            ({"error": {"code": 502, "message": "Broke", "metadata": {"error_type": "server"}}}, 502, "server"),
            ({**event(""), "error": {"code": "server_error", "message": "Broke"}}, 200, ""),
        ],
    )
    def test_error_in_the_stream(self, gateway, client, chunk, status, error_type):
        gateway.stream([data_line(event("first")) + b"\n\n" + data_line(chunk) + b"\n\n"])
        chunks = client.stream(MESSAGES, "a/model")
        assert next(chunks) == event("first")
        with pytest.raises(ProxyError, match="Broke") as failed:
            next(chunks)
        assert (failed.value.status, failed.value.error_type) == (status, error_type)

    def test_data_that_is_not_json(self, gateway, client):
        gateway.stream([b'data: {"choices": [\n\n'])
        with pytest.raises(ProxyError, match="not understood"):
            self.read(client)

    def test_connection_lost_in_the_stream(self, gateway, client):
        def send(connection: socket.socket) -> None:
            connection.sendall(answer_head("200 OK", EVENT_STREAM, "Transfer-Encoding: chunked"))
            connection.sendall(http_chunk(data_line(event("first")) + b"\n\n") + b"ff\r\ndata: half")

        gateway.answers["/v1/chat/completions"] = send
        chunks = client.stream(MESSAGES, "a/model")
        assert next(chunks) == event("first")
        with pytest.raises(ProxyError) as failed:
            next(chunks)
        assert failed.value.error_type == "connection_error"
        assert TOKEN not in everything_said_by(failed.value)

    def test_stream_that_just_stops_never_looks_finished(self, gateway, client):
        gateway.stream([data_line(event("first")) + b"\n\n" + data_line(event("lost")) + b"\n"])
        chunks = client.stream(MESSAGES, "a/model")
        assert next(chunks) == event("first")
        with pytest.raises(ProxyError, match="broke off") as failed:
            next(chunks)
        assert (failed.value.status, failed.value.error_type) == (0, "connection_error")

    def test_finish_reason_is_an_end_too(self, gateway, client):
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        usage = {"choices": [], "usage": {"total_tokens": 3}}
        gateway.stream([data_line(chunk) + b"\n\n" for chunk in (event("x"), last, usage)])
        assert list(client.stream(MESSAGES, "a/model")) == [event("x"), last, usage]


class TestRefresh:
    """The gateway knows NEW_TOKEN alone, and says so to who sends another."""

    @pytest.fixture
    def gateway(self, gateway):
        completion = {"choices": []}
        expired = json.dumps({"message": "The token has expired; log in again"}).encode()
        head = answer_head("401 Unauthorized", f"Content-Length: {len(expired)}")

        def chat(connection: socket.socket) -> None:
            if gateway.requests[-1][1].get("Authorization") != f"Bearer {NEW_TOKEN}":
                connection.sendall(head + expired)
            elif json.loads(gateway.requests[-1][2])["stream"]:
                stream = data_line(event("x")) + b"\n\ndata: [DONE]\n\n"
                connection.sendall(answer_head("200 OK", EVENT_STREAM) + stream)
            else:
                connection.sendall(answer_head("200 OK") + json.dumps(completion).encode())

        gateway.answers[CHAT] = chat
        gateway.answer(REFRESH, NEW_TOKENS)
        return gateway

    @pytest.fixture
    def client(self, client):
        client.refresh_token = REFRESH_TOKEN
        return client

    def test_expired_token_is_exchanged_unnoticed(self, gateway, client):
        assert client.chat(MESSAGES, "a/model") == {"choices": []}
        assert gateway.paths() == [CHAT, REFRESH, CHAT]
        refused, refresh, repeated = gateway.requests
        assert json.loads(refresh[2]) == {"refresh_token": REFRESH_TOKEN}
        assert "Authorization" not in refresh[1]
        assert refused[2] == repeated[2]
        assert (client.token, client.refresh_token) == (NEW_TOKEN, NEW_REFRESH_TOKEN)
        client.chat(MESSAGES, "a/model")
        assert gateway.paths() == [CHAT, REFRESH, CHAT, CHAT]

    def test_stream_too(self, gateway, client):
        assert list(client.stream(MESSAGES, "a/model")) == [event("x")]
        assert gateway.paths() == [CHAT, REFRESH, CHAT]

    def test_threads_share_one_refresh(self, gateway, client):
        chat = gateway.answers[CHAT]

        def first(connection: socket.socket) -> None:
            gateway.wait_for_another()  # who has connected has taken its token before
            gateway.answers[CHAT] = chat
            chat(connection)

        gateway.answers[CHAT] = first
        results = []
        threads = [threading.Thread(target=lambda: results.append(client.chat(MESSAGES, "a/model"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert results == [{"choices": []}] * 2
        assert sorted(gateway.paths()) == [REFRESH, *[CHAT] * 4]

    def test_second_refusal_is_told(self, gateway, client):
        gateway.answer(REFRESH, NEW_TOKENS | {"access_token": "not good either"})
        with pytest.raises(ProxyError, match="log in again"):
            client.chat(MESSAGES, "a/model")
        assert gateway.paths() == [CHAT, REFRESH, CHAT]

    @pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "400 Bad Request"])
    def test_refused_refresh_says_why_and_is_not_tried_again(self, gateway, client, status):
        gateway.answer(REFRESH, {"message": f"{REFRESH_TOKEN} is revoked; log in again"}, status)
        with pytest.raises(ProxyError, match="log in again") as refused:
            client.chat(MESSAGES, "a/model")
        assert refused.value.status == int(status[:3])
        assert REFRESH_TOKEN not in everything_said_by(refused.value)
        assert client.token is client.refresh_token is None
        with pytest.raises(ProxyError) as refused:
            client.chat(MESSAGES, "a/model")
        assert refused.value.status == 401
        assert gateway.paths() == [CHAT, REFRESH, CHAT]

    def test_refresh_that_has_to_wait_keeps_the_session(self, gateway, client):
        gateway.answer(REFRESH, {"message": "Too many"}, "429 Too Many Requests", "Retry-After: 30")
        with pytest.raises(ProxyError) as refused:
            client.chat(MESSAGES, "a/model")
        assert (refused.value.status, refused.value.retry_after_seconds) == (429, 30)
        gateway.answer(REFRESH, NEW_TOKENS)
        client.chat(MESSAGES, "a/model")

    def test_lost_answer_is_asked_for_once_more(self, gateway, client):
        def lose(connection: socket.socket) -> None:
            gateway.answer(REFRESH, NEW_TOKENS)

        gateway.answers[REFRESH] = lose
        client.chat(MESSAGES, "a/model")
        assert gateway.paths() == [CHAT, REFRESH, REFRESH, CHAT]
        gateway.answers[REFRESH] = lambda connection: None
        client.token = TOKEN
        client.refresh_token = REFRESH_TOKEN
        with pytest.raises(ProxyError) as failed:
            client.chat(MESSAGES, "a/model")
        assert failed.value.status == 0
        assert client.refresh_token == REFRESH_TOKEN
        assert gateway.paths()[4:] == [CHAT, REFRESH, REFRESH]

    def test_client_key_does_not_go_on_as_who_logged_in_before(self, gateway, client):
        client.token = "sk-auto-unknown"
        with pytest.raises(ProxyError) as refused:
            client.chat(MESSAGES, "a/model")
        assert refused.value.status == 401
        assert gateway.paths() == [CHAT]

    def test_call_of_one_user_is_not_repeated_as_another(self, gateway, client):
        chat = gateway.answers[CHAT]

        def meanwhile(connection: socket.socket) -> None:
            client.token = NEW_TOKEN
            chat(connection)

        gateway.answers[CHAT] = meanwhile
        with pytest.raises(ProxyError) as refused:
            client.chat(MESSAGES, "a/model")
        assert refused.value.status == 401
        assert gateway.paths() == [CHAT]
        assert client.token == NEW_TOKEN

    def test_wrong_password_is_no_reason_to_refresh(self, gateway, client):
        gateway.answer("/login", {"message": "Invalid credentials"}, "401 Unauthorized")
        with pytest.raises(ProxyError, match="Invalid credentials"):
            client.login("user@example.com", "hunter2")
        assert gateway.paths() == ["/api/auth/kdf", "/login"]

    @pytest.mark.parametrize(("status", "raises"), [("200 OK", False), ("401 Unauthorized", False), ("503 Busy", True)])
    def test_logout_forgets_the_tokens(self, gateway, client, status, raises):
        gateway.answer("/api/auth/logout", {"message": "Whatever"}, status)
        gateway.answer(REFRESH, {"message": "Revoked"}, "401 Unauthorized")
        if raises:
            with pytest.raises(ProxyError, match="Whatever"):
                client.logout()
        else:
            client.logout()
        assert gateway.requests[0][1]["Authorization"] == f"Bearer {TOKEN}"
        assert client.token is client.refresh_token is None

    def test_usage_and_quota(self, gateway, client):
        client.token = NEW_TOKEN
        answers = {"/api/usage/stats": {"totals": 1}, "/api/usage/stats?start_date=2026-11-01": {"totals": 2}}
        for path, body in answers.items():
            gateway.answer(path, body)
        gateway.answer("/api/quota", {"limit_usd": None})
        assert client.usage() == {"totals": 1}
        assert client.usage(start_date="2026-11-01") == {"totals": 2}
        assert client.quota() == {"limit_usd": None}


def test_it_needs_no_file_but_itself():
    """Programs copy this one file."""
    folder = str(Path(openrouter_proxy_client.__file__).parent)
    script = f"""
import sys
sys.path.insert(0, {folder!r})
import openrouter_proxy_client
files = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
print(*[file for file in files if file.startswith({str(ROOT)!r}) and "site-packages" not in file], sep="\\n")
"""
    loaded = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.splitlines() == [openrouter_proxy_client.__file__]

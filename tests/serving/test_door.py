"""The data plane's door, as clients meet it over sockets, under both servers."""

import json
import socket
import threading
import time

import pytest
import requests

from serving.client_watch import QUEUED_SECONDS
from serving.door import LOG_INS
from tests.support.api_world import declared
from tests.support.gateway import body_of, new_derived_key, read_all, wait_for
from tests.support.scripted_upstream import JSON_CHUNKED, SSE, chunked, json_answer
from web.operation import Who

EVENT = 'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"é👋🏽"}}]}\n\n'.encode()
DONE = b"data: [DONE]\n\n"
WHOLE = b'{"id":"gen-1","choices":[],"usage":{"cost":0.000007}}'
HELLO = {"messages": [{"role": "user", "content": "hi"}]}
CHAT_PATHS = [
    "/api/proxy/openrouter",
    "/api/plugin-api/chat/completions",
    "/v1/chat/completions",
    "/api/v1/chat/completions",
]
FORMATS = [
    "completions",
    "embeddings",
    "responses",
    "messages",
    "rerank",
    "images",
    "audio/speech",
    "audio/transcriptions",
]
PATHS = [*CHAT_PATHS, *(f"{base}/{name}" for name in FORMATS for base in ("/v1", "/api/v1"))]


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def scripted(request, start, upstream):
    """A gateway in front of an upstream that plays exact bytes."""
    return start(
        SERVER=request.param,
        SERVER_THREADS=64,
        OPENROUTER_API_URL=upstream.url,
        OPENROUTER_API_KEYS=f"sk-or-v1-{'a' * 64}",
        KEEPALIVE_SECONDS=1,
        UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS=5,
        UPSTREAM_IDLE_TIMEOUT_SECONDS=4,
        MAX_BODY_BYTES=100_000,
        CLIENT_UNREAD_TIMEOUT_SECONDS=2,
    )


@pytest.fixture(scope="module")
def someone(scripted):
    return scripted.new_user()


def assert_refused(answer, status):
    """An error of ours, in its one shape."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["error"]["code"] == status
    assert body["error"]["message"] == body["message"] == body["detail"]
    assert isinstance(body["error"]["metadata"]["error_type"], str)
    assert len(answer.headers["X-Request-Id"]) == 32
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", CHAT_PATHS)
def test_each_path_answers_byte_for_byte(scripted, someone, upstream, path):
    upstream.play("m", json_answer("200 OK", WHOLE))
    answer = scripted.post(path, {"model": "m", **HELLO}, someone)
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert answer.headers["Cache-Control"] == "no-store"
    upstream.play("m", SSE, *(chunked(EVENT[i : i + 1], end=False) for i in range(len(EVENT))), chunked(DONE))
    answer = scripted.post(path, {"model": "m", "stream": True, **HELLO}, someone)
    assert (answer.headers["Content-Type"], answer.content) == ("text/event-stream", EVENT + DONE)


def test_each_event_reaches_the_client_before_the_next_is_sent(scripted, someone, upstream):
    gates = [threading.Event() for _ in range(3)]
    upstream.play("m", SSE, *(step for gate in gates for step in (chunked(EVENT, end=False), gate)), chunked(DONE))
    with scripted.open_chat(someone, "m") as connection:
        received = b""
        for number, gate in enumerate(gates, 1):
            while received.count(EVENT) < number:
                received += connection.recv(65536)
            gate.set()
        rest = read_all(connection)
    assert body_of(received + rest).replace(b": keep-alive\n\n", b"") == EVENT * 3 + DONE


def test_a_silent_upstream_is_bridged_with_comments(scripted, someone, upstream):
    upstream.play("m", 1.6, SSE, chunked(EVENT, end=False), 1.6, chunked(DONE))
    body = body_of(read_all(scripted.open_chat(someone, "m")))
    assert body.count(b": keep-alive\n\n") >= 2
    assert body.replace(b": keep-alive\n\n", b"") == EVENT + DONE


@pytest.mark.parametrize("when", ["silent before the answer", "silent within it", "within an event", "while it flows"])
def test_when_the_client_goes_the_upstream_is_closed_within_a_second_or_two(scripted, someone, upstream, when):
    model = f"gone {when} {scripted.port}"
    flow = [step for _ in range(200) for step in (chunked(EVENT, end=False), 0.05)]
    upstream.play(
        model,
        *{
            "silent before the answer": [4.5],
            "silent within it": [SSE, chunked(EVENT, end=False), 10.0],
            "within an event": [SSE, chunked(EVENT, EVENT[:9], end=False), 10.0],
        }.get(when, [SSE, *flow]),
    )
    connection = scripted.open_chat(someone, model)
    connection.settimeout(10)
    connection.recv(65536)  # the first bytes, of the upstream or our own comment
    connection.close()
    [request] = wait_for(lambda: upstream.requests_for(model))
    assert request.closed_by_client.wait(2)


@pytest.mark.parametrize("steps", [[30.0], [JSON_CHUNKED, chunked(b"{", end=False), 30.0]], ids=["before", "within"])
def test_a_plain_call_whose_client_has_left_is_given_up_and_nobody_elses(scripted, someone, upstream, steps):
    """With its connection upstream, and its key's slot, before its line is logged. Others' calls that wait go on."""
    waiting, left = f"waits/{scripted.port}", f"left/{scripted.port}-{len(steps)}"
    gate = threading.Event()
    upstream.play(waiting, gate, json_answer("200 OK", WHOLE))
    upstream.play(left, *steps)
    innocent = scripted.open_chat(scripted.new_user(), waiting, stream=False)
    wait_for(lambda: upstream.requests_for(waiting))
    time.sleep(QUEUED_SECONDS + 0.2)  # what comes together from one address and waits can't be told apart under granian
    connection = scripted.open_chat(someone, left, stream=False)
    [request] = wait_for(lambda: upstream.requests_for(left))
    connection.close()
    assert request.closed_by_client.wait(2.5)
    [line] = wait_for(lambda: [line for line in scripted.log().splitlines() if "proxied" in line and left in line])
    assert "client_gone" in line
    gate.set()
    assert body_of(read_all(innocent)) == WHOLE


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_only_sends_no_more_gets_its_answer(scripted, someone, upstream, stream):
    if scripted.settings["SERVER"] == "granian":
        pytest.skip("granian closes a connection of which its client has closed one side")
    gate = threading.Event()
    whole = EVENT * 2 + DONE if stream else WHOLE
    steps = (
        [SSE, chunked(EVENT, end=False), gate, chunked(EVENT, DONE)] if stream else [gate, json_answer("200 OK", WHOLE)]
    )
    upstream.play("half", *steps)
    with scripted.open_chat(someone, "half", stream=stream) as connection:
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while (
            received.count(b": keep-alive\n\n" if stream else b"100 Continue") < 2
        ):  # it was asked whether it is there
            received += connection.recv(65536)
        gate.set()
        received += read_all(connection)
    answer = received[received.index(b"HTTP/1.1 200") :]
    assert body_of(answer).replace(b": keep-alive\n\n", b"") == whole


def test_white_space_of_a_plain_answer_reaches_the_client_at_once(scripted, someone, upstream):
    gate = threading.Event()
    upstream.play("m", JSON_CHUNKED, chunked(b"\n         \n", end=False), gate, chunked(WHOLE))
    with scripted.open_chat(someone, "m", stream=False) as connection:
        received = b""
        while b"\n         \n" not in received.partition(b"\r\n\r\n")[2]:
            received += connection.recv(65536)
        gate.set()
        assert json.loads(body_of(received + read_all(connection))) == json.loads(WHOLE)


def test_a_long_plain_answer_that_breaks_off_never_looks_whole(scripted, someone, upstream):
    upstream.play("m", JSON_CHUNKED, chunked(b'{"a":"' + b"1" * 1_200_000, end=False), 0.1, "close")
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.JSONDecodeError)):
        scripted.post("/v1/chat/completions", {"model": "m", **HELLO}, someone).json()


def test_a_short_plain_answer_that_breaks_off_is_a_clean_error(scripted, someone, upstream):
    upstream.play("m", JSON_CHUNKED, chunked(WHOLE[:30], end=False), 0.1, "close")
    assert_refused(scripted.post("/v1/chat/completions", {"model": "m", **HELLO}, someone), 502)


def test_whoever_does_not_read_its_answer_is_let_go_and_others_streams_go_on(scripted, someone, upstream):
    """As soon as nothing has been taken for a while; what the kernels hold for it is some megabytes."""
    model, other = f"unread/{scripted.port}", f"read/{scripted.port}"
    gate = threading.Event()
    upstream.play(model, SSE, *[chunked(EVENT * 1000, end=False)] * 400)
    upstream.play(other, SSE, chunked(EVENT, end=False), gate, chunked(DONE))
    with scripted.open_chat(scripted.new_user(), other) as reads, scripted.open_chat(someone, model):
        [request] = wait_for(lambda: upstream.requests_for(model))
        assert request.closed_by_client.wait(60)
        line = wait_for(lambda: [x for x in scripted.log().splitlines() if "proxied" in x and model in x])[0]
        assert "client_gone" in line
        gate.set()
        received = b""
        while DONE not in received:
            received += reads.recv(65536)


# ── who may call


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dTpw",
        "Bearer x",
        "Bearer a.b.c",
        "bearer",
        "Bearer " + "x" * 5000,
        "Bearer é".encode(),
    ],
)
def test_a_stranger_is_refused_and_nothing_goes_up(scripted, upstream, authorization):
    before = len(upstream.received)
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = requests.post(
        f"{scripted.url}/v1/chat/completions", json={"model": "m", **HELLO}, headers=headers, timeout=10
    )
    assert_refused(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert len(upstream.received) == before


def test_credentials_count_only_in_the_headers_for_them(scripted, someone, upstream):
    before = len(upstream.received)
    url = f"{scripted.url}/v1/chat/completions?token={someone}&access_token={someone}"
    elsewhere = {
        "Api-Key": someone,
        "X-Auth-Token": someone,
        "Cookie": f"token={someone}; session={someone}",
        "Proxy-Authorization": f"Bearer {someone}",
    }
    assert_refused(requests.post(url, json={"model": "m", **HELLO}, headers=elsewhere, timeout=10), 401)
    assert len(upstream.received) == before


def test_a_logged_out_token_is_refused(scripted, upstream):
    upstream.play("m", json_answer("200 OK", WHOLE))
    token, teammate = scripted.new_user(), scripted.new_user()
    assert scripted.post("/v1/chat/completions", {"model": "m", **HELLO}, token).status_code == 200
    assert scripted.post("/api/auth/logout", token=token).status_code == 200
    assert_refused(scripted.post("/v1/chat/completions", {"model": "m", **HELLO}, token), 401)
    assert scripted.post("/v1/chat/completions", {"model": "m", **HELLO}, teammate).status_code == 200


def test_two_users_tokens_are_never_mixed(scripted, upstream):
    """Tokens share a long prefix; a cache that looked at a part of them would mix their owners up."""
    upstream.play("m", json_answer("200 OK", WHOLE))
    tokens = [scripted.new_user() for _ in range(2)]
    assert tokens[0][:36] == tokens[1][:36]
    ids = []
    for token in tokens:
        answer = scripted.post("/v1/chat/completions", {"model": "m", **HELLO}, token)
        line = wait_for(
            lambda request_id=answer.headers["X-Request-Id"]: [
                x for x in scripted.log().splitlines() if request_id in x
            ]
        )
        ids.append(next(part for part in line[0].split() if part.startswith("user_id=")))
    assert ids[0] != ids[1]


# ── what is refused


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"model":7,"messages":[{}]}', 400),
        (b'{"stream":"yes","messages":[{}]}', 400),
        (b'{"messages":"hi"}', 400),
        (b"[" * 90_000, 400),
        (b"\xff" * 100, 400),
        (b" " * 100_001, 413),
    ],
)
def test_a_bad_body_is_refused_and_nothing_goes_up(scripted, someone, upstream, body, status):
    before = len(upstream.received)
    headers = {"Authorization": f"Bearer {someone}", "Content-Type": "application/json"}
    answer = requests.post(f"{scripted.url}/v1/chat/completions", data=body, headers=headers, timeout=10)
    assert_refused(answer, status)
    assert len(upstream.received) == before


def test_a_body_without_length_is_read_up_to_the_limit(scripted, someone, upstream):
    upstream.play("m", json_answer("200 OK", WHOLE))
    headers = {"Authorization": f"Bearer {someone}"}
    good = json.dumps({"model": "m", **HELLO}).encode()
    url = f"{scripted.url}/v1/chat/completions"
    assert requests.post(url, data=iter([good[:9], good[9:]]), headers=headers, timeout=10).status_code == 200
    assert upstream.requests_for("m")[-1].body == good
    try:
        endless = requests.post(url, data=(b" " * 10_000 for _ in range(1000)), headers=headers, timeout=10)
        assert_refused(endless, 413)
    except requests.ConnectionError:
        pass  # the server closed while the client was still sending, as it may


@pytest.mark.parametrize("path", PATHS)
def test_other_methods_are_told_which_one_works(scripted, someone, upstream, path):
    before = len(upstream.received)
    options = requests.options(f"{scripted.url}{path}", timeout=10)
    assert (options.status_code, options.headers["Allow"], options.content) == (200, "OPTIONS, POST", b"")
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD", "TRACE", "PURGE"):
        answer = requests.request(
            method,
            f"{scripted.url}{path}",
            headers={"Authorization": f"Bearer {someone}"},
            timeout=10,
        )
        assert answer.status_code == 405, method
        assert answer.headers["Allow"] == "OPTIONS, POST"
        if method != "HEAD":
            assert answer.json()["error"]["message"] == "This path takes POST only"
    assert len(upstream.received) == before


@pytest.mark.parametrize("path", ["/v1/responses", "/api/v1/responses", "/v1/chat/completions"])
def test_a_websocket_is_refused_so_that_agents_fall_back(scripted, someone, upstream, path):
    """Codex goes on over HTTP when it reads a 426; of other refusals it tries again."""
    before = len(upstream.received)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {someone}\r\nConnection: Upgrade\r\n"
    head += "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    with socket.create_connection(("127.0.0.1", scripted.port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 426 ")
    upstream.play("m", json_answer("200 OK", WHOLE))
    assert scripted.post(path, {"model": "m", "input": "hi", **HELLO}, someone).status_code == 200
    assert len(upstream.received) == before + 1


def test_a_compressed_body_is_refused(scripted, someone):
    headers = {"Content-Encoding": "gzip"}
    assert_refused(scripted.post("/v1/chat/completions", {"model": "m"}, someone, headers=headers), 415)


def test_an_empty_header_is_none_and_a_whole_number_may_have_a_fraction(scripted, someone, upstream):
    """As clients in Lua, PHP or R write numbers, and as users of others take a header away."""
    upstream.play("m", json_answer("200 OK", WHOLE))
    names = ("X-Session-Id", "Anthropic-Beta", "X-Upstream", "X-Timeout", "Content-Encoding", "x-api-key")
    body = {"model": "m", **HELLO, "max_tokens": 1024.0}
    answer = scripted.post("/v1/messages", body, someone, headers=dict.fromkeys(names, ""))
    assert (answer.status_code, answer.content) == (200, WHOLE)
    sent = upstream.requests_for("m")[-1]
    assert b'"max_tokens": 1024.0' in sent.body  # it goes up as it came
    assert not {"x-session-id", "anthropic-beta"} & sent.headers().keys()


def test_a_call_may_ask_for_its_time_up_to_the_operators(scripted, someone, upstream):
    upstream.play("timed", json_answer("200 OK", WHOLE))
    upstream.play("slow", 3.0, json_answer("200 OK", WHOLE))

    def ask(model, seconds):
        body = {"model": model, **HELLO}
        return scripted.post("/v1/chat/completions", body, someone, headers={"X-Timeout": seconds})

    before = len(upstream.received)
    for wrong in ("0", "3601", "soon"):
        assert_refused(refused := ask("timed", wrong), 400)
        assert "X-Timeout must be a whole number of seconds from 1 to 3600" in refused.text
    assert len(upstream.received) == before
    assert (ask("timed", "3600").content, ask("slow", "1").status_code) == (WHOLE, 504)
    assert "x-timeout" not in upstream.requests_for("timed")[0].headers()


def test_a_header_that_could_split_the_upstream_request_does_not_go_up(scripted, someone, upstream):
    upstream.play("m", json_answer("200 OK", WHOLE))

    def ask(value):
        headers = {"X-Session-Id": value}
        return scripted.post("/v1/chat/completions", {"model": "m", **HELLO}, someone, headers=headers)

    before = len(upstream.received)
    assert_refused(ask(b"x" * 8001), 400)
    assert len(upstream.received) == before
    answer = ask("é".encode())
    if answer.status_code == 200:  # granian hands on a header with other bytes than ASCII as an empty one
        assert "x-session-id" not in upstream.received[-1].headers()
    else:
        assert_refused(answer, 400)
        assert len(upstream.received) == before


OTHER_PATHS = [
    *(f"{path}{tail}" for path in PATHS for tail in ("/", "//", "/x", ";x", "%00", "%20", "%2f", "%3fx", ".", "%2e")),
    "/v1/../api/v1/keys",
    "/v1/chat/completions/../../../keys",
    "/v1/chat/completions/..",
    "/v1/chat/./completions",
    "/v1/./chat/completions",
    "/./v1/chat/completions",
    "/v1/chat/%2e/completions",
    "/v1/chat/%2e%2e/keys",
    "/v1/messages/%2e%2e/chat/completions",
    "/v1/%252e%252e/keys",
    "/v1/chat%252fcompletions",
    "/v1//chat/completions",
    "/v1/chat//completions",
    "//v1/chat/completions",
    "//v1/messages",
    "/v1/chat/completions%2f..%2fkeys",
    "/v1;x/chat/completions",
    "/v1/chat;a=b/completions",
    "/v1/chat%2Fcompletions/x",
    "/v1/chat%5ccompletions",
    "/v1/chat/completions\\..\\keys",
    "/V1/chat/completions",
    "/v1/Chat/Completions",
    "/v1/MESSAGES",
    "/v1/messages/count_tokens/x",
    "/v1/messages/batches",
    "/v1/responses/resp_1",
    "/v1/responses/resp_1/cancel",
    "/v1/keys",
    "/v1/activity",
    "/v1/auth/keys",
    "/v1/images/edits",
    "/v1/files",
    "/v1/batches",
    "/v1/audio/translations",
    "/v1/chat",
    "/v1",
    "/v1/",
    "/v2/chat/completions",
    "/api/v1",
    "/api/v1/keys/x",
    "/api/v1/auth/keys",
    "/api/api/v1/chat/completions",
    "/chat/completions",
    "/api/alpha/responses",
    "/api/proxy",
    "/api/proxy/openrouter/chat/completions",
    "/api/proxy/openrouter/../openrouter",
    "http://example.com/v1/keys",
    "//login",
    "/api//health",
    "/api/auth//logout",
]


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_no_other_path_reaches_the_upstream(scripted, someone, upstream, method):
    before = len(upstream.received)
    body = json.dumps({"model": "m", "input": "hi", "prompt": "hi", **HELLO}).encode()
    assert len(set(OTHER_PATHS)) > 100
    for path in OTHER_PATHS:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {someone}\r\n"
        with socket.create_connection(("127.0.0.1", scripted.port), timeout=10) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 404"), (path, answer[:200])
        error = json.loads(body_of(answer))["error"]
        assert error.get("code") == 404 or error["type"] == "not_found_error", path
    assert len(upstream.received) == before


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /nope HTTP/1.1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 4\r\n\r\nabc",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x00\x00\r\n\r\n",
    ],
)
def test_malformed_http_is_never_a_500_and_nothing_goes_up(scripted, someone, upstream, raw):
    before = len(upstream.received)
    raw = raw.replace(b"Host: x\r\n", b"Host: x\r\nAuthorization: Bearer %s\r\n" % someone.encode())
    with socket.create_connection(("127.0.0.1", scripted.port), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        try:
            answer = read_all(connection)
        except ConnectionResetError:
            answer = b""
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert len(upstream.received) == before
    assert scripted.get("/api/health").status_code == 200


def test_a_body_that_ends_early_is_never_sent_up(scripted, someone, upstream):
    before = len(upstream.received)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {someone}\r\nContent-Length: 500\r\n\r\n"
    with socket.create_connection(("127.0.0.1", scripted.port), timeout=10) as connection:
        connection.sendall(head.encode() + b'{"model":"m","messages":[{}]}')
    assert scripted.get("/api/health").status_code == 200
    assert len(upstream.received) == before


def test_a_registered_name_alone_opens_nothing(scripted):
    account = {"username": "somebody@example.com", "derived_key": new_derived_key()}
    scripted.post("/register", account)
    assert_refused(scripted.post("/v1/chat/completions", {"model": "m", **HELLO}, account["derived_key"]), 401)


# ── the other formats


BODIES = {
    "completions": {"prompt": "hi"},
    "embeddings": {"input": "hi"},
    "responses": {"input": "hi"},
    "messages": {**HELLO, "max_tokens": 9},
    "rerank": {"query": "hi", "documents": ["hi"]},
    "images": {"prompt": "hi"},
    "audio/speech": {"input": "hi"},
    "audio/transcriptions": {"input_audio": {"data": "", "format": "wav"}},
}
STREAM_ENDS = {
    "completions": [DONE],
    "responses": [b'event: response.completed\ndata: {"type":"response.completed","response":{"error":null}}\n\n'],
    "messages": [b'event: ping\ndata: {"type": "ping"}\n\n', b'event: message_stop\ndata: {"type":"message_stop"}\n\n'],
}


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
@pytest.mark.parametrize("name", FORMATS)
def test_each_format_goes_up_to_its_own_path_and_comes_back_byte_for_byte(scripted, someone, upstream, base, name):
    upstream.play("m", json_answer("200 OK", WHOLE))
    answer = scripted.post(f"{base}/{name}?beta=true", {"model": "m", **BODIES[name]}, someone)
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert upstream.received[-1].head.startswith(f"POST /api/v1/{name} HTTP/1.1\r\n".encode())
    if name in STREAM_ENDS:
        stream = b"".join([EVENT, *STREAM_ENDS[name]])
        upstream.play("m", SSE, *(chunked(stream[i : i + 1], end=False) for i in range(len(stream))), b"0\r\n\r\n")
        answer = scripted.post(f"{base}/{name}", {"model": "m", "stream": True, **BODIES[name]}, someone)
        assert (answer.headers["Content-Type"], answer.content) == ("text/event-stream", stream)


@pytest.mark.parametrize("name", ["completions", "embeddings", "responses"])
def test_each_format_refuses_strangers_and_bad_bodies_in_the_one_shape(scripted, someone, upstream, name):
    before = len(upstream.received)
    good = {"model": "m", **BODIES[name]}
    assert_refused(scripted.post(f"/v1/{name}", good), 401)
    assert_refused(scripted.post(f"/v1/{name}", {"model": 7}, someone), 400)
    assert_refused(scripted.post(f"/v1/{name}", good, someone, headers={"Content-Encoding": "gzip"}), 415)
    assert_refused(scripted.post(f"/v1/{name}", good | {"x": "x" * 100_000}, someone), 413)
    assert len(upstream.received) == before


MESSAGE = {"model": "m", **BODIES["messages"]}


def assert_refused_as_anthropic_does(answer, status, error_type):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["error"]["type"] == error_type
    assert body["error"]["message"]
    assert body["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("path", ["/v1/messages", "/api/v1/messages"])
def test_all_that_messages_refuse_has_anthropics_envelope(scripted, someone, upstream, path):
    before = len(upstream.received)

    def ask(body=MESSAGE, token=someone, **headers):
        return scripted.post(path, body, token, headers=headers)

    assert_refused_as_anthropic_does(ask(token=None), 401, "authentication_error")
    assert_refused_as_anthropic_does(ask(token="a.b.c"), 401, "authentication_error")
    assert_refused_as_anthropic_does(ask({"model": "m"}), 400, "invalid_request_error")
    assert_refused_as_anthropic_does(ask([1]), 400, "invalid_request_error")
    assert_refused_as_anthropic_does(ask(**{"Anthropic-Beta": "x" * 8001}), 400, "invalid_request_error")
    assert_refused_as_anthropic_does(ask(**{"Content-Encoding": "gzip"}), 415, "invalid_request_error")
    assert_refused_as_anthropic_does(ask(MESSAGE | {"x": "x" * 100_000}), 413, "request_too_large")
    got = requests.get(f"{scripted.url}{path}", timeout=10)
    assert_refused_as_anthropic_does(got, 405, "invalid_request_error")
    assert len(upstream.received) == before


def test_what_openrouter_refuses_has_anthropics_envelope_too(scripted, someone, upstream):
    refused = b'{"error":{"code":404,"message":"No endpoints found for m."},"user_id":"user_2abcdefghij"}'
    upstream.play("m", json_answer("404 Not Found", refused))
    answer = scripted.post("/v1/messages", MESSAGE, someone)
    assert_refused_as_anthropic_does(answer, 404, "not_found_error")
    assert answer.json()["error"]["message"] == "No endpoints found for m."
    upstream.play("m", json_answer("402 Payment Required", b'{"error":{"code":402,"message":"Insufficient credits"}}'))
    assert_refused_as_anthropic_does(scripted.post("/v1/messages", MESSAGE, someone), 402, "billing_error")
    wait_for(lambda: _answers(scripted, someone, upstream))  # the account rests for some seconds


def _answers(scripted, someone, upstream):
    upstream.play("m", json_answer("200 OK", WHOLE))
    return scripted.post("/v1/messages", MESSAGE, someone).status_code == 200


def test_messages_take_the_token_in_either_header_but_not_two_different_ones(scripted, someone, upstream):
    upstream.play("m", json_answer("200 OK", WHOLE))
    other, stranger = scripted.new_user(), "a.b.c"

    def ask(**headers):
        return requests.post(f"{scripted.url}/v1/messages", json=MESSAGE, headers=headers, timeout=10)

    before = len(upstream.received)
    assert ask(**{"x-api-key": someone}).status_code == 200
    assert ask(**{"x-api-key": other, "Authorization": f"Bearer {other}"}).status_code == 200
    assert ask(**{"x-api-key": "", "Authorization": f"Bearer {other}"}).status_code == 200
    for refused in (
        ask(**{"x-api-key": someone, "Authorization": f"Bearer {other}"}),
        ask(**{"x-api-key": stranger, "Authorization": f"Bearer {someone}"}),
        ask(**{"x-api-key": someone, "Authorization": f"Bearer {stranger}"}),
    ):
        assert_refused_as_anthropic_does(refused, 400, "invalid_request_error")
        assert "different" in refused.json()["error"]["message"]
        assert someone not in refused.text
    assert_refused_as_anthropic_does(ask(**{"x-api-key": stranger}), 401, "authentication_error")
    assert_refused_as_anthropic_does(ask(), 401, "authentication_error")
    assert len(upstream.received) == before + 3


def test_anthropics_headers_go_up_with_messages_only_and_its_key_never(scripted, someone, upstream):
    upstream.play("m", json_answer("200 OK", WHOLE))
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b", "anthropic-other": "x", "x-api-key": someone}
    for path, body, expected in (
        ("/v1/messages", MESSAGE, {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}),
        ("/v1/chat/completions", {"model": "m", **HELLO}, {}),
    ):
        assert scripted.post(path, body, someone, headers=headers).status_code == 200
        received = upstream.received[-1].headers()
        assert {name: value for name, value in received.items() if "anthropic" in name} == expected
        assert someone not in str(received)
        assert "x-api-key" not in received


@pytest.mark.parametrize(
    ("settings", "status", "error_type"),
    [({"RATE_LIMIT_USER_RPM": 1}, 429, "rate_limit_error"), ({"QUOTA_USD": 0}, 402, "billing_error")],
)
def test_limits_and_quotas_hold_for_messages_in_their_envelope(start, upstream, settings, status, error_type):
    upstream.play("m", json_answer("200 OK", WHOLE))
    limited = start(OPENROUTER_API_URL=upstream.url, OPENROUTER_API_KEYS=f"sk-or-v1-{'c' * 64}", **settings)
    owner, other = limited.new_user(), limited.new_user()
    limited.post("/v1/messages", MESSAGE, owner)
    before = len(upstream.received)
    refused = limited.post("/v1/messages", MESSAGE, owner)
    assert_refused_as_anthropic_does(refused, status, error_type)
    assert ("Retry-After" in refused.headers) is (status == 429)
    assert len(upstream.received) == before
    if status == 429:
        assert limited.post("/v1/messages", MESSAGE, other).status_code == 200


def test_every_way_in_has_the_threads_of_log_ins():
    """Recovery and passkeys too: what else is asked for keeps nobody out."""
    ways = {
        route.removeprefix("POST ")
        for route, operation in declared().items()
        if operation.who is Who.ANYBODY and operation.door and route.startswith("POST ")
    }
    assert ways == LOG_INS

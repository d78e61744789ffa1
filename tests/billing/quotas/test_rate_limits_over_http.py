"""Rate limits as clients meet them: log-ins, administration and model calls, behind proxies and under both servers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder

from accounts.key_derivation import KeyDeriver
from app import create_app
from auth import Auth, SigningKeys
from billing.quotas.rate_limits import RateLimits
from config.settings import Config
from foundation.clock import Clock
from foundation.crypto import DerivedKeyHasher
from services import Services, build
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.data_plane import DONE, EVENT, WHOLE
from tests.support.gateway import (
    ROOT,
    Gateway,
    environment,
    new_derived_key,
    rate_limits_in,
    read_all,
    refusal_of,
    wait_for,
)
from tests.support.movable_clock import MovableClock
from tests.support.scripted_upstream import SSE, ScriptedUpstream, chunked, json_answer

ADMIN_TOKEN = "Qd81-operators-own-Zx7Kp3Vt0Lm9Rw2Yc"
POOL_KEY = f"sk-or-v1-{'a' * 64}"
OWNER = {"username": "owner@example.com", "derived_key": new_derived_key()}
COLLEAGUE = {"username": "colleague@example.com", "derived_key": new_derived_key()}
UNKNOWN = {"username": "unknown@example.com", "derived_key": new_derived_key()}
HOME, WORK, CAFE = "192.0.2.7", "198.51.100.1", "203.0.113.9"
PROXY = "10.1.2.3"
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class CountingHasher(DerivedKeyHasher):
    """Counts the Argon2 hashes that are made. steps: which."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []

    @property
    def count(self) -> int:
        return len(self.steps)

    def hash(self, derived_key: str) -> str:
        self.steps.append("hash")
        return super().hash(derived_key)

    def verify(self, stored: str | None, derived_key: str) -> None:
        self.steps.append("verify")
        super().verify(stored, derived_key)

    def derive(self, password: str, *how: Any) -> bytes:
        self.steps.append("derive")
        return super().derive(password, *how)


@dataclass
class Door:
    """The application in this process, with a clock of limits that stands still."""

    client: FlaskClient
    services: Services
    hasher: CountingHasher

    def post(self, path: str, body: Any = None, address: str = HOME, **headers: str) -> Any:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, json=body, environ_base={"REMOTE_ADDR": address}, headers=names)

    def login(self, account: dict[str, str], address: str = HOME, **headers: str) -> int:
        return self.post("/login", account, address, **headers).status_code

    def token(self, account: dict[str, str]) -> str:
        """A new session of somebody, past the limits."""
        return self.services.auth.login(account["username"], account["derived_key"])[1]

    def chat(self, token: str, address: str = HOME, **fields: Any) -> Any:
        return self.post("/v1/chat/completions", HELLO | fields, address, Authorization=f"Bearer {token}")


@pytest.fixture
def make_door(upstream: ScriptedUpstream, tmp_path: Path, clock: MovableClock) -> Iterator[Callable[..., Door]]:
    built: list[Services] = []

    def make(**settings: Any) -> Door:
        secrets = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY, "admin_token": ADMIN_TOKEN}
        own = {"database_url": f"sqlite:///{tmp_path}/limits.db", "openrouter_api_url": upstream.url}
        config = Config(**secrets, **own, openrouter_api_keys=POOL_KEY, **settings)
        services, hasher = build(config), CountingHasher()
        held = services.client_keys.live, services.api_tokens.live
        shared = services.auth.refused, services.second_factors, services.teams
        auth = Auth(services.users, services.sessions, hasher, SigningKeys([SECRET_KEY]), Clock(), *held, *shared)
        derivation = KeyDeriver(hasher, "domain-of-tests")
        limits = RateLimits(config, clock)
        services.auth, services.key_derivation, services.rate_limits = auth, derivation, limits
        built.append(services)
        for account in (OWNER, COLLEAGUE):
            auth.register(account["username"], account["derived_key"])
        hasher.steps.clear()
        client = create_app(services).test_client()
        client.open = partial(client.open, buffered=True)  # closes each answer, as servers do
        return Door(client, services, hasher)

    yield make
    for services in built:
        services.stop()
        services.db.close()


# ── log-ins


def test_an_address_has_five_log_ins_a_minute_and_more_cost_no_hash(make_door, clock):
    door = make_door()
    wrong = OWNER | {"derived_key": new_derived_key()}
    assert [door.login(wrong) for _ in range(5)] == [401] * 5
    assert door.hasher.count == 5
    assert {door.login(account) for account in (OWNER, wrong, COLLEAGUE, UNKNOWN) for _ in range(10)} == {429}
    assert door.post("/login", ["no", "log-in"]).status_code == 429
    assert door.hasher.count == 5
    assert door.login(COLLEAGUE, WORK) == 200
    refused = door.post("/login", OWNER)
    assert refused.json["message"] == "Too many log-ins: this service allows 5 a minute per address"
    assert refused.json["error"]["type"] == "rate_limit_exceeded"
    assert rate_limits_in(refused.headers["RateLimit"])["address-log-ins"]["r"] == 0
    clock.advance(seconds=int(refused.headers["Retry-After"]))
    assert door.login(OWNER) == 200


def test_an_account_has_ten_from_everywhere_and_unknown_ones_are_answered_alike(make_door, clock):
    door = make_door()
    session = door.token(OWNER)
    before = door.hasher.count
    bodies = []
    for number, account in enumerate([OWNER | {"derived_key": new_derived_key()}, UNKNOWN]):
        answers = [door.post("/login", account, f"192.0.{number}.{last}") for last in range(12)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
        bodies.append(answers[-1].data)
        bodies.append(answers[-1].headers["RateLimit"])
    assert bodies[:2] == bodies[2:]
    assert door.hasher.count == before + 20
    assert door.login(OWNER, CAFE) == 429  # its owner can't log in anew, but what is open stays open
    assert door.post("/api/auth/logout", None, CAFE, Authorization=f"Bearer {session}").status_code == 200
    assert door.login(COLLEAGUE, CAFE) == 200
    clock.advance(minutes=1)
    assert door.login(OWNER, CAFE) == 200


def test_log_ins_with_passwords_are_counted_with_the_others_and_refused_ones_cost_no_hash(make_door, clock):
    door = make_door(login_rate_limit_account_per_minute=7)
    by_password = {"email": OWNER["username"], "password": "Tr4in-to-Nowhere"}
    assert [door.post("/api/auth/login", by_password).status_code for _ in range(3)] == [401] * 3
    assert [door.login(OWNER) for _ in range(3)] == [200, 200, 429]
    steps = list(door.hasher.steps)
    assert steps == ["derive", "verify"] * 3 + ["verify"] * 2
    change = by_password | dict.fromkeys(("new_password", "new_password_confirm"), "Tr4in-to-Nowhere")
    session = {"Authorization": f"Bearer {door.token(OWNER)}"}
    by_key = {"derived_key": OWNER["derived_key"], "new_derived_key": new_derived_key()}
    for path, body in (
        ("/api/auth/login", by_password),
        ("/api/auth/change-password", change),
        ("/api/auth/change-key", by_key),
    ):
        assert door.post(path, body, **session).status_code == 429  # of the address
    assert door.post("/api/auth/login", by_password, WORK).status_code == 401
    assert door.post("/api/auth/change-password", change, WORK, **session).status_code == 401
    for path, body in (("/api/auth/login", by_password), ("/api/auth/change-password", change)):
        assert door.post(path, body, CAFE, **session).status_code == 429  # of the account
    assert door.hasher.steps == [*steps, "verify", "derive", "verify", "derive", "derive", "verify"]
    clock.advance(minutes=1)
    assert door.login(OWNER) == 200


def test_whoever_has_somebodys_token_tries_as_few_keys_as_at_the_log_in(make_door, clock):
    door = make_door(login_rate_limit_account_per_minute=3)
    session = {"Authorization": f"Bearer {door.token(OWNER)}"}
    colleagues = {"Authorization": f"Bearer {door.token(COLLEAGUE)}"}

    def change(number: int, **headers: str) -> int:
        body = {"derived_key": new_derived_key(), "new_derived_key": new_derived_key()}
        return door.post("/api/auth/change-key", body, f"192.0.2.{number}", **headers).status_code

    door.hasher.steps.clear()
    assert [change(number, **session) for number in range(5)] == [401] * 3 + [429] * 2
    assert door.hasher.steps == ["verify"] * 3
    assert change(1, **colleagues) == 401
    assert door.login(OWNER, CAFE) == 200
    clock.advance(minutes=1)
    assert change(1, **session) == 401


def test_unknown_names_and_wrong_passwords_take_the_same_steps_and_weak_ones_none(make_door):
    door = make_door()
    for name in (OWNER["username"], "unknown@example.com"):
        door.hasher.steps.clear()
        body = {"email": name, "password": "Tr4in-to-Nowhere"}
        assert door.post("/api/auth/login", body).status_code == 401
        assert door.hasher.steps == ["derive", "verify"]
    door.hasher.steps.clear()
    weak = {"email": "new@example.com", "password": "weak", "password_confirm": "weak"}
    assert [door.post("/api/auth/register", weak).status_code for _ in range(7)] == [400] * 5 + [429] * 2
    assert door.post("/register", {}).status_code == 429
    assert door.hasher.steps == []


def test_whether_a_name_is_free_is_told_ten_times_a_minute(make_door, clock):
    door = make_door()

    def ask(name: str, address: str = HOME) -> int:
        path = f"/api/auth/check-username?username={name}"
        return door.client.get(path, environ_base={"REMOTE_ADDR": address}).status_code

    assert [ask(name) for name in ("owner@example.com", "nobody", "") * 4] == [200, 200, 400] * 3 + [200, 429, 429]
    assert ask("nobody", WORK) == 200
    assert door.login(OWNER) == 200
    clock.advance(minutes=1)
    assert ask("nobody") == 200


def test_log_ins_registrations_and_refreshes_are_counted_apart(make_door):
    door = make_door(login_rate_limit_per_minute=2)
    bad = {"username": "", "derived_key": "", "refresh_token": ""}
    for path in ("/login", "/register", "/api/auth/refresh"):
        assert [door.post(path, bad).status_code for _ in range(4)] == [400, 400, 429, 429]
        assert door.post(path, bad, WORK).status_code == 400
    assert door.client.get("/api/auth/kdf", environ_base={"REMOTE_ADDR": HOME}).status_code == 200


def test_guesses_at_the_operators_token_are_few_and_keep_the_operator_out_of_nothing(make_door, clock):
    door = make_door(admin_rate_limit_per_minute=3)

    def ask(token: str, address: str = HOME) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return door.client.get("/admin/pool", headers=headers, environ_base={"REMOTE_ADDR": address}).status_code

    assert [ask(f"guess-{number}") for number in range(5)] == [401, 401, 401, 429, 429]
    assert [ask(ADMIN_TOKEN) for _ in range(3)] == [200] * 3  # from the same address
    assert ask(ADMIN_TOKEN, WORK) == 429  # by itself, it is counted wherever it comes from
    assert ask("guess", WORK) == 401
    clock.advance(minutes=1)
    assert ask(ADMIN_TOKEN) == 200


# ── addresses


def test_what_a_stranger_claims_to_forward_changes_nothing(make_door):
    door = make_door(trusted_proxies="10.0.0.0/8")
    claims = [{"X_Forwarded_For": f"203.0.113.{number}", "X_Real_IP": f"203.0.113.{number}"} for number in range(9)]
    assert [door.login(UNKNOWN, HOME, **claim) for claim in claims] == [401] * 5 + [429] * 4


def test_behind_a_trusted_proxy_each_client_counts_by_itself(make_door):
    door = make_door(trusted_proxies="10.0.0.0/8", login_rate_limit_account_per_minute=0)
    made_up = [f"203.0.113.{number}, {HOME}" for number in range(9)]
    assert [door.login(UNKNOWN, PROXY, X_Forwarded_For=text) for text in made_up] == [401] * 5 + [429] * 4
    assert door.login(UNKNOWN, PROXY, X_Forwarded_For=WORK) == 401
    assert door.login(UNKNOWN, HOME) == 429


def test_a_network_of_64_bits_is_one_person(make_door):
    door = make_door(login_rate_limit_account_per_minute=0)
    assert [door.login(UNKNOWN, f"2001:db8:1:2::{number:x}") for number in range(8)] == [401] * 5 + [429] * 3
    assert door.login(UNKNOWN, "2001:db8:1:3::1") == 401


# ── model calls


def test_every_answer_to_a_model_call_says_how_the_limits_stand(make_door, upstream):
    at_once = dict.fromkeys((f"rate_limit_{kind}_concurrent" for kind in ("user", "key", "address")), 0)
    door = make_door(rate_limit_user_rpm=9, max_body_bytes=1024, **at_once)
    token = door.token(OWNER)
    upstream.play_in_turn("m", (json_answer("200 OK", WHOLE),), (json_answer("404 Not Found", b'{"error":{}}'),))
    upstream.play("stream", SSE, chunked(EVENT, DONE))
    answers = [
        door.chat(token),
        door.chat(token),
        door.chat(token, model="stream", stream=True),
        door.chat(token, messages=[]),
        door.chat(token, user="x" * 2000),
        door.post("/v1/chat/completions", HELLO, Authorization=f"Bearer {token}", X_Session_Id="x" * 9000),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 200, 400, 413, 400]
    assert [rate_limits_in(answer.headers["RateLimit"])["user-requests"]["r"] for answer in answers] == [
        8,
        7,
        6,
        5,
        4,
        3,
    ]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"user-requests";q=9;w=60'}
    assert [door.chat(token).status_code for _ in range(4)] == [404, 404, 404, 429]
    refused = door.chat(token)
    assert rate_limits_in(refused.headers["RateLimit"])["user-requests"] == {"r": 0, "t": 60}
    assert refused.headers["Retry-After"] == "60"
    assert refused.json["message"] == "Too many requests: this service allows 9 a minute per user"
    assert len(upstream.requests_for("m")) == 5
    assert "RateLimit" not in door.chat("stranger").headers
    assert door.chat(door.token(COLLEAGUE)).status_code == 404


def test_tokens_are_those_that_openrouter_reports(make_door, upstream, clock):
    door = make_door(rate_limit_user_tpm=20)
    token = door.token(OWNER)
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"cost":0.1}}\n\n'
    upstream.play("m", json_answer("200 OK", WHOLE))
    upstream.play("stream", SSE, chunked(EVENT, usage, DONE))
    upstream.play("odd", json_answer("200 OK", b'{"usage":{"prompt_tokens":"7","completion_tokens":-3}}'))
    calls = [("m", False), ("stream", True), ("odd", False), ("m", False), ("m", False)]
    answers = []
    for model, stream in calls:
        answers.append(door.chat(token, model=model, stream=stream))
        assert answers[-1].data  # read to its end, which is when the call is over
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]
    assert [rate_limits_in(answer.headers["RateLimit"])["user-tokens"]["r"] for answer in answers] == [20, 13, 7, 7, 0]
    clock.advance(minutes=1)
    assert door.chat(token).status_code == 200


def test_a_call_is_over_however_it_ends(make_door, upstream):
    door = make_door(rate_limit_user_concurrent=1, rate_limit_address_concurrent=1)
    token = door.token(OWNER)
    upstream.play("m", json_answer("200 OK", WHOLE))
    upstream.play("refused", json_answer("400 Bad Request", b'{"error":{"code":400,"message":"no"}}'))
    upstream.play("broken", b"garbage\r\n\r\n")
    upstream.play("cut", SSE, chunked(EVENT, end=False), "close")
    for _ in range(2):
        for model, stream, status in [
            ("m", False, 200),
            ("refused", False, 400),
            ("broken", False, 502),
            ("cut", True, 200),
        ]:
            answer = door.chat(token, model=model, stream=stream)
            assert answer.status_code == status, (model, answer.data)
            answer.close()
        assert door.chat(token, messages=7).status_code == 400
        assert door.post("/v1/chat/completions", None, Authorization=f"Bearer {token}").status_code == 400
    assert door.chat(token).status_code == 200


def test_a_call_that_the_server_can_not_answer_is_over_too(make_door, upstream):
    door = make_door(rate_limit_user_concurrent=1)
    token = door.token(OWNER)
    upstream.play("m", SSE, chunked(EVENT, end=False), 5.0)

    def start_response(*_: object) -> None:
        raise RuntimeError("the server can't send this head")

    builder = EnvironBuilder("/v1/chat/completions", method="POST", json=HELLO | {"stream": True})
    builder.headers["Authorization"] = f"Bearer {token}"
    for _ in range(2):
        with pytest.raises(RuntimeError):
            door.client.application.wsgi_app(builder.get_environ(), start_response)
    upstream.play("m", json_answer("200 OK", WHOLE))
    assert door.chat(token).status_code == 200


# ── under both servers


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    yield scripted
    scripted.close()


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def start_limited(
    request: pytest.FixtureRequest, start: Callable[..., Gateway], shared_upstream: ScriptedUpstream
) -> Callable[..., Gateway]:
    settings = {"OPENROUTER_API_URL": shared_upstream.url, "OPENROUTER_API_KEYS": POOL_KEY, "SERVER_THREADS": 32}
    return lambda **more: start(SERVER=request.param, KEEPALIVE_SECONDS=1, **settings, **more)


def first_refused(gateway: Gateway, attempts: int, headers: Callable[[int], str]) -> int:
    """How many log-ins came before the first that was refused for their number; `attempts` if none was."""
    body = json.dumps(UNKNOWN).encode()
    for number in range(attempts):
        lines = "Content-Type: application/json\r\n" + headers(number)
        answer = read_all(gateway.open_raw(body, lines, "/login"))
        if b" 429 " in answer.partition(b"\r\n")[0]:
            return number
        assert answer.startswith(b"HTTP/1.1 401"), answer
    return attempts


def test_log_ins_stop_at_five_whatever_the_headers_claim(start_limited):
    gateway = start_limited(LOGIN_RATE_LIMIT_PER_MINUTE=5)
    forms = ["X-Forwarded-For", "X-Real-IP", "X_Forwarded_For", "Forwarded", "REMOTE_ADDR", "Remote-Addr"]
    claimed = [f"{form}: 203.0.113.{{}}\r\n" for form in forms]
    # The minute may end in between, once: then five more are let in.
    assert 5 <= first_refused(gateway, 20, lambda n: "".join(claimed).replace("{}", str(n))) <= 10


def test_a_trusted_proxy_is_believed_and_nobody_before_it(start_limited):
    gateway = start_limited(
        TRUSTED_PROXIES="127.0.0.0/8,10.0.0.0/8",
        LOGIN_RATE_LIMIT_PER_MINUTE=5,
        LOGIN_RATE_LIMIT_ACCOUNT_PER_MINUTE=0,
    )
    each_another = first_refused(gateway, 15, lambda n: f"X-Forwarded-For: 203.0.113.{n}\r\n")
    assert each_another == 15
    one = first_refused(gateway, 15, lambda n: f"X-Forwarded-For: 203.0.113.{n}, {HOME}, 10.0.0.{n}\r\n")
    assert 5 <= one <= 10
    two_lines = f"X-Forwarded-For: 203.0.113.{{}}\r\nX-Forwarded-For: {WORK}\r\nConnection: X-Forwarded-For\r\n"
    assert 5 <= first_refused(gateway, 15, lambda n: two_lines.replace("{}", str(n))) <= 10


def test_who_is_refused_is_not_waited_for_and_whose_client_goes_is_over(start_limited, shared_upstream):
    gateway = start_limited(RATE_LIMIT_USER_CONCURRENT=1)
    token = gateway.new_user()
    shared_upstream.play("held", SSE, chunked(EVENT, end=False), 20.0)
    shared_upstream.play("m", json_answer("200 OK", WHOLE))
    with gateway.open_chat(token, "held") as held:
        assert b"200" in held.recv(65536).partition(b"\r\n")[0]
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
            connection.sendall(f"{head}Content-Length: 500\r\n\r\n".encode())  # and no body
            assert connection.recv(65536).startswith(b"HTTP/1.1 429")
        refused = gateway.chat(token, "m")
        assert refusal_of(refused) == "Too many calls at once: this service allows 1 per user"
        assert rate_limits_in(refused.headers["RateLimit"]) == {"user-calls-at-once": {"r": 0}}
        assert gateway.chat(gateway.new_user(), "m").status_code == 200
    wait_for(lambda: gateway.chat(token, "m").status_code == 200)


def test_a_header_can_not_change_the_path_or_break_the_request(start_limited):
    gateway = start_limited()
    for lines in (
        "SCRIPT_NAME: /x\r\n",
        "PATH_INFO: /api/health\r\n",
        "X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n",
    ):
        assert read_all(gateway.open_raw(b"", lines, "/x/login")).startswith(b"HTTP/1.1 404"), lines
        assert read_all(gateway.open_raw(b"{}", lines, "/login")).startswith(b"HTTP/1.1 415"), lines


def test_through_a_unix_socket_gunicorn_believes_no_more_than_we_do(tmp_path):
    path = tmp_path / "s"
    settings = {"DATA_DIR": tmp_path / "data", "TRUSTED_PROXIES": "unix", "SERVER_THREADS": 8}
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "--bind", f"unix:{path}", "app:app"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment(**settings), stdout=log, stderr=log)

    def ask(lines: str, target: str = "/login") -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            head = f"POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n{lines}\r\n"
            connection.sendall(head.encode())
            return read_all(connection)[9:12]

    try:
        wait_for(lambda: server.poll() is not None or path.exists())
        assert {ask(f"X-Forwarded-For: 203.0.113.{number}\r\n") for number in range(12)} == {b"415"}
        codes = [ask(f"X-Forwarded-For: 203.0.113.{number}, {HOME}\r\n") for number in range(11)]
        assert codes[:5] == [b"415"] * 5
        assert b"429" in codes
        assert ask("SCRIPT_NAME: /x\r\n", "/x/login") == b"404"
        contradiction = "X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n"
        assert ask(contradiction) == b"415"
    finally:
        server.terminate()
        server.wait(60)


# ── Redis


def test_health_says_whether_redis_counts_and_without_it_limits_go_on(start, shared_upstream, redis_server):
    gateway = start(
        OPENROUTER_API_URL=shared_upstream.url,
        OPENROUTER_API_KEYS=POOL_KEY,
        REDIS_URL=redis_server.url,
        LOGIN_RATE_LIMIT_PER_MINUTE=5,
    )

    def health(status: str, cache: str) -> bool:
        answer = gateway.get("/api/health")
        assert answer.status_code == 200
        return (answer.json()["status"], answer.json()["cache"]) == (status, {"status": cache})

    wait_for(lambda: health("ok", "ok"))
    assert 5 <= first_refused(gateway, 15, lambda _: "") <= 10
    assert redis_server.client.keys("*/address/127.0.0.1/log-ins")
    redis_server.kill()
    wait_for(lambda: health("degraded", "unreachable"))
    assert 5 <= first_refused(gateway, 15, lambda _: "") <= 10
    redis_server.start()
    wait_for(lambda: health("ok", "ok"))
    assert 5 <= first_refused(gateway, 15, lambda _: "") <= 10
    gateway.stop()
    assert gateway.log().count("redis_unreachable") in {1, 2}  # at most one a minute
    assert "Traceback" not in gateway.log()

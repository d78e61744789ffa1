"""Starts the gateway and its background service as processes of their own, and speaks to them over sockets."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import os
import pty
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import requests

import app
from config import sources
from tests.support.prepared import Begun, Preparation

ROOT = Path(__file__).parents[2]
ADMIN_TOKEN = "Qd81-operators-own-Zx7Kp3Vt0Lm9Rw2Yc"
JSON = {"Content-Type": "application/json"}
# A string with parameters, as structured fields write them (RFC 9651).
RATE_LIMIT = r'"[a-z-]+"(?:;[a-z]+=(?:\d+|"[a-z-]+"))+'
# All users of the tests come from one address.
ANY_NUMBER = {
    "LOGIN_RATE_LIMIT_PER_MINUTE": 0,
    "LOGIN_RATE_LIMIT_ACCOUNT_PER_MINUTE": 0,
    "CHECK_USERNAME_RATE_LIMIT_PER_MINUTE": 0,
    "ADMIN_RATE_LIMIT_PER_MINUTE": 0,
    "PAGE_RATE_LIMIT_PER_MINUTE": 0,
    "RATE_LIMIT_USER_CONCURRENT": 0,
    "RATE_LIMIT_KEY_CONCURRENT": 0,
    "RATE_LIMIT_ADDRESS_CONCURRENT": 0,
    # They sign up by themselves, and spend what they want.
    "REGISTRATION": "open",
    "ALLOW_OPEN_WITHOUT_QUOTA": "true",
    "QUOTA_USD": "none",
}


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections by itself."""
    while True:
        port = secrets.choice(range(10_000, 30_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def new_derived_key() -> str:
    """What a client would send: 64 random base64url characters."""
    return base64.urlsafe_b64encode(secrets.token_bytes(48)).decode()


# Nobody in the tests has a certificate from an authority, and the key of this one is gone. To read all of the system's
# takes 20 ms of a core, for each process and each client that could speak TLS.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "nobodys_authority.pem")


def environment(**settings: object) -> dict[str, str]:
    """The environment of a child process: nothing of the developer's own configuration, then these settings."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")
    base = {name: os.environ[name] for name in kept if name in os.environ}
    base |= {"ENV_FILE": os.devnull, "FLASK_SKIP_DOTENV": "1"}
    return base | {name: str(value) for name, value in settings.items()}


@dataclasses.dataclass
class Gateway:
    """A running gateway. Its log is a file; `settings` is the environment it was started with."""

    process: subprocess.Popen[bytes] | Begun
    port: int
    log_file: Path
    settings: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def post(self, path: str, body: Any = None, token: str | None = None, **more: Any) -> requests.Response:
        headers = more.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        return requests.post(self.url + path, json=body, headers=headers, timeout=30, **more)

    def get(self, path: str, token: str | None = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.get(self.url + path, headers=headers, timeout=30)

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> requests.Response:
        """A request of any method to the API, whose answer has the headers that every answer has; body: JSON."""
        headers = {"Authorization": f"Bearer {token}".encode()} if token is not None else {}
        answer = requests.request(method, self.url + path, json=body, headers=headers, timeout=30)
        check_headers(answer)
        return answer

    def new_account(self, invitation: str | None = None) -> dict[str, str]:
        """Register somebody new; where not everybody may, by this invitation, or one that the operator makes."""
        account = {"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()}
        if invitation is None and self.settings.get("REGISTRATION", "open") != "open":
            invitation = self.post("/admin/invitations", {}, ADMIN_TOKEN).json()["invitation"]
        made = self.post("/register", account | ({"invitation": invitation} if invitation else {}))
        assert made.status_code == 201, made.text
        return account

    def new_user(self, invitation: str | None = None) -> str:
        """Register somebody new, as new_account does, and return their access token."""
        account = self.new_account(invitation)
        answer = self.post("/login", account)
        assert answer.status_code == 200, answer.text
        return answer.json()["token"]

    def chat(self, token: str, model: str = "openai/gpt-4o-mini", **fields: Any) -> requests.Response:
        """Ask the model something, through the gateway."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100, **fields}
        return self.post("/v1/chat/completions", body, token, stream=bool(fields.get("stream")))

    def open_chat(self, token: str, model: str, stream: bool = True, **fields: Any) -> socket.socket:
        """Send a chat request and return the connection, to read the answer byte by byte."""
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}], **fields}
        return self.open_raw(json.dumps(body).encode(), f"Authorization: Bearer {token}\r\n")

    def open_raw(self, body: bytes, headers: str = "", path: str = "/v1/chat/completions") -> socket.socket:
        head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(head.encode() + body)
        return connection

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the gateway and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


def user_id_of(token: str) -> int:
    """Whose access token it is."""
    payload = token.split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])


def refusal_of(answer: requests.Response) -> str:
    """The message of a refusal; asserts that it has the one shape and the headers of every answer."""
    assert 400 <= answer.status_code < 500 or answer.status_code == 503, (answer.status_code, answer.text)
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    message = body["message"]
    assert isinstance(message, str)
    assert message
    assert set(body) == {"error", "message", "detail"}
    assert set(body["error"]) == {"code", "message", "type", "param", "metadata"}
    assert body["detail"] == body["error"]["message"] == message
    assert body["error"]["code"] == answer.status_code
    assert set(body["error"]["metadata"]) == {"error_type"}
    check_headers(answer)
    return message


def rate_limits_in(field: str) -> dict[str, dict[str, int | str]]:
    """A RateLimit header, parsed: names and their parameters."""
    assert re.fullmatch(rf"{RATE_LIMIT}(?:, {RATE_LIMIT})*", field), field
    parsed: dict[str, dict[str, int | str]] = {}
    for item in field.split(", "):
        name, *parameters = item.split(";")
        pairs = (parameter.split("=") for parameter in parameters)
        parsed[name.strip('"')] = {key: int(value) if value.isdigit() else value.strip('"') for key, value in pairs}
    return parsed


def check_headers(answer: requests.Response) -> None:
    """Assert the headers that every answer has."""
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"


def shown(answer: requests.Response, status: int = 200) -> Any:
    """The JSON of an answer, which has this status."""
    assert answer.status_code == status, answer.text
    return answer.json()


def wait_for(find: Callable[[], Any], seconds: float = 60) -> Any:
    """Ask until there is an answer, and return it. seconds: long enough for a machine that does much else beside.

    Ever more seldom: most questions cost a server as much as what is waited for.
    """
    deadline, pause = time.monotonic() + seconds, 0.005
    while not (found := find()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)
        pause = min(pause * 1.3, 0.15)
    return found


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    received = bytearray()
    with connection:
        while data := connection.recv(1 << 20):
            received += data
    return bytes(received)


def body_of(answer: bytes) -> bytes:
    """The body of a raw answer, with its chunks put together."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size or b"0", 16)]
        rest = rest[int(size or b"0", 16) + 2 :]
    return body


def start_gateway(log_file: Path, by_app_py: bool = False, most_files: int = 0, **settings: object) -> Gateway:
    """Start a gateway and wait until it answers. The caller stops it.

    by_app_py: with `python app.py`, as people do. It checks and then becomes the server; without the checks a start
    costs half, and the tests start hundreds. most_files: how many it may open unless it raises that itself.
    """
    port = int(str(settings.pop("PORT", 0))) or free_port()
    env = environment(PORT=port, **ANY_NUMBER | settings)
    process: subprocess.Popen[bytes] | Begun
    with log_file.open("wb") as log, Path(os.devnull).open() as nothing:
        if by_app_py:
            command = [sys.executable, "app.py"]
            if most_files:
                command = ["sh", "-c", 'ulimit -S -n "$0" && exec "$@"', str(most_files), *command]
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        else:
            (_, *command), whole_env = app.server_process(sources.load(env), env)
            streams = nothing.fileno(), log.fileno(), log.fileno()
            process = preparation().begin(command, whole_env, streams)
    gateway = Gateway(process, port, log_file, env)

    def answers() -> bool:
        assert process.poll() is None, f"the gateway ended with {process.returncode}:\n{gateway.log()}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return False
        try:
            return gateway.get("/api/health").status_code in {200, 503}
        except requests.RequestException:
            return False

    try:
        wait_for(answers)
    except BaseException:
        gateway.stop(signal.SIGKILL)
        raise
    return gateway


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """What so many threads return that begin in one instant."""
    start, results = threading.Barrier(count), []

    def run() -> None:
        start.wait()
        results.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    return results


@functools.cache
def preparation() -> Preparation:
    """Has loaded what programs need; one for each test process."""
    return Preparation(str(ROOT), environment(**app.MEMORY_SETTINGS))


def is_prepared(command: Sequence[str]) -> bool:
    """True if what this command loads is loaded already."""
    return command[:2] == ("-m", "flask") or command[0] in {"app.py", "key_rotation.py"}


def in_processes(count: int, prepare: str, race: str, *arguments: str, **settings: object) -> list[str]:
    """Run Python in several processes at once; `race` begins when all have prepared. Returns what they printed."""
    program = f"import sys\n{prepare}\nprint('ready', flush=True)\nsys.stdin.readline()\n{race}"
    env, started = environment(**settings), []
    with ExitStack() as files:
        for _ in range(count):
            (heard, told), (seen, printed) = os.pipe(), os.pipe()
            complaints = files.enter_context(TemporaryFile("w+"))
            begun = preparation().begin(["-c", program, *arguments], env, (heard, printed, complaints.fileno()))
            os.close(heard)
            os.close(printed)
            orders, output = files.enter_context(os.fdopen(told, "w")), files.enter_context(os.fdopen(seen))
            started.append((begun, orders, output, complaints))
        for _, _, output, _ in started:
            output.readline()
        for _, orders, _, _ in started:
            orders.write("go\n")
            orders.flush()
        printed_by_all = []
        for begun, _, output, complaints in started:
            code = begun.wait(60)
            complaints.seek(0)
            assert code == 0, complaints.read()
            printed_by_all.append(output.read())
        return printed_by_all


def run(*command: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run one of the project's programs to its end."""
    env = environment(**settings)
    if not is_prepared(command):
        return subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
        )
    with Path(os.devnull).open() as nothing, TemporaryFile("w+") as printed, TemporaryFile("w+") as complaints:
        streams = nothing.fileno(), printed.fileno(), complaints.fileno()
        begun = preparation().begin(list(command), env, streams)
        try:
            code = begun.wait(60)
        except subprocess.TimeoutExpired:
            begun.kill()
            raise
        printed.seek(0)
        complaints.seek(0)
        return subprocess.CompletedProcess(command, code, printed.read(), complaints.read())


def on_terminal(
    *command: str, typed: Mapping[str, str] | None = None, **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run one of the project's programs on a terminal. typed: the answer to each prompt. stdout: all that is seen."""
    ours, theirs = pty.openpty()
    env = environment(**{"COLUMNS": 120, "TERM": "xterm"} | settings)
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process: Begun | subprocess.Popen[bytes]
    if is_prepared(command):
        process = preparation().begin(list(command), env, (theirs, theirs, theirs), own_session=True)
    else:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env, start_new_session=True, **streams)
    os.close(theirs)
    left, seen = dict(typed or {}), b""
    try:
        while data := os.read(ours, 4096):
            seen += data
            for prompt in [prompt for prompt in left if prompt.encode() in seen]:
                os.write(ours, f"{left.pop(prompt)}\n".encode())
    except OSError:  # how a terminal ends
        pass
    os.close(ours)
    without_colours = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    return subprocess.CompletedProcess(command, process.wait(), without_colours)

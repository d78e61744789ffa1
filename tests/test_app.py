"""The program as it is started: by itself, under each server, and refused in one clear line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

import app as module
from config.settings import SPARE_THREADS, Config
from db import Database, database_url
from foundation.crypto import Envelopes
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import (
    ADMIN_TOKEN,
    JSON,
    ROOT,
    Gateway,
    environment,
    free_port,
    new_derived_key,
    run,
    start_gateway,
    wait_for,
)
from vault import sealed

PRODUCTION = {"APP_ENV": "production", "SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "HOST": "127.0.0.1"}
SERVERS = ["granian", "gunicorn"]


# ── starting


def test_importing_the_program_does_no_work(tmp_path):
    run("-c", "import app", DATA_DIR=tmp_path / "data", APP_ENV="nonsense")
    assert list(tmp_path.iterdir()) == []


def test_there_is_no_other_attribute():
    with pytest.raises(AttributeError):
        _ = module.application


LOADED = """
import sys, app
app.check(app.configure())
print(*{"services", "flask", "rich"} & set(sys.modules))
found = app.app
print(*{"web", "gateway", "serving", "rich", "jwt", "limits", "mysql"} - set(sys.modules))
"""


def test_what_checks_and_what_runs_a_command_load_no_more_than_they_need(tmp_path):
    """A start and a command would take twice as long."""
    shown = run("-c", LOADED, DATA_DIR=tmp_path, FLASK_RUN_FROM_CLI="true")
    checked, missing = shown.stdout.splitlines()
    assert checked == "", shown.stderr
    assert set(missing.split()) == {"web", "serving", "rich", "jwt", "limits", "mysql"}


def test_routes_are_there_for_commands_of_flasks_own(tmp_path):
    shown = run("-m", "flask", "--app", "app", "routes", DATA_DIR=tmp_path)
    assert "/api/health" in shown.stdout
    named = run("-m", "flask", "--app", "app", "users", "show", "run", DATA_DIR=tmp_path)
    assert (named.returncode, "'run' is not a valid integer" in named.stderr) == (2, True)


def test_the_process_that_has_checked_is_known_to_the_server_that_it_becomes():
    _, environ = module.server_process(Config(), {})
    assert environ[module.CHECKED] == str(os.getpid())


COMMANDS = {
    "gunicorn": ["-m", "gunicorn", "app:app"],
    "granian": ["-m", "granian", "--interface", "wsgi", "--port", "{port}", "app:app"],
    "flask": ["-m", "flask", "--app", "app", "run", "--port", "{port}"],
}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Start the application by a command other than `python app.py`."""
    started: list[Gateway] = []

    def begin(command: list[str]) -> Gateway:
        port, log = free_port(), tmp_path / "log"
        env = environment(PORT=port, DATA_DIR=tmp_path / "data")
        words = [sys.executable, *(word.format(port=port) for word in command)]
        with log.open("wb") as out:
            process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=out, stderr=out)
        started.append(Gateway(process, port, log, env))
        return started[-1]

    yield begin
    for gateway in started:
        gateway.stop()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_application_is_served_by_whoever_asks_for_it(running, name):
    gateway = running(COMMANDS[name])

    def answers() -> bool:
        assert gateway.process.poll() is None, gateway.log()
        try:
            return gateway.get("/api/health").status_code == 503
        except requests.RequestException:
            return False

    wait_for(answers)
    assert gateway.new_user()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """`python app.py` with these settings."""
    started: list[Gateway] = []

    def begin(**settings: Any) -> Gateway:
        started.append(start_gateway(tmp_path / "log", by_app_py=True, **{"DATA_DIR": tmp_path / "data"} | settings))
        return started[-1]

    yield begin
    for gateway in started:
        gateway.stop()


@pytest.mark.parametrize("server", SERVERS)
def test_several_workers_serve_one_address_and_know_the_same_people(launch, server):
    gateway = launch(SERVER=server, SERVER_WORKERS=2)
    server_process = psutil.Process(gateway.process.pid)
    wait_for(lambda: sum("app:app" in child.cmdline() for child in server_process.children()) >= 2)
    account = {"username": "owner", "derived_key": new_derived_key()}
    assert gateway.post("/register", account).status_code == 201
    tokens = [gateway.post("/login", account).json()["token"] for _ in range(4)]
    for token in tokens:
        assert gateway.post("/api/auth/logout", token=token).status_code == 200


def end(gateway: Gateway, number: int) -> None:
    """Tell the server to end: it does so cleanly and frees its port."""
    assert gateway.stop(number) == 0
    assert "Traceback" not in gateway.log()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", gateway.port))


@pytest.mark.parametrize("server", SERVERS)
def test_in_production_the_log_is_json_lines_with_the_requests_ids_and_nothing_private(launch, server):
    gateway = launch(SERVER=server, LOG_LEVEL="DEBUG", REGISTRATION="open", ADMIN_TOKEN=ADMIN_TOKEN, **PRODUCTION)
    answer = gateway.post("/register", {"username": "canary@example.com", "derived_key": new_derived_key()})
    assert answer.status_code == 201
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(b"canary of a prompt: the rest of a body whose length was wrong\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    server_process = psutil.Process(gateway.process.pid)
    for process in [server_process, *server_process.children(recursive=True)]:
        assert not any(secret in word for word in process.cmdline() for secret in (SECRET_KEY, ENCRYPTION_KEY))
    end(gateway, signal.SIGTERM)
    lines = [json.loads(line) for line in gateway.log().splitlines()]
    [registered] = [line for line in lines if line["event"] == "registered"]
    assert registered["request_id"] == answer.headers["X-Request-Id"]
    assert all({"at", "level", "logger", "event"} <= set(line) for line in lines)
    assert "canary" not in gateway.log()


@pytest.mark.parametrize("server", SERVERS)
def test_a_quiet_log_level_is_quiet_under_each_server(launch, server):
    gateway = launch(SERVER=server, LOG_LEVEL="ERROR", ADMIN_TOKEN=ADMIN_TOKEN)
    gateway.new_user()
    end(gateway, signal.SIGINT)
    assert gateway.log() == ""


QUIT = """
import runpy, threading
from concurrent.futures import ThreadPoolExecutor
from gunicorn.config import Config
worker = object.__new__(runpy.run_path("gunicorn.conf.py")["Worker"])
worker.cfg, worker.tpool = Config(), ThreadPoolExecutor(1)
with worker.tpool._shutdown_lock:
    ending = threading.Thread(target=worker.handle_quit, args=(3, None), daemon=True)
    ending.start()
    ending.join(5)
    print("waits" if ending.is_alive() else "ends")
"""


def test_a_gunicorn_worker_that_is_interrupted_while_it_hands_out_a_request_ends(tmp_path):
    """The thread pool is locked at that moment, by the very thread that the signal interrupts."""
    assert run("-c", QUIT, DATA_DIR=tmp_path).stdout == "ends\n"


def test_the_address_is_that_of_the_settings():
    command = module.granian_command(Config(host="::1", port=7001, server_workers=3, server_threads=70))
    options = dict(zip(command[1::2], command[2::2], strict=False))
    assert (options["--host"], options["--port"]) == ("::1", "7001")
    assert (options["--workers"], options["--blocking-threads"]) == ("3", str(70 + SPARE_THREADS))


@pytest.mark.parametrize("server", ["granian", "gunicorn"])
def test_idle_connections_keep_nobody_out(start, server):
    gateway = start(SERVER=server, SERVER_THREADS=8)
    ask = b"GET /api/health HTTP/1.1\r\nHost: gateway\r\n\r\n"
    kept = []
    for _ in range(150):
        connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
        connection.sendall(ask)
        assert connection.recv(4096).startswith(b"HTTP/1.1 503")  # the pool is empty
        kept.append(connection)
    for connection in kept:
        connection.close()


# ── refusing


def refusal(**settings: object) -> str:
    """The one line with which a start is refused."""
    ended = run("app.py", **settings)
    assert (ended.returncode, ended.stdout) == (1, "")
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("Cannot start: "), ended.stderr
    assert "Traceback" not in ended.stderr
    return line


@pytest.mark.parametrize("server", SERVERS)
def test_a_taken_port_is_refused_and_not_shared(tmp_path, server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refusal(PORT=port, SERVER=server, DATA_DIR=tmp_path)
    assert line == f"Cannot start: can't listen on 127.0.0.1:{port} (Address already in use); set HOST and PORT"
    assert not list(tmp_path.glob("*.db")), "a database was made for nobody"


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 80, "a..b", "203.0.113.7"])
def test_an_address_that_is_not_ours_is_refused(tmp_path, host):
    assert refusal(HOST=host, PORT=free_port(), DATA_DIR=tmp_path).startswith(f"Cannot start: can't listen on {host}")


def test_a_wrong_encryption_key_is_refused_and_nothing_is_written(tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    db = Database(database_url(Config(database_url=url)))
    db.upgrade()
    sealed.open_deployment_key(
        db, Envelopes(["N3NYZl9wTGs2UTJ3RTh0WTR1STBvUDFhUzNkRjVnSDc="]), sealed.USERNAME_KEY, datetime.now(UTC)
    )
    db.close()
    before = (tmp_path / "x.db").read_bytes()
    line = refusal(DATABASE_URL=url, DATA_DIR=tmp_path / "data", **PRODUCTION)
    assert "Was it sealed with another ENCRYPTION_KEY? Nothing was written." in line
    assert (tmp_path / "x.db").read_bytes() == before
    assert not (tmp_path / "data").exists() or list((tmp_path / "data").iterdir()) == []


def test_a_database_that_refuses_is_told_without_its_password(mariadb, tmp_path):
    url = mariadb.new_database().replace("root@", "app:geheim-Wq8vT2Lm4xKp7@")
    line = refusal(DATABASE_URL=url, DATA_DIR=tmp_path, **PRODUCTION)
    assert line.startswith("Cannot start: the database refuses (")
    assert "geheim" not in line


def test_gunicorn_refuses_before_it_listens(mariadb, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "app:app"]
    env = environment(DATABASE_URL=mariadb.new_database() + "_none", DATA_DIR=tmp_path, PORT=port)
    ended = subprocess.run(command, check=False, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "Cannot start: the database refuses" in ended.stderr
    assert "Listening" not in ended.stderr


def test_gunicorn_works_from_any_folder(tmp_path):
    port = free_port()
    env = environment(DATA_DIR=tmp_path / "data", PORT=port) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gunicorn", "--config", f"{ROOT}/gunicorn.conf.py", "app:app"]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/api/health"

        def answers() -> bool:
            try:
                return requests.get(url, headers=JSON, timeout=30).status_code == 503
            except requests.RequestException:
                return False

        wait_for(answers)
    finally:
        process.terminate()
        process.wait(60)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

"""deploy/compose and deploy/small: what they say beside the root's docker-compose.yml, and their commands run without Docker.

tests/test_deploy.py says how: the image in a read-only folder, the environment that compose would give, no capability.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from config.settings import SECRET_NAMES, Config
from tests.sandbox.conftest import Running
from tests.support.gateway import ROOT, Gateway, free_port, new_derived_key, wait_for
from tests.support.mariadb import DatabaseServer
from tests.support.rows import each_row
from tests.test_deploy import COMPOSE as ROOTS
from tests.test_deploy import (
    build_image,
    confined,
    image_environment,
    instruction,
    interpolate,
    made_secrets,
    run,
    set_writable,
)

LARGE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose/docker-compose.yml").read_text())
SMALL: dict[str, Any] = yaml.safe_load((ROOT / "deploy/small/docker-compose.yml").read_text())
SERVICES = [
    (f"{name}/{service}", terms)
    for name, one in (("compose", LARGE), ("small", SMALL))
    for service, terms in one["services"].items()
]
SERVICE = each_row("name, terms", SERVICES, ids=lambda value: value if isinstance(value, str) else "")


# ── what the files say


@SERVICE
def test_every_service_has_limits_and_gains_nothing(name, terms):
    assert re.fullmatch(r"\d+[mg]", terms["mem_limit"])
    assert 0 < terms["pids_limit"] <= 4096
    assert terms["security_opt"] == ["no-new-privileges:true"]
    assert terms["restart"] == "unless-stopped"
    if not name.endswith("mysql"):
        assert (terms["read_only"], terms["cap_drop"]) == (True, ["ALL"])


@SERVICE
def test_only_what_faces_clients_has_a_port_and_by_default_for_this_machine(name, terms):
    assert ("ports" in terms) == (name in {"compose/caddy", "small/app"})
    for port in terms.get("ports", []):
        assert interpolate(port, {}).startswith("127.0.0.1:")


def test_secrets_are_files_and_no_environment_holds_one():
    for name, terms in LARGE["services"].items():
        environment = terms.get("environment", {})
        assert not {
            one for one in environment if re.search("PASSWORD$|SECRET_KEY$|ENCRYPTION_KEY$|PROVISION_KEY$", one)
        } - {"MYSQL_RANDOM_ROOT_PASSWORD"}, name
        files = {
            value.removeprefix("/run/secrets/") for one, value in environment.items() if one.endswith("_FILE") and value
        }
        assert files == set(terms.get("secrets", [])), name
    assert [name for name, terms in LARGE["services"].items() if "openrouter_provision_key" in str(terms)] == [
        "rotation"
    ]
    assert set(LARGE["secrets"]) == {"secret_key", "encryption_key", "db_password", "openrouter_provision_key"}


def test_the_same_settings_reach_the_programs_as_in_the_root():
    for name in ("app", "rotation"):
        roots = set(ROOTS["services"][name]["environment"])
        ours = {one.removesuffix("_FILE") for one in LARGE["services"][name]["environment"]}
        assert roots - ours <= {"ADMIN_TOKEN", "METRICS_TOKEN"}, name
        assert ours <= roots, name
    assert {one.lower() for one in SMALL["services"]["app"]["environment"]} <= set(Config.model_fields)


def test_replicas_can_be_scaled():
    app = LARGE["services"]["app"]
    assert "ports" not in app
    assert "container_name" not in app
    assert app["environment"]["TRUSTED_PROXIES"] == LARGE["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    assert app["environment"]["REDIS_URL"] == "redis://redis/0"


# ── the commands, run


def made_folder(folder: Path) -> subprocess.CompletedProcess[str]:
    """A copy of deploy/compose, with what its README has one write, and make-secrets run in it."""
    shutil.copytree(ROOT / "deploy/compose", folder, dirs_exist_ok=True)
    return run([str(folder / "make-secrets")])


def test_secrets_are_made_once_and_what_is_missing_is_named(tmp_path):
    first = made_folder(tmp_path)
    assert (first.returncode, "management key into" in first.stderr) == (1, True)
    (tmp_path / "secrets/openrouter_provision_key").write_text("sk-or-v1-x")
    assert "DOMAIN=" in made_folder(tmp_path).stderr
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    (tmp_path / ".env").write_text((tmp_path / ".env").read_text() + "DOMAIN=gateway.example.com\n")
    assert made_folder(tmp_path).returncode == 0
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
    assert re.fullmatch(r"DEPLOYMENT_ID=\w{16}\nDOMAIN=.*\n", (tmp_path / ".env").read_text())
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0


class House:
    """What `docker compose up --scale app=2` would run, run here: two replicas on one volume, each at an address."""

    def __init__(self, folder: Path, mariadb: DatabaseServer, stand_in: Running, redis_url: str) -> None:
        self.folder, self.port = folder, free_port()
        self.started: list[subprocess.Popen[bytes]] = []
        made_folder(folder / "compose")
        self.secrets = folder / "compose/secrets"
        for path in (self.secrets, *self.secrets.iterdir()):
            os.chown(path, os.geteuid(), os.getegid())  # the user of the processes below
        (self.secrets / "openrouter_provision_key").write_text(stand_in.management_key)
        self.password = (self.secrets / "db_password").read_text().strip()
        dot_env = (folder / "compose/.env").read_text()
        self.env_file = dict(line.split("=", 1) for line in dot_env.splitlines())
        self.env_file |= {"DOMAIN": "gateway.example.com", "POOL_SIZE": "2", "SERVER_THREADS": "32"}
        self.here = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": "/nonexistent",
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(mariadb.port),
            "OPENROUTER_API_URL": stand_in.address,
            "REDIS_URL": redis_url,
            "TMPDIR": str(folder / "tmp"),
            "DATA_DIR": str(folder / "data"),
            "PORT": str(self.port),
        }
        for name in ("tmp", "data"):
            (folder / name).mkdir()
        build_image(folder / "app")

    def environment(self, service: str) -> dict[str, str]:
        given = LARGE["services"][service]["environment"]
        found = {
            one: self.env_file.get(one) if value is None else interpolate(value, self.env_file)
            for one, value in given.items()
        }
        found = {
            one: value.replace("/run/secrets", str(self.secrets)) for one, value in found.items() if value is not None
        }
        return {**image_environment(), **found, **self.here}

    def start(self, service: str, address: str = "") -> Gateway:
        command = LARGE["services"][service].get("command") or json.loads(instruction("CMD"))
        environment = self.environment(service) | ({"HOST": address} if address else {})
        log_file = self.folder / f"{service}{address}.log"
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                confined(command), cwd=self.folder / "app", env=environment, stdout=log, stderr=log
            )
        self.started.append(process)
        return Gateway(process, self.port, log_file, {"REGISTRATION": "open"})


@pytest.fixture
def house(mariadb, stand_in, redis_server, tmp_path) -> Iterator[House]:
    made = House(tmp_path, mariadb, stand_in, redis_server.url)
    database = LARGE["services"]["mysql"]["environment"]
    name, user = database["MYSQL_DATABASE"], database["MYSQL_USER"]
    mariadb.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
    mariadb.execute(f"CREATE USER '{user}'@'127.0.0.1' IDENTIFIED BY '{made.password}'")
    mariadb.execute(f"GRANT ALL ON {name}.* TO '{user}'@'127.0.0.1'")
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.wait(60)
    set_writable(tmp_path / "app", True)
    mariadb.execute(f"DROP DATABASE {name}")
    mariadb.execute(f"DROP USER '{user}'@'127.0.0.1'")


def ask(address: str, port: int, path: str, token: str | None = None, body: Any = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    method = "POST" if body else "GET"
    return requests.request(method, f"http://{address}:{port}{path}", json=body, headers=headers, timeout=30)


def test_two_replicas_share_a_volume_and_one_takes_over_what_a_killed_one_has_not_brought_in(house):
    first, second = "127.0.0.2", "127.0.0.3"
    gateways = {address: house.start("app", address) for address in (first, second)}
    house.start("rotation")

    def healthy(address: str) -> bool:
        assert gateways[address].process.poll() is None, gateways[address].log()
        try:
            return ask(address, house.port, "/api/health").json()["status"] == "ok"
        except requests.RequestException:
            return False

    for address in gateways:
        wait_for(lambda address=address: healthy(address))
    links = [link for one in gateways.values() for link in re.findall(r"#invitation=(inv_[\w-]+)", one.log())]
    account = {"username": "ann@example.com", "derived_key": new_derived_key()}
    made = [ask(first, house.port, "/register", body=account | {"invitation": link}).status_code for link in links]
    assert made.count(201) == 1, "the first operator's link"
    token = ask(second, house.port, "/login", body=account).json()["token"]
    call = {"model": "openai/gpt-4o-mini", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
    for address in gateways:
        assert ask(address, house.port, "/v1/chat/completions", token, call).status_code == 200
    gateways[first].process.kill()
    wait_for(lambda: ask(second, house.port, "/api/usage/logs", token).json()["total"] == 2)
    assert ask(second, house.port, "/v1/chat/completions", token, call).status_code == 200


def test_redis_and_the_health_checks_commands(tmp_path):
    *_, script = LARGE["services"]["mysql"]["healthcheck"]["test"]
    assert run(["/bin/sh", "-n", "-c", interpolate(script, {})]).returncode == 0
    service, port = LARGE["services"]["redis"], str(free_port())
    process = subprocess.Popen([*service["command"], "--port", port], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        ping = [*service["healthcheck"]["test"][1:2], "-p", port, *service["healthcheck"]["test"][2:]]
        wait_for(lambda: run(ping).stdout == "PONG\n")
    finally:
        process.terminate()
        process.wait(30)
    assert list(tmp_path.iterdir()) == [], "it keeps nothing"


def test_the_small_one_serves_with_sqlite_alone(stand_in, tmp_path):
    app, port = SMALL["services"]["app"], free_port()
    made = made_secrets() | {"OPENROUTER_API_KEYS": stand_in.new_key()["key"], "OPENROUTER_API_URL": stand_in.address}
    given = {
        one: made.get(one) if value is None else interpolate(value, made) for one, value in app["environment"].items()
    }
    environment = {**image_environment(), **{one: value for one, value in given.items() if value}}
    environment |= {"DATA_DIR": str(tmp_path / "data"), "HOST": "127.0.0.1", "PORT": str(port), "TMPDIR": str(tmp_path)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    (tmp_path / "data").mkdir()
    build_image(tmp_path / "app")
    log_file = tmp_path / "log"
    with log_file.open("wb") as log:
        command = confined(json.loads(instruction("CMD")))
        process = subprocess.Popen(command, cwd=tmp_path / "app", env=environment, stdout=log, stderr=log)
    gateway = Gateway(process, port, log_file, {"REGISTRATION": "invite"})
    try:

        def found() -> list[str]:
            assert process.poll() is None, gateway.log()
            return re.findall(r"#invitation=(inv_[\w-]+)", gateway.log())

        [invitation] = wait_for(found)
        wait_for(lambda: run(["curl", "-sf", f"http://127.0.0.1:{port}/livez"]).returncode == 0)
        assert gateway.chat(gateway.new_user(invitation)).status_code == 200
    finally:
        process.terminate()
        assert process.wait(60) == 0
        set_writable(tmp_path / "app", True)


def test_every_secret_may_come_from_a_file(tmp_path):
    """Of all of them, not of a list that is kept by hand: docs/settings.md says so."""
    from config import sources

    for name in SECRET_NAMES:
        told = sources.problems({f"{name}_FILE": str(tmp_path / "missing")})
        assert f"{name}_FILE: cannot read {tmp_path / 'missing'} (FileNotFoundError)" in told

"""Dockerfile and docker-compose.yml: what they say, and every command in them run as a container would run it.

The commands run without Docker: in a read-only folder that holds what the image would hold, with the environment that
compose would give them and no other, without capabilities. Only addresses, ports and folders differ.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from config import sources
from config.settings import LAST_WORDS_SECONDS, SECRET_NAMES, Config
from tests.sandbox.conftest import Running
from tests.support.gateway import ROOT, Gateway, free_port, new_derived_key, wait_for
from tests.support.mariadb import DatabaseServer

COMPOSE_FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("app", "rotation")
# Settings that the image or docker-compose.yml decides; the others must reach the program that reads them.
DECIDED = {"HOST", "PORT", "DATA_DIR", "FLASK_DEBUG", "DATABASE_URL"}
VARIABLE = re.compile(r"\$(?:(\$)|\{(?P<name>\w+)(?:(?P<how>:[?-])(?P<text>[^}]*))?\})")


def dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with the rest of its line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def instruction(name: str) -> str:
    """The rest of the only instruction of this name."""
    [found] = [rest for word, rest in dockerfile() if word == name]
    return found


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for word, rest in dockerfile() if word == "ENV" for pair in rest.split())


def copied() -> list[str]:
    """The sources of the Dockerfile's COPY lines."""
    return [source for word, rest in dockerfile() if word == "COPY" for source in rest.split()[:-1]]


def health_command() -> list[str]:
    command: list[str] = json.loads(re.split(r"\sCMD\s", f" {instruction('HEALTHCHECK')}")[1])
    return command


def interpolate(value: Any, env_file: Mapping[str, str]) -> str:
    """A value of docker-compose.yml as Compose reads it. Raises KeyError for a required variable that is missing."""

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        found = env_file.get(match["name"], "")
        if not found and match["how"] == ":?":
            raise KeyError(match["name"])
        return found or match["text"] or ""

    return VARIABLE.sub(replace, str(value))


def environment_of(service: str, env_file: Mapping[str, str]) -> dict[str, str]:
    """What Compose gives a service: a name without a value is passed on if it is set."""
    found = {
        name: env_file.get(name) if value is None else interpolate(value, env_file)
        for name, value in SERVICES[service]["environment"].items()
    }
    return {name: value for name, value in found.items() if value is not None}


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, **options)


def made_secrets() -> dict[str, str]:
    """Each secret made by the command that .env.example names for it."""
    commands = re.findall(r"^#   ([A-Z_]+) +(openssl .*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    return {
        name: subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout.strip()
        for name, command in commands
    }


# ── what the files say


def test_dockerfile_names_what_exists_and_leaves_the_rest_out() -> None:
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignore[0] == "*"
    assert {line[1:] for line in ignore if line.startswith("!")} == set(copied())
    for source in copied():
        assert list(ROOT.glob(source)), source
    python_folders = {path.parent.name for path in ROOT.glob("*/*.py")} - {"bench", "deploy", "sandbox", "tests"}
    assert python_folders <= set(copied()), "a folder of the product that the image lacks"


def test_dockerfile_is_careful() -> None:
    assert re.fullmatch(r"python:3\.\d+-slim", instruction("FROM"))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instruction("USER")), "a number, so that orchestrators see it is not root"
    assert json.loads(instruction("CMD")) == ["python", "app.py"]
    assert instruction("STOPSIGNAL") == "SIGTERM"
    assert instruction("EXPOSE") == "5000"
    assert "--require-hashes" in next(rest for word, rest in dockerfile() if word == "RUN" and "pip install" in rest)
    assert not set(image_environment()) & SECRET_NAMES
    assert image_environment()["APP_ENV"] == "production"
    assert f"--mode=0700 {image_environment()['DATA_DIR']}" in " ".join(rest for _, rest in dockerfile())


def test_compose_file_is_well_formed() -> None:
    assert set(COMPOSE) == {"name", "x-service", "x-environment", "services", "volumes"}
    known = {"image", "build", "command", "depends_on", "healthcheck", "restart", "stop_grace_period", "logging"}
    known |= {"init", "read_only", "tmpfs", "cap_drop", "security_opt", "ulimits", "environment", "ports", "volumes"}
    for name, service in SERVICES.items():
        assert set(service) <= known, name
        for other, terms in service.get("depends_on", {}).items():
            assert terms == {"condition": "service_healthy"}
            assert SERVICES[other]["healthcheck"]
        for mount in service.get("volumes", []):
            volume, _, folder = mount.partition(":")
            assert volume in COMPOSE["volumes"]
            assert folder.startswith("/")
        for duration in ("interval", "timeout", "start_period"):
            assert re.fullmatch(r"\d+s", service.get("healthcheck", {}).get(duration, "1s"))
        assert all(value is None or isinstance(value, str) for value in service["environment"].values()), name


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["init"] is True
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["depends_on"] == {"mysql": {"condition": "service_healthy"}}
    assert service["restart"] == "unless-stopped"


def test_a_stop_leaves_running_answers_their_time() -> None:
    grace_seconds = int(SERVICES["app"]["stop_grace_period"].removesuffix("s"))
    assert grace_seconds > Config(secret_key="", encryption_key="").whole_drain_seconds + LAST_WORDS_SECONDS


def test_only_the_gateway_is_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"app"}
    assert SERVICES["app"]["ports"] == ["${PORT:-5000}:5000"]


def test_only_the_rotation_gets_the_management_key() -> None:
    holders = [name for name, service in SERVICES.items() if "OPENROUTER_PROVISION_KEY" in str(service)]
    assert holders == ["rotation"]


def test_operators_are_told_the_pool_size_that_the_rotation_keeps() -> None:
    assert [name for name in OURS if "POOL_SIZE" in SERVICES[name]["environment"]] == [*OURS]


def test_no_credential_has_a_default() -> None:
    for name, service in SERVICES.items():
        for variable, value in service["environment"].items():
            if re.search("PASSWORD|KEYS?$|TOKEN|SECRET", variable):
                assert value is None or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name}: {variable}"


def test_every_setting_reaches_a_program() -> None:
    passed = {variable for name in OURS for variable in SERVICES[name]["environment"]}
    assert {name.upper() for name in Config.model_fields} == passed | DECIDED
    assert not passed & DECIDED


def required_variables() -> list[str]:
    return sorted(set(re.findall(r"\$\{(\w+):\?", COMPOSE_FILE.read_text())))


def test_env_example_leaves_open_what_compose_requires() -> None:
    empty = re.findall(r"^([A-Z_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(empty) == required_variables()


# ── Compose itself, where it is installed


def compose_command() -> list[str]:
    """The command line of Docker Compose 2 or newer; skips the test on a machine without it."""
    search_path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for program, *arguments in (["docker", "compose"], ["docker-compose"]):
        if found := shutil.which(program, path=search_path):
            version = run([found, *arguments, "version", "--short"])
            if re.match(r"v?[2-9]", version.stdout):
                return [found, *arguments]
    pytest.skip("no Docker Compose here; the other tests read the file without it")


def compose_config(folder: Path, env_file: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = compose_command()
    shutil.copy(COMPOSE_FILE, folder)
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in env_file.items()))
    # What the developer's shell has set would win over .env.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ}
    return run([*command, "config", "--format", "json"], cwd=folder, env=environment)


def test_compose_reads_the_file_as_these_tests_do(tmp_path: Path) -> None:
    env_file = {name: f"test-{name}" for name in required_variables()} | {"POOL_SIZE": "7", "LOG_LEVEL": ""}
    answer = compose_config(tmp_path, env_file)
    assert answer.returncode == 0, answer.stderr
    for name, service in json.loads(answer.stdout)["services"].items():
        environment = {variable: value for variable, value in service["environment"].items() if value is not None}
        assert environment == environment_of(name, env_file)


def test_compose_names_a_missing_secret(tmp_path: Path) -> None:
    for missing in required_variables():
        answer = compose_config(tmp_path, dict.fromkeys(required_variables(), "test") | {missing: ""})
        assert answer.returncode != 0
        assert f"{missing} is missing a value: set it in .env" in answer.stderr


# ── the commands, run


@dataclass
class Deployment:
    """What docker compose would run, run here."""

    folder: Path
    env_file: dict[str, str]
    overrides: dict[str, dict[str, str]]
    port: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def environment(self, service: str) -> dict[str, str]:
        """The image's, then compose's, then what differs here."""
        image = image_environment() if service in OURS else {}
        return {**image, **environment_of(service, self.env_file), **self.overrides[service]}

    def start(self, service: str) -> subprocess.Popen[bytes]:
        command = SERVICES[service].get("command") or json.loads(instruction("CMD"))
        with self.log_file(service).open("ab") as log:
            process = subprocess.Popen(
                confined(command), cwd=self.folder / "app", env=self.environment(service), stdout=log, stderr=log
            )
        self.started.append(process)
        return process

    def check_health(self, service: str) -> subprocess.CompletedProcess[str]:
        """Run the service's health check once."""
        how, *command = SERVICES[service].get("healthcheck", {}).get("test") or ["CMD", *health_command()]
        command = [interpolate(part, {}) for part in command]
        if how == "CMD-SHELL":
            command = ["/bin/sh", "-c", *command]
        return run(confined(command), cwd=self.folder / "app", env=self.environment(service))

    def log_file(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    def files(self) -> list[Path]:
        return sorted((self.folder / "app").rglob("*"))


def confined(command: list[str]) -> list[str]:
    """The command without any capability; for root that is what makes read-only folders read-only."""
    drop = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    return [*drop, *command] if os.geteuid() == 0 else list(command)


def build_image(folder: Path) -> None:
    """Copy what the Dockerfile copies, and make it read-only."""
    folder.mkdir()
    for source in copied():
        for path in ROOT.glob(source):
            if path.is_dir():
                shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, folder)
    set_writable(folder, False)


def set_writable(folder: Path, writable: bool) -> None:
    for path in [folder, *folder.rglob("*")]:
        mode = path.stat().st_mode
        path.chmod(mode | 0o200 if writable else mode & ~0o222)


@pytest.fixture
def deployment(mariadb: DatabaseServer, stand_in: Running, tmp_path: Path) -> Iterator[Deployment]:
    """The image in a folder, a database as the mysql service would make it, and a filled .env."""
    env_file = made_secrets() | {
        "OPENROUTER_PROVISION_KEY": stand_in.management_key,
        "POOL_SIZE": "2",
        "SERVER_THREADS": "32",
    }
    database = environment_of("mysql", env_file)
    name, user = database["MYSQL_DATABASE"], database["MYSQL_USER"]
    mariadb.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
    mariadb.execute(f"CREATE USER '{user}'@'127.0.0.1' IDENTIFIED BY '{database['MYSQL_PASSWORD']}'")
    mariadb.execute(f"GRANT ALL ON {name}.* TO '{user}'@'127.0.0.1'")

    build_image(tmp_path / "app")
    for name_of_folder in ("data", "tmp"):
        (tmp_path / name_of_folder).mkdir()
    port = free_port()
    base = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ours = base | {
        "HOME": "/nonexistent",
        "DB_HOST": "127.0.0.1",
        "DB_PORT": str(mariadb.port),
        "OPENROUTER_API_URL": stand_in.address,
        "TMPDIR": str(tmp_path / "tmp"),
    }
    overrides = {
        "app": ours | {"HOST": "127.0.0.1", "PORT": str(port), "DATA_DIR": str(tmp_path / "data")},
        "rotation": ours | {"DATA_DIR": str(tmp_path / "app")},  # it has no volume: there is nowhere to write
        "mysql": base | {"MYSQL_TCP_PORT": str(mariadb.port)},
    }
    running = Deployment(tmp_path, env_file, overrides, port)
    yield running
    for process in running.started:
        if process.poll() is None:
            process.kill()
            process.wait(60)
    set_writable(tmp_path / "app", True)
    mariadb.execute(f"DROP DATABASE {name}")
    mariadb.execute(f"DROP USER '{user}'@'127.0.0.1'")


@pytest.mark.parametrize("server", ["granian", "gunicorn"])
def test_every_command_works_as_in_a_container(deployment: Deployment, server: str) -> None:
    deployment.env_file["SERVER"] = server
    del deployment.env_file["ADMIN_TOKEN"]  # with which the first operator is made otherwise
    files = deployment.files()
    serving = deployment.start("app")
    gateway = Gateway(serving, deployment.port, deployment.log_file("app"), {})
    wait_for(lambda: serving.poll() is not None or answers(gateway))
    assert serving.poll() is None, gateway.log()
    assert run(confined(["touch", str(deployment.folder / "app" / "new")])).returncode != 0, "the folder is writable"
    assert deployment.check_health("app").returncode == 1, "healthy without a key"

    rotating = deployment.start("rotation")
    wait_for(lambda: rotating.poll() is not None or deployment.check_health("app").returncode == 0)
    assert rotating.poll() is None, deployment.log_file("rotation").read_text()
    status = deployment.check_health("rotation")
    assert status.returncode == 0, status.stderr
    assert '"state":"active","keys":2' in status.stdout
    assert gateway.post("/register", {"username": "x", "derived_key": new_derived_key()}).status_code == 403
    [invitation] = re.findall(r"/register#invitation=(inv_[\w-]+)", gateway.log())
    operator = gateway.new_user(invitation)
    assert gateway.get("/admin/users", operator).status_code == 200
    assert gateway.chat(operator).status_code == 200

    assert deployment.env_file["OPENROUTER_PROVISION_KEY"].encode() not in environment_in_memory(serving)
    stop = getattr(signal, instruction("STOPSIGNAL"))
    for process in (serving, rotating):
        process.send_signal(stop)
    assert [serving.wait(60), rotating.wait(60)] == [0, 0], gateway.log()
    assert deployment.files() == files, "something was written beside the code"
    assert deployment.check_health("app").returncode == 1


def answers(gateway: Gateway) -> bool:
    try:
        return gateway.get("/api/health").status_code == 503
    except requests.RequestException:
        return False


def environment_in_memory(process: subprocess.Popen[bytes]) -> bytes:
    """The environment that the process really has, where the system shows it."""
    path = Path(f"/proc/{process.pid}/environ")
    return path.read_bytes() if path.exists() else b""


@pytest.mark.parametrize("service", OURS)
def test_a_weak_secret_stops_the_start(deployment: Deployment, service: str) -> None:
    deployment.env_file |= {"SECRET_KEY": "changeme", "DB_PASSWORD": "password"}
    process = deployment.start(service)
    assert process.wait(60) == 1
    said = deployment.log_file(service).read_text()
    assert "2 problems" in said
    assert "SECRET_KEY: " in said
    assert "DB_PASSWORD: " in said


def test_mysql_is_healthy_only_for_the_gateways_user(
    deployment: Deployment,
) -> None:
    *_, script = SERVICES["mysql"]["healthcheck"]["test"]
    assert run(["/bin/sh", "-n", "-c", interpolate(script, {})]).returncode == 0
    if not shutil.which("mysql"):
        pytest.skip("no mysql client here; the syntax is right")
    answer = deployment.check_health("mysql")
    assert answer.returncode == 0, answer.stderr
    deployment.env_file["DB_PASSWORD"] = secrets.token_hex(24)
    assert deployment.check_health("mysql").returncode != 0


def test_secrets_made_as_told_are_accepted() -> None:
    made = made_secrets()
    assert set(made) == {*required_variables(), "ADMIN_TOKEN"} - {"OPENROUTER_PROVISION_KEY"}
    assert sources.problems({"APP_ENV": "production", "DB_HOST": "mysql", **made}) == []

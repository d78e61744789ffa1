"""Canary values go through every path of running programs; afterwards no log, file or table holds one of them.

What may hold them is said here: the files of generated secrets in development. Everything else is searched byte by byte.
"""

import base64
import json
import secrets
from pathlib import Path

import pytest
import requests

from sandbox.openrouter_faults import ROWS
from tests.support.gateway import environment, new_derived_key, read_all, run, wait_for

PROMPT = "the canary sings of kestrel-4711 and a quiet harbour"


def encryption_key():
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


@pytest.fixture(params=["granian", "gunicorn"])
def production(request, start, start_stand_in, tmp_path):
    """A production gateway at DEBUG level with a stand-in and a rotation of its own, and all the canaries in them."""
    management = f"sk-or-v1-{secrets.token_hex(32)}"
    pool_key = f"sk-or-v1-{secrets.token_hex(32)}"
    stand_in = start_stand_in("--pace-ms", "1", "--management-key", management, "--inference-key", pool_key)
    settings = {
        "APP_ENV": "production",
        "HOST": "127.0.0.1",
        "SERVER": request.param,
        "SERVER_THREADS": 32,
        "LOG_LEVEL": "DEBUG",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "ENCRYPTION_KEY": encryption_key(),
        "ADMIN_TOKEN": secrets.token_urlsafe(48),
        "DEPLOYMENT_ID": "canary-test",
        "DATA_DIR": tmp_path / "data",
        "OPENROUTER_API_URL": stand_in.address,
        "OPENROUTER_API_KEYS": pool_key,
        "POOL_SIZE": 3,
        "KEEPALIVE_SECONDS": 1,
    }
    rotation = run("key_rotation.py", "--once", **settings, OPENROUTER_PROVISION_KEY=management)
    assert rotation.returncode == 0, rotation.stderr
    gateway = start(**settings)
    private = {name: str(settings[name]) for name in ("SECRET_KEY", "ENCRYPTION_KEY", "ADMIN_TOKEN")}
    private |= {"management key": management, "pool key": pool_key, "prompt": PROMPT}
    outputs = [rotation.stdout, rotation.stderr]
    return gateway, stand_in, private, outputs, tmp_path / "data"


def exercise(gateway, stand_in, private):
    """Every kind of call, good and bad; what a client sends joins the canaries."""
    username, key = f"canary-{secrets.token_hex(6)}@private.example.com", new_derived_key()
    account = {"username": username, "derived_key": key}
    gateway.post("/register", account)
    gateway.post("/register", account)
    gateway.post("/login", {"username": username, "derived_key": new_derived_key()})
    tokens = gateway.post("/login", account).json()
    refreshed = gateway.post("/api/auth/refresh", {"refresh_token": tokens["refresh_token"]}).json()
    gateway.post("/api/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    private |= {"username": username, "derived key": key, "access token": tokens["token"]}
    private |= {"refresh token": refreshed["refresh_token"], "used refresh token": tokens["refresh_token"]}
    gateway.post("/register", {"username": username, "derived_key": [key]})
    gateway.post("/login", headers={"Content-Type": "application/json"}, data=f'{{"username":"{username}"'.encode())
    private |= use_passwords(gateway)
    gateway.get(f"/api/{username}/{key}?token={tokens['token']}")
    token = refreshed["access_token"]
    say = {"messages": [{"role": "user", "content": PROMPT}]}
    for model in (
        "openai/gpt-4o-mini",
        PROMPT,
        key,
        *(f"sandbox/{row}" for row in ROWS),
        "sandbox/error-mid",
        "sandbox/reset",
    ):
        for stream in (False, True):
            try:
                answer = gateway.post("/v1/chat/completions", {"model": model, "stream": stream, **say}, token)
            except requests.RequestException:
                continue
            assert private["pool key"] not in answer.text
            assert "user_2" not in answer.text, model
            assert answer.status_code != 401, model
            assert "flagged_input" not in answer.text
            assert "__cf_bm" not in str(answer.headers)
        # Rests would make the later rows meet an empty pool: the stand-in's other keys are picked meanwhile.
    for path, name, field in (("/api/api-keys", "client key", "key"), ("/api/tokens", "API token", "token")):
        private[name] = secret = gateway.post(path, {"name": name}, token).json()[field]
        gateway.get(f"{path}/{secret}?key={secret}", secret)
        for each in (secret, f"{secret}x"):
            gateway.get("/api/usage/stats", each)
            gateway.post("/v1/chat/completions", {"model": each, **say}, each)
    gateway.post("/v1/chat/completions", {"model": 7, **say}, token)
    gateway.post("/v1/chat/completions", {"model": "m", **say}, key)
    gateway.open_chat(token, "sandbox/stall", messages=say["messages"]).close()
    read_all(gateway.open_raw(PROMPT.encode(), f"Authorization: Bearer {token}\r\n"))
    gateway.post("/api/auth/logout", token=token)


def use_passwords(gateway):
    """Sign up, log in and change with a password, well and badly; returns what must not be found anywhere."""
    email, password, new = (
        f"canary-{secrets.token_hex(6)}@private.example.com",
        "Kestrel-4711-sings",
        "Kestrel-4712-sang",
    )
    person = {"email": email, "password": password}
    gateway.post("/api/auth/register", person | {"password_confirm": password})
    gateway.post("/api/auth/register", person | {"password_confirm": new})
    gateway.post("/api/auth/register", person | {"password_confirm": [password]})
    token = gateway.post("/api/auth/login", person).json()["token"]
    change = person | {"new_password": new, "new_password_confirm": new}
    gateway.post("/api/auth/change-password", change | {"password": new}, token)
    answer = gateway.post("/api/auth/change-password", change, token)
    assert answer.status_code == 200
    gateway.get(f"/api/auth/check-username?username={email}")
    gateway.ask("PUT", "/api/auth/profile", {"display_name": password, "password": new}, answer.json()["access_token"])
    return {"e-mail": email, "password": password, "new password": new}


def found_in(text, private):
    return sorted(name for name, value in private.items() if value in text)


def test_no_log_and_no_file_holds_anything_private(production):
    gateway, stand_in, private, outputs, data = production
    exercise(gateway, stand_in, private)
    stored = requests.get(f"{stand_in.root}/sandbox/log", timeout=30).json()["requests"]
    assert any(private["prompt"] in base64.b64decode(r["body_base64"] or "").decode(errors="replace") for r in stored)
    wait_for(lambda: "logout" in gateway.log())
    gateway.stop()
    log = gateway.log()
    for output in [log, *outputs]:
        assert found_in(output, private) == []
    json_lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {line["event"] for line in json_lines} >= {
        "registered",
        "login_failed",
        "proxied",
        "upstream_refused",
        "logout",
    }
    assert all("request_id" in line for line in json_lines if line["event"] == "proxied")
    # In the data folder of production there is only the database, and in it only ciphertexts and hashes.
    files = [path for path in data.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert found_in(path.read_bytes().decode("latin-1"), private) == [], path


def test_the_server_process_never_has_the_management_key(production):
    gateway, _, private, _, _ = production
    assert private["management key"] not in str(environment(**gateway.settings))
    environ = Path(f"/proc/{gateway.process.pid}/environ").read_text()
    assert private["management key"] not in environ

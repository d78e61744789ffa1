"""nginx and Caddy, as deploy/proxies configures them, in front of a running gateway."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.support.gateway import ROOT, Gateway, free_port, wait_for

PROXIES = ROOT / "deploy/proxies"
PATH = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
CLIENT = "127.0.0.2"
"""Where clients come from; the proxy comes from 127.0.0.1."""


@dataclass
class Proxy:
    name: str
    port: int
    gateway: Gateway

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        """A request of a client from an address of its own."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=(CLIENT, 0))
        text = None if body is None else json.dumps(body)
        client.request(method, path, text, {"Content-Type": "application/json", **headers})
        return client.getresponse()


def nginx_command(folder: Path, port: int, gateway_port: int) -> list[str]:
    ours = (PROXIES / "nginx.conf").read_text()
    assert "server 127.0.0.1:5000 " in ours
    assert "listen 80;" in ours
    ours = ours.replace("127.0.0.1:5000", f"127.0.0.1:{gateway_port}").replace(
        "listen 80;", f"listen 127.0.0.1:{port};"
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    around = f"pid {folder}/pid; error_log {folder}/errors; events {{}}\nhttp {{ access_log off;\n{temporary}{ours}}}\n"
    (folder / "nginx.conf").write_text(f"daemon off; user {Path.owner(Path('/'))};\n{around}")
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


COMMANDS = {
    "nginx": nginx_command,
    "caddy": lambda *_: ["caddy", "run", "--adapter", "caddyfile", "--config", str(PROXIES / "Caddyfile")],
}


@pytest.fixture(scope="module")
def behind(start, stand_in, pool_keys) -> Gateway:
    keys = ",".join(key["key"] for key in pool_keys)
    return start(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=keys, TRUSTED_PROXIES="127.0.0.1")


@pytest.fixture(scope="module", params=[*COMMANDS])
def proxy(request, behind, tmp_path_factory) -> Iterator[Proxy]:
    if not shutil.which(request.param, path=PATH):
        pytest.skip(f"no {request.param} here")
    folder, port = tmp_path_factory.mktemp(request.param), free_port()
    environment = {"PATH": PATH, "HOME": str(folder), "DOMAIN": f":{port}", "GATEWAY_HOST": "127.0.0.1"}
    environment["GATEWAY_PORT"] = str(behind.port)
    with (folder / "log").open("wb") as log:
        command = COMMANDS[request.param](folder, port, behind.port)
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    found = Proxy(request.param, port, behind)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return found.ask("GET", "/livez").status == 200
        except OSError:
            return False

    wait_for(answers)
    yield found
    process.terminate()
    process.wait(30)


def test_a_stream_passes_as_it_comes(proxy):
    token = proxy.gateway.new_user()
    body = {"model": "sandbox/stall", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    answer = proxy.ask("POST", "/v1/chat/completions", body, Authorization=f"Bearer {token}")
    assert answer.status == 200
    assert answer.getheader("Content-Type").startswith("text/event-stream")
    # The stand-in stops after three pieces, and the gateway waits for more: what is read here was held back by nobody.
    assert b'"content"' in answer.readline() + answer.readline() + answer.readline()
    answer.close()


def test_the_client_is_who_connects_to_the_proxy_whatever_it_says(proxy):
    account = proxy.gateway.new_account()
    for forged in ({}, {"X-Forwarded-For": "203.0.113.9"}, {"X_Forwarded_For": "203.0.113.9"}):
        answer = proxy.ask("POST", "/login", account, **forged)
        token = json.loads(answer.read())["token"]
        sessions = proxy.ask("GET", "/api/auth/sessions", Authorization=f"Bearer {token}")
        [here] = [one for one in json.loads(sessions.read())["items"] if one["is_current"]]
        assert here["address"] == CLIENT, forged


def test_websockets_are_refused(proxy):
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    token = proxy.gateway.new_user()
    wanted = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Authorization": f"Bearer {token}"}
    assert proxy.ask("GET", "/v1/responses", **upgrade, **wanted).status == 426


def test_large_bodies_get_through_and_too_large_ones_are_413(proxy):
    token = proxy.gateway.new_user()
    for size, status in ((2_000_000, 200), (51_000_000, 413)):
        text = "x" * size
        body = {"model": "openai/gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": text}]}
        url = f"http://127.0.0.1:{proxy.port}/v1/chat/completions"
        try:
            answer = requests.post(url, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        except requests.ConnectionError:  # refused while it was still being sent
            assert status == 413
        else:
            assert answer.status_code == status, answer.text


def test_traefiks_configuration_is_well_formed():
    http_part = yaml.safe_load((PROXIES / "traefik.yml").read_text())["http"]
    router = http_part["routers"]["gateway"]
    assert router["service"] in http_part["services"]
    assert set(router["middlewares"]) <= set(http_part["middlewares"])
    assert "maxResponseBodyBytes" not in str(http_part), "it would hold streams back"

"""The stand-in for identity providers as a process of its own, and browsers that log in through it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests

from tests.support.gateway import ROOT, Gateway

PROVIDERS = ("github", "linuxdo", "oidc")


@contextmanager
def started_provider() -> Iterator[str]:
    """The address of a stand-in that ends with the block."""
    command = [sys.executable, "-m", "sandbox.identity_provider", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield json.loads(process.stdout.readline())["listening"]
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def sign_on_settings(address: str, public_url: str) -> dict[str, str]:
    """The settings of a gateway that takes the stand-in for all three providers."""
    urls = {"GITHUB_URL": f"{address}/github", "GITHUB_API_URL": f"{address}/github"}
    urls |= {"LINUXDO_URL": f"{address}/linuxdo", "OIDC_ISSUER": f"{address}/oidc", "PUBLIC_URL": public_url}
    for name in ("GITHUB", "LINUXDO", "OIDC"):
        urls |= {f"{name}_CLIENT_ID": f"{name.lower()}-app", f"{name}_CLIENT_SECRET": f"secret-of-{name.lower()}-app"}
    return urls


def agree(authorize_url: str, **wishes: str) -> str:
    """What the provider sends a browser back to, once its owner has answered there."""
    answer = requests.get(f"{authorize_url}&{urlencode(wishes)}", timeout=30, allow_redirects=False)
    assert answer.status_code == 302, answer.text
    return answer.headers["Location"]


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def fragment_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).fragment).items()}


class Browser:
    """Somebody's browser at a gateway: keeps cookies, and follows no redirect by itself."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.http = requests.Session()

    def get(self, path_or_url: str) -> requests.Response:
        """Ask the gateway; a URL at its public address counts as one of its own."""
        parts = urlsplit(path_or_url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return self.http.get(self.gateway.url + path, timeout=30, allow_redirects=False)

    def begin(self, provider: str, **query: str) -> str:
        """Begin a log-in; returns the provider's address."""
        answer = self.get(f"/api/auth/sso/{provider}?{urlencode(query)}")
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    def begin_link(self, provider: str, token: str) -> str:
        """Begin to link; returns the provider's address."""
        answer = self.post(f"/api/auth/sso/{provider}/link", {"next": "/profile"}, token)
        assert answer.status_code == 200, answer.text
        return answer.json()["url"]

    def arrive(self, callback: str) -> dict[str, str]:
        """Come back from the provider; returns what the page is told in the fragment."""
        answer = self.get(callback)
        assert answer.status_code == 302, answer.text
        return fragment_of(answer.headers["Location"])

    def post(self, path: str, body: Any, token: str = "") -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.post(self.gateway.url + path, json=body, headers=headers, timeout=30)

    def redeem(self, code: str) -> requests.Response:
        return self.post("/api/auth/sso/token", {"code": code})

    def log_in(self, provider: str, **wishes: str) -> dict[str, Any]:
        """All of it; returns what the gateway answers with."""
        told = self.arrive(agree(self.begin(provider), **wishes))
        answer = self.redeem(told["sso"])
        assert answer.status_code == 200, answer.text
        return answer.json()

"""What clients read beside calling models."""

from __future__ import annotations

from typing import Any

import requests

from tests.support.gateway import Gateway, shown


def get(served: Gateway, path: str, token: str, **headers: str) -> requests.Response:
    """With headers besides."""
    return requests.get(served.url + path, headers={"Authorization": f"Bearer {token}"} | headers, timeout=30)


def data_of(served: Gateway, path: str, token: str) -> Any:
    """What stands in `data` of an answer, which must be a 200."""
    return shown(served.get(path, token))["data"]

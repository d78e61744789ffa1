"""OpenRouter's key-management API, and the one call that asks a key about itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from urllib.parse import quote

import orjson
import requests

from config.checks import OPENROUTER_KEY
from foundation.crypto import sha256_hex
from foundation.money import nano
from upstream.openrouter.key_facts import KeyAccount, RemoteKey, described, key_account, remote_key

API_TIMEOUT_SECONDS = 30.0
PAGES_AT_ONCE = 20


class ManagementError(Exception):
    """OpenRouter refused a management call or did not answer it usefully. `status` is 0 unless it refused."""

    def __init__(self, what: str, status: int = 0, reason: str = "") -> None:
        super().__init__(f"OpenRouter's management API failed: {what}: {reason or f'status {status}'}")
        self.status = status


class ManagementApi:
    """Create, list, limit, disable, delete, compare. Every method raises ManagementError.

    proxy: the URL of an HTTP proxy; "" for none.
    """

    def __init__(self, base_url: str, management_key: str, proxy: str = "") -> None:
        self._base_url = base_url
        self._management_key = management_key
        self._session = requests.Session()
        self._session.trust_env = False  # a .netrc would replace the Authorization header
        if proxy:
            self._session.proxies = {"http": proxy, "https": proxy}

    def create(self, name: str, limit_usd: float | None, limit_reset: str | None, expires_at: datetime) -> str:
        """Mint a key and return its text, which OpenRouter shows only this once."""
        body = {
            "name": name,
            "limit": limit_usd,
            "limit_reset": limit_reset,
            "expires_at": f"{expires_at:%Y-%m-%dT%H:%M:%SZ}",
        }
        answer = self._call("POST", "/keys", body)
        text, described = answer.get("key"), answer.get("data")
        if not isinstance(text, str) or not OPENROUTER_KEY.fullmatch(text):
            raise ManagementError("POST /keys", reason="the answer holds no key")
        if not isinstance(described, dict) or described.get("hash") != sha256_hex(text):
            # We delete keys by this hash: under another one they would live on.
            raise ManagementError("POST /keys", reason="the key's hash is not its SHA-256")
        return text

    def list_keys(self, meanwhile: Callable[[], object] = lambda: None) -> list[RemoteKey]:
        """All keys of the account, disabled ones too, page by page until one is empty.

        meanwhile: called now and then, for a list so long that it takes minutes.
        """
        found: dict[str, RemoteKey] = {}
        offset = pages = 0
        while page := self._page(offset):
            if page.keys() <= found.keys():  # or a server that ignores `offset` would keep us here for ever
                raise ManagementError("GET /keys", reason="its pages do not end")
            found |= page
            offset += len(page)
            pages += 1
            if pages % PAGES_AT_ONCE == 0:
                meanwhile()
        return list(found.values())

    def _page(self, offset: int) -> dict[str, RemoteKey]:
        data = self._call("GET", f"/keys?include_disabled=true&offset={offset}").get("data")
        try:
            # Anything else is not "no keys": what is not listed is taken for gone.
            if not isinstance(data, list):
                raise TypeError
            return {key.hash: key for key in map(remote_key, data)}
        except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError):
            raise ManagementError("GET /keys", reason="the answer is no list of keys") from None

    def key(self, key_hash: str) -> RemoteKey:
        """One key as OpenRouter lists it."""
        told = self._call("GET", f"/keys/{key_hash}").get("data")
        try:
            return remote_key(told)
        except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError):
            raise ManagementError("GET /keys/...", reason="the answer describes no key") from None

    def set_limit(self, key_hash: str, limit_usd: float | None, limit_reset: str | None) -> None:
        """Change what a key may spend in each period; what it has spent counts on."""
        self._call("PATCH", f"/keys/{key_hash}", {"limit": limit_usd, "limit_reset": limit_reset})

    def disable(self, key_hash: str) -> None:
        """Stop a key from working; one that is gone counts as disabled."""
        self._unless_gone("PATCH", key_hash, {"disabled": True})

    def delete(self, key_hash: str) -> None:
        """Delete a key; one that is already gone counts as deleted."""
        self._unless_gone("DELETE", key_hash)

    def ask(self, text: str) -> KeyAccount | None:
        """What OpenRouter says to a key about itself; None if it does not accept the key."""
        try:
            told = described(self._call("GET", "/key", key=text))
        except ManagementError as error:
            if error.status == 401:
                return None
            raise
        try:
            return key_account(told)
        except (TypeError, ValueError, AttributeError, ArithmeticError):
            raise ManagementError("GET /key", reason="the answer describes no key") from None

    def activity_nano(self, day: date, key_hash: str) -> int | None:
        """What a key spent on a UTC day that is over, in nano-dollars; None if OpenRouter lists nothing of that day."""
        path = f"/activity?date={day.isoformat()}&api_key_hash={quote(key_hash, safe='')}"
        data = self._call("GET", path).get("data")
        try:
            if not isinstance(data, list):
                raise TypeError
            return sum(_spent_on(day, row) for row in data) if data else None
        except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError):
            raise ManagementError("GET /activity", reason="the answer is no activity of that day") from None

    def credit_nano(self) -> int:
        """What the account may still spend, in nano-dollars; below zero if it owes."""
        told: Any = self._call("GET", "/credits").get("data")
        try:
            bought, used = nano(told["total_credits"]), nano(told["total_usage"])
            if bought is None or used is None:
                raise ValueError
            return bought - used
        except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError):
            raise ManagementError("GET /credits", reason="the answer tells no credit") from None

    def _unless_gone(self, method: str, key_hash: str, body: object = None) -> None:
        try:
            self._call(method, f"/keys/{key_hash}", body)
        except ManagementError as error:
            if error.status != 404:
                raise

    def _call(self, method: str, path: str, body: object = None, key: str | None = None) -> dict[str, Any]:
        what = f"{method} {path.partition('?')[0][:24]}"
        headers = {"Authorization": f"Bearer {key or self._management_key}"}
        try:
            response = self._session.request(
                method,
                self._base_url + path,
                json=body,
                headers=headers,
                timeout=API_TIMEOUT_SECONDS,
                allow_redirects=False,
            )
            if response.status_code not in {200, 201}:
                raise ManagementError(what, response.status_code)
            answer = orjson.loads(response.content)
        except requests.RequestException as error:
            # `from None`: the cause's text can hold the request.
            raise ManagementError(what, reason=f"no answer ({type(error).__name__})") from None
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise ManagementError(what, reason="the answer is no JSON object")
        return answer


def _spent_on(day: date, row: Any) -> int:
    """The nano-dollars of a row of activity. Raises what reading something else raises."""
    amount = nano(row["usage"])
    # A server that ignores `date` tells of other days; adding them up would invent a difference.
    if amount is None or amount < 0 or row["date"][:10] != day.isoformat():
        raise ValueError
    return amount

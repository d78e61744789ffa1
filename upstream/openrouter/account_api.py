"""What OpenRouter says of a user's own account: to a key that the user gives, or for a code of its log-in (PKCE)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from config.checks import OPENROUTER_KEY
from config.settings import Config
from foundation import json_text
from foundation.crypto import pkce_challenge
from foundation.errors import AppError, Busy, Forbidden, UpstreamFailed
from upstream.http import UpstreamHttp, authorization_of
from upstream.openrouter.key_facts import KeyAccount, key_account
from upstream.openrouter.small_answers import ANSWER_SECONDS, MAX_ANSWER_BYTES, told_to_users

MAX_TITLE = 100
METHOD = "S256"  # the other one, plain, shows the verifier to whoever sees the first redirect
BEGIN_AGAIN = "begin again with POST /api/v1/openrouter/oauth/initiate"


class AccountApi:
    """Asks OpenRouter with nothing but what the user gave. Its methods raise UpstreamFailed, UpstreamTimeout, Busy."""

    def __init__(self, upstream: UpstreamHttp, config: Config) -> None:
        parts = urlsplit(config.openrouter_api_url)
        self._page = f"{parts.scheme}://{parts.netloc}/auth"
        self._upstream = upstream
        self._app_title = config.app_title[:MAX_TITLE]

    def authorization_url(self, callback_url: str, verifier: str) -> str:
        """Where the browser has to go, to come back to callback_url with a code that only `verifier` redeems."""
        asked = {"callback_url": callback_url, "code_challenge": pkce_challenge(verifier)}
        return f"{self._page}?{urlencode(asked | {'code_challenge_method': METHOD, 'key_label': self._app_title})}"

    def describe(self, text: str) -> KeyAccount | None:
        """What a key tells about itself; None if OpenRouter does not accept it."""
        status, told = _answer(
            lambda: self._upstream.get("/key", authorization_of(text), ANSWER_SECONDS, MAX_ANSWER_BYTES)
        )
        if status == 401:
            return None
        if status != 200:
            raise _odd(status)
        try:
            return key_account(told["data"])
        except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError):
            raise _odd(status) from None

    def exchange(self, code: str, verifier: str) -> str:
        """The key that a code stands for. Raises Forbidden too; a code works once, whatever becomes of the answer."""
        sent = json_text.write({"code": code, "code_verifier": verifier, "code_challenge_method": METHOD})
        status, told = _answer(lambda: self._upstream.post("/auth/keys", sent, ANSWER_SECONDS, MAX_ANSWER_BYTES))
        if status != 200:
            raise _refused(status, told)
        text = told.get("key") if isinstance(told, dict) else None
        if not isinstance(text, str) or not OPENROUTER_KEY.fullmatch(text):
            raise _odd(status)
        return text


def _answer(ask: Callable[[], tuple[int, bytes]]) -> tuple[int, Any]:
    with told_to_users():
        status, body = ask()
    try:
        return status, json_text.parse_exact(body)
    except json_text.BadJson:
        return status, None


def _refused(status: int, told: Any) -> AppError:
    """OpenRouter's refusals of a code, each with what to do."""
    error = told.get("error") if isinstance(told, dict) else None
    message = str(error.get("message")) if isinstance(error, dict) else ""
    if status == 403 and "expired" in message:
        return Forbidden(f"OpenRouter's code has expired: codes hold for ten minutes; {BEGIN_AGAIN}")
    if status == 403:
        return Forbidden(f"OpenRouter does not accept this code: it was used, or is not of this log-in; {BEGIN_AGAIN}")
    if status in {400, 405}:
        return UpstreamFailed(
            f"OpenRouter refused the exchange itself ({status}); {BEGIN_AGAIN}, or connect with an API key, "
            "and tell the operator if it lasts"
        )
    return _odd(status)


def _odd(status: int) -> AppError:
    if status == 429:
        return Busy("OpenRouter is limiting requests at present; try again shortly", 30)
    return UpstreamFailed(f"OpenRouter did not answer usefully (status {status}); try again")

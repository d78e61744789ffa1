"""The stand-in's log-in for other services (OAuth with PKCE): a page that asks, codes, and their exchange for keys."""

import base64
import hashlib
import hmac
import html
import re
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from sandbox.http_server import Exchange, Reply
from sandbox.openrouter_accounts import Books
from sandbox.openrouter_endpoint import Call, as_json
from sandbox.openrouter_faults import Refused, bad_request

CODE_SECONDS = 600
METHODS = ("S256", "plain")
CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{43,128}")
PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Authorize</title></head><body>
<h1>%(label)s wants a key of your account</h1>
<form method="post" action="/auth?%(query)s">
<label>Account <select name="account">%(accounts)s</select></label>
<button name="decision" value="approve">Authorize</button>
<button name="decision" value="deny">Deny</button>
</form></body></html>
"""


@dataclass(frozen=True, slots=True)
class Authorization:
    """What somebody has approved: a code stands for it until it is exchanged."""

    account_id: str
    label: str
    challenge: str
    method: str
    expires_at: float


class Logins:
    """The codes that were given out, in memory."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._codes: dict[str, Authorization] = {}

    def page(self, exchange: Exchange) -> Reply:
        """Ask on GET; on POST of the form send the browser back, with a code or an error."""
        asked = dict(parse_qsl(exchange.query, keep_blank_values=True, errors="replace"))
        check(asked)
        if exchange.method == "GET":
            text = PAGE % {
                "label": html.escape(asked.get("key_label") or "An app"),
                "query": html.escape(exchange.query),
                "accounts": "".join(
                    f'<option value="{account.id}">{html.escape(account.name)}</option>'
                    for account in self._books.accounts.values()
                ),
            }
            return Reply(200, text.encode(), b"", b"text/html; charset=UTF-8")
        if exchange.method != "POST":
            raise Refused("405")
        form = dict(parse_qsl(exchange.body.decode("ascii", "replace")))
        if form.get("decision") != "approve":
            return back(asked["callback_url"], error="access_denied")
        if form.get("account") not in self._books.accounts:
            raise bad_request("account: Invalid input")
        return back(asked["callback_url"], code=self._new_code(form["account"], asked))

    def _new_code(self, account_id: str, asked: dict[str, str]) -> str:
        code = f"auth_code_{secrets.token_urlsafe(24)}"
        method = asked.get("code_challenge_method", "")
        expires_at = self._books.now() + CODE_SECONDS
        label = asked.get("key_label") or "An app"
        self._codes[code] = Authorization(account_id, label, asked.get("code_challenge", ""), method, expires_at)
        return code

    def redeem(self, call: Call) -> Reply:
        """Exchange a code for a key, once."""
        asked = call.json_object()
        code = asked.get("code")
        if not isinstance(code, str):
            raise bad_request("code: Invalid input: expected string")
        known = self._codes.get(code)
        if known is None:
            return refusal(403, "Invalid code or code_verifier")
        if (asked.get("code_challenge_method") or "") != known.method:
            return refusal(400, "Invalid code_challenge_method")
        if known.expires_at <= self._books.now():
            return refusal(403, "Authorization code expired")
        if known.challenge and not hmac.compare_digest(challenge_of(asked, known.method), known.challenge.encode()):
            return refusal(403, "Invalid code or code_verifier")
        del self._codes[code]
        _, secret = self._books.add_key(self._books.accounts[known.account_id], known.label)
        self._books.save()
        return as_json({"key": secret, "user_id": known.account_id})


def check(asked: dict[str, str]) -> None:
    """Raise Refused unless a log-in may begin like this."""
    try:
        url = urlsplit(asked.get("callback_url", ""))
        is_local = url.scheme == "http" and url.hostname in {"localhost", "127.0.0.1"}
    except ValueError:
        raise bad_request("callback_url: Invalid URL") from None
    if not (is_local or (url.scheme == "https" and url.hostname)):
        raise bad_request("callback_url: must be https, or http on localhost")
    if "code_challenge" in asked:
        if not CHALLENGE.fullmatch(asked["code_challenge"]):
            raise bad_request("code_challenge: Invalid input")
        if asked.get("code_challenge_method") not in METHODS:
            raise bad_request("code_challenge_method: Invalid input: expected one of S256, plain")


def back(callback_url: str, **said: str) -> Reply:
    """Send the browser where the service wants it, which may have a query of its own."""
    joint = "&" if urlsplit(callback_url).query else "?"
    location = f"{callback_url}{joint}{urlencode(said)}".encode("ascii", "replace")
    return Reply(302, b"", b"location: %b\r\n" % location.replace(b"\r", b"").replace(b"\n", b""), b"text/plain")


def challenge_of(asked: dict[str, object], method: str) -> bytes:
    """The challenge that the shown verifier stands for."""
    verifier = str(asked.get("code_verifier") or "").encode()
    if method != "S256":
        return verifier
    return base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=")


def refusal(status: int, message: str) -> Reply:
    """OpenRouter's own words about a code."""
    return as_json({"error": {"code": status, "message": message}}, status)

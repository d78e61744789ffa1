"""Client of the OpenRouter proxy: derives the access key on this device, then registers, signs in and chats."""

from __future__ import annotations

import argparse
import base64
import getpass
import hashlib
import ipaddress
import json
import sys
import threading
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests
from argon2.low_level import Type, hash_secret_raw
from urllib3.exceptions import HTTPError

JsonObject = dict[str, Any]

DERIVED_KEY_LENGTH = 64
SALT_BYTES = 16
SALT_PASSWORD_CHARACTERS = 6
# With any other domain the key might open the same person's account at another service.
OWN_DOMAINS = "openrouter-proxy-"
PRIVATE_ENDS = {"localhost", "local", "internal", "lan", "test"}
# So short that a second try falls into the ten seconds in which the gateway says a lost answer again.
REFRESH_SECONDS = 4.0

# The lower bound keeps a malicious server from asking for a key that is cheap to guess the password from,
# the upper one from exhausting this machine.
ACCEPTED_RANGES = {
    "time_cost": (2, 64),
    "memory_kib": (1953, 1024 * 1024),
    "parallelism": (1, 16),
    "hash_len": (64, 1024),
}
FIXED_SCHEME = {
    "salt": {
        "algorithm": "blake2b",
        "digest_bytes": SALT_BYTES,
        "password_prefix_characters": SALT_PASSWORD_CHARACTERS,
    },
    "encoding": "base64url",
    "length": DERIVED_KEY_LENGTH,
}


class KeyDerivationRefused(ValueError):
    """The parameters, the username or the password must not be used to derive a key."""


class ProxyError(Exception):
    """The gateway answered with an error (``status`` is 0 if it did not answer at all; 401 if one has to log in)."""

    def __init__(
        self,
        status: int,
        message: str,
        error_type: str = "",
        request_id: str = "",
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(status, message, error_type, request_id, retry_after_seconds)
        self.status = status
        self.message = message
        self.error_type = error_type
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        labels = [str(self.status or "no answer"), self.error_type, self.request_id and f"request {self.request_id}"]
        return f"{self.message} ({', '.join(filter(None, labels))})"


@dataclass(frozen=True)
class KdfParameters:
    """What `GET /api/auth/kdf` publishes; parameters outside the accepted ranges cannot be constructed."""

    time_cost: int = 2
    memory_kib: int = 1953
    parallelism: int = 1
    hash_len: int = 64
    domain: str = "openrouter-proxy-access-key-v1"
    algorithm: str = "argon2id"

    def __post_init__(self) -> None:
        if self.algorithm != "argon2id":
            raise KeyDerivationRefused(f"algorithm must be 'argon2id', not {self.algorithm!r}")
        if not isinstance(self.domain, str) or not self.domain:
            raise KeyDerivationRefused("domain must be a text that is not empty")
        for name, (lowest, highest) in ACCEPTED_RANGES.items():
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value <= highest:
                raise KeyDerivationRefused(f"{name} must be a whole number from {lowest} to {highest}, not {value!r}")

    @classmethod
    def from_answer(cls, answer: JsonObject) -> KdfParameters:
        for name, expected in FIXED_SCHEME.items():
            if answer.get(name) != expected:
                raise KeyDerivationRefused(f"{name} must be {expected!r}, not {answer.get(name)!r}")
        values: JsonObject = {name: answer.get(name) for name in cls.__dataclass_fields__}
        return cls(**values)


DEFAULT_PARAMETERS = KdfParameters()


def derive_key(username: str, password: str, parameters: KdfParameters = DEFAULT_PARAMETERS) -> str:
    """Derive the 64 characters that stand in for the password; the password itself never leaves this device."""
    password_start = _encode(password[:SALT_PASSWORD_CHARACTERS], "password")
    pre_salt = password_start + _encode(username, "username") + _encode(parameters.domain, "domain")
    raw_key = hash_secret_raw(
        _encode(password, "password"),
        hashlib.blake2b(pre_salt, digest_size=SALT_BYTES).digest(),
        time_cost=parameters.time_cost,
        memory_cost=parameters.memory_kib,
        parallelism=parameters.parallelism,
        hash_len=parameters.hash_len,
        type=Type.ID,
    )
    return base64.urlsafe_b64encode(raw_key).decode()[:DERIVED_KEY_LENGTH]


def _encode(text: str, what: str) -> bytes:
    # Checked beforehand because a UnicodeEncodeError would carry the whole password.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise KeyDerivationRefused(f"the {what} is not valid Unicode")
    if not text:
        raise KeyDerivationRefused(f"the {what} is empty")
    return text.encode()


@dataclass(repr=False)
class _Tokens:
    """What one log-in has led to. Another log-in gets another object, so that nothing of this one can touch it."""

    access: str | None = None
    refresh: str | None = None
    # Held during a refresh: threads whose token has run out wait for the one that asks.
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_answer(cls, answer: JsonObject) -> _Tokens:
        access, refresh = answer.get("access_token"), answer.get("refresh_token")
        if not isinstance(access, str) or not isinstance(refresh, str):
            raise ProxyError(200, "The gateway's answer holds no tokens")
        return cls(access, refresh)


class ProxyClient:
    """One user's connection to one gateway; threads may share it.

    Set ``token`` to use a client key instead of signing in, and then ``refresh_token`` to go on with a session.

    pin: what ``pin()`` told at the sign-up; the gateway gets no key but one derived as then. domain: one that is not
    the gateways' own, such as "novelai_data_access_key", which is taken only so. allows_http: without TLS to a public
    name.
    """

    def __init__(
        self,
        base_url: str,
        timeout: float = 120.0,
        *,
        pin: JsonObject | None = None,
        domain: str | None = None,
        allows_http: bool = False,
    ) -> None:
        address = urlsplit(base_url)
        if address.scheme not in {"http", "https"} or not address.hostname:
            raise ValueError("base_url must look like https://gateway.example")
        if "@" in address.netloc:
            # requests would send these instead of the token.
            raise ValueError("base_url must not contain a user name or password")
        if address.scheme == "http" and not allows_http and _is_public(address.hostname):
            raise ValueError("http:// would show keys and tokens to all on the way: use https://, or allows_http=True")
        self._origin = f"{address.scheme}://{address.netloc.lower()}"
        if pin is not None and pin.get("origin") != self._origin:
            raise ValueError(f"The pin is of {pin.get('origin')}, not of {self._origin}")
        self._pinned = KdfParameters(**{name: pin[name] for name in pin if name != "origin"}) if pin else None
        self._domain = domain
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._tokens = _Tokens()
        self.session = requests.Session()
        # Otherwise an entry in ~/.netrc replaces the Authorization header.
        self.session.trust_env = False
        # Each call carries its token; a cookie would only be a second, unnoticed sign-in.
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._parameters: KdfParameters | None = None

    def __repr__(self) -> str:
        return f"ProxyClient({self.base_url!r}, {'with' if self.token else 'without'} token)"

    def __enter__(self) -> ProxyClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()

    @property
    def token(self) -> str | None:
        """The access token, or a client key. Setting it forgets the refresh token, which may be somebody else's."""
        return self._tokens.access

    @token.setter
    def token(self, token: str | None) -> None:
        self._tokens = _Tokens(token)

    @property
    def refresh_token(self) -> str | None:
        """Works once: whoever keeps it has to keep its successors, too."""
        return self._tokens.refresh

    @refresh_token.setter
    def refresh_token(self, refresh_token: str | None) -> None:
        self._tokens = _Tokens(self.token, refresh_token)

    def parameters(self) -> KdfParameters:
        """Ask the gateway how it wants keys derived, once."""
        if self._parameters is None:
            found = KdfParameters.from_answer(self._json("GET", "/api/auth/kdf", is_signed=False))
            if self._pinned is None and found.domain != self._domain and not found.domain.startswith(OWN_DOMAINS):
                raise KeyDerivationRefused(
                    f"domain {found.domain!r} may be another service's, where the key would open your account: "
                    "pass it as domain=... if it is meant"
                )
            if self._pinned not in {None, found}:
                raise KeyDerivationRefused("the gateway wants keys derived otherwise than it did at the sign-up")
            self._parameters = found
        return self._parameters

    def pin(self) -> JsonObject:
        """How this gateway wants keys derived, to be kept from the sign-up on, as JSON: see the class."""
        return {"origin": self._origin, **asdict(self.parameters())}

    def register(self, username: str, password: str, invitation: str | None = None) -> JsonObject:
        """Sign up. invitation: the code behind the # of an invitation's link, where the gateway asks for one.

        The answer's ``state`` is ``pending`` if an operator has to let the account in first.
        """
        return self._send_key("/register", username, password, invitation=invitation)

    def login(self, username: str, password: str, second_factor: str | None = None) -> JsonObject:
        """Sign in, keep the tokens for the calls that follow, return the gateway's whole answer.

        second_factor: a code of the app, or a recovery code, where the account has a second factor. Without it a
        ProxyError of the type ``second_factor_needed`` says that the password was right.
        """
        answer = self._send_key("/login", username, password, second_factor=second_factor)
        self._tokens = _Tokens.from_answer(answer)
        return answer

    def new_recovery_codes(self) -> list[str]:
        """Ten codes, each of which sets a new password once; those before are good no more. Soon after a sign-in."""
        return list(self._json("POST", "/api/auth/recovery-codes")["codes"])

    def recover(
        self, username: str, recovery_code: str, new_password: str, second_factor: str | None = None
    ) -> JsonObject:
        """Set a new password in the place of a forgotten one, and sign in. Only a key derived from it is sent.

        second_factor: as for ``login``; not the same recovery code.
        """
        more = {"recovery_code": recovery_code, "second_factor": second_factor}
        answer = self._send_key("/api/auth/recover", username, new_password, "new_derived_key", **more)
        self._tokens = _Tokens.from_answer(answer)
        return answer

    def logout(self) -> None:
        """End the session, everywhere. The tokens are forgotten even if the gateway can't be reached."""
        try:
            self._json("POST", "/api/auth/logout")
        except ProxyError as problem:
            if problem.status != 401:  # that is: the session has ended before
                raise
        finally:
            self.token = None

    def usage(self, start_date: str | None = None, end_date: str | None = None) -> JsonObject:
        """What was used in these days (`2026-11-21`, UTC), else in the last 30: in all, by model, by day and by key."""
        days = {"start_date": start_date, "end_date": end_date}
        return self._json("GET", "/api/usage/stats", params={name: day for name, day in days.items() if day})

    def quota(self) -> JsonObject:
        """What may be spent and what has been, in dollars; None in all fields without a quota."""
        return self._json("GET", "/api/quota")

    def chat(self, messages: list[JsonObject], model: str, **fields: Any) -> JsonObject:
        """Return the whole completion; `fields` are any others of the chat completions API."""
        body = {**fields, "messages": messages, "model": model, "stream": False}
        return self._json("POST", "/v1/chat/completions", body)

    def stream(self, messages: list[JsonObject], model: str, **fields: Any) -> Generator[JsonObject, None, None]:
        """Yield the completion's chunks; the request starts with the first and ends when the iterator is closed."""
        body = {**fields, "messages": messages, "model": model, "stream": True}
        with self._call("POST", "/v1/chat/completions", body, stream=True) as response:
            if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise self._error(response, _parse_object(b"".join(self._received(response))))
            is_whole = False
            for data in _event_data(self._received(response)):
                if data == b"[DONE]":
                    return
                chunk = _parse_object(data)
                if not chunk or chunk.get("error"):
                    raise self._error(response, chunk)
                is_whole = is_whole or _says_end(chunk)
                yield chunk
            # Some models' streams lack [DONE]; one that lacks an end as well was cut somewhere on its way.
            if not is_whole:
                raise ProxyError(0, "The stream broke off", "connection_error", self._request_id(response))

    def _send_key(
        self, path: str, username: str, password: str, name: str = "derived_key", **more: str | None
    ) -> JsonObject:
        body = {"username": username, name: derive_key(username, password, self.parameters())}
        body |= {name: value for name, value in more.items() if value}
        return self._json("POST", path, body, is_signed=False)

    def _refresh(self, tokens: _Tokens, refused: str | None) -> bool:
        """Have another access token than the one that was refused; False if there is none. Raises ProxyError."""
        with tokens.lock:
            if tokens.access != refused:  # another thread was here before
                return tokens.access is not None
            if tokens.refresh is None:
                return False
            try:
                fresh = _Tokens.from_answer(self._exchange(tokens.refresh))
            except ProxyError as problem:
                if problem.status in {400, 401, 403}:  # for good, unlike 429 and 503
                    tokens.access = tokens.refresh = None
                raise
            tokens.access, tokens.refresh = fresh.access, fresh.refresh
            return True

    def _exchange(self, refresh_token: str, is_last_try: bool = False) -> JsonObject:
        body, seconds = {"refresh_token": refresh_token}, min(self.timeout, REFRESH_SECONDS)
        try:
            return self._json("POST", "/api/auth/refresh", body, is_signed=False, timeout=seconds)
        except ProxyError as problem:
            # Without an answer the token may be used up.
            if problem.status or is_last_try:
                raise
        return self._exchange(refresh_token, is_last_try=True)

    def _json(
        self, method: str, path: str, body: JsonObject | None = None, is_signed: bool = True, **options: Any
    ) -> JsonObject:
        with self._call(method, path, body, is_signed, **options) as response:
            answer = _parse_object(response.content)
            # OpenRouter can fail after its 200 is on the way: the error then stands in the body.
            if not answer or answer.get("error"):
                raise self._error(response, answer, body)
            return answer

    def _call(
        self, method: str, path: str, body: JsonObject | None = None, is_signed: bool = True, **options: Any
    ) -> requests.Response:
        """An answer of status 2xx. A token that has run out is exchanged, and the call sent again, once."""
        if not is_signed:
            return self._send(method, path, body, None, **options)
        tokens = self._tokens
        token = tokens.access
        try:
            return self._send(method, path, body, token, **options)
        except ProxyError as problem:
            # If somebody has logged in meanwhile, this call is not theirs.
            if problem.status != 401 or tokens is not self._tokens or not self._refresh(tokens, token):
                raise
        return self._send(method, path, body, tokens.access, **options)

    def _send(
        self, method: str, path: str, body: JsonObject | None, token: str | None, **options: Any
    ) -> requests.Response:
        try:
            response = self.session.request(
                method,
                self.base_url + path,
                json=body,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                allow_redirects=False,
                **{"timeout": self.timeout, **options},
            )
            if 200 <= response.status_code < 300:
                return response
            with response:
                failure = self._error(response, _parse_object(response.content), body)
        except requests.RequestException as problem:
            failure = self._no_answer(problem)
        # Outside the except block: the original exception holds the request, and so the derived key and the token.
        raise failure

    def _received(self, response: requests.Response) -> Iterator[bytes]:
        try:
            # Unlike iter_content, read1 hands over what has arrived even if the answer is not chunked.
            while received := response.raw.read1(65536, decode_content=True):
                yield received
            return
        except (HTTPError, OSError) as problem:
            failure = self._no_answer(problem)
        raise failure

    def _no_answer(self, problem: Exception) -> ProxyError:
        return ProxyError(0, f"The call to {self.base_url} failed: {type(problem).__name__}", "connection_error")

    def _error(self, response: requests.Response, answer: JsonObject, sent: JsonObject | None = None) -> ProxyError:
        error = _object(answer.get("error"))
        message = error.get("message") or answer.get("message") or answer.get("detail")
        if response.is_redirect:
            message = f"Redirects are not followed; this one leads to {response.headers['Location']}"
        if not isinstance(message, str):
            message = f"The gateway's answer is not understood (HTTP {response.status_code})"
        error_type = str(error.get("type") or _object(error.get("metadata")).get("error_type") or "")
        request_id = self._request_id(response)
        for secret in self._secrets(response, sent or {}):
            message, error_type, request_id = (
                text.replace(secret, "[secret]") for text in (message, error_type, request_id)
            )
        status = error["code"] if isinstance(error.get("code"), int) else response.status_code
        seconds = response.headers.get("Retry-After", "")
        return ProxyError(status, message, error_type, request_id, int(seconds) if seconds.isdecimal() else None)

    def _secrets(self, response: requests.Response, sent: JsonObject) -> list[str]:
        token = response.request.headers.get("Authorization", "").replace("Bearer ", "")
        names = ("derived_key", "new_derived_key", "recovery_code", "second_factor", "refresh_token")
        return [secret for secret in (token, self.token, self.refresh_token, *map(sent.get, names)) if secret]

    def _request_id(self, response: requests.Response) -> str:
        return response.headers.get("X-Request-Id", "")


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:  # a name; or a number, which systems read as an address
        return host[0].isdigit() or ("." in host and host.rsplit(".", 1)[1] not in PRIVATE_ENDS)


def _says_end(chunk: JsonObject) -> bool:
    choices = chunk.get("choices")
    return isinstance(choices, list) and any(_object(choice).get("finish_reason") for choice in choices)


def _event_data(received: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the data of each server-sent event; works on bytes, so a character may be split between two reads."""
    pending, data = b"", []
    for part in received:
        *lines, pending = (pending + part).split(b"\n")
        for line in lines:
            field, _, value = line.rstrip(b"\r").partition(b":")
            if field == b"data":
                data.append(value[1:] if value.startswith(b" ") else value)
            elif not line.strip(b"\r") and data:
                yield b"\n".join(data)
                data = []


def _parse_object(text: bytes) -> JsonObject:
    try:
        return _object(json.loads(text))
    except ValueError:
        return {}


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    derive = commands.add_parser("derive", help="print the derived key; the password is asked for or read from stdin")
    derive.add_argument("username")
    derive.add_argument("--server", metavar="URL", help="take the parameters from this gateway, not the defaults")
    derive.add_argument("--domain", help="take this domain from it, though it is not a gateway's own")
    arguments = parser.parse_args()
    if sys.stdin.isatty():
        password = getpass.getpass()
    else:
        password = sys.stdin.buffer.readline().decode(errors="surrogateescape").rstrip("\r\n")
    try:
        server, domain = arguments.server, arguments.domain
        parameters = ProxyClient(server, domain=domain).parameters() if server else DEFAULT_PARAMETERS
        print(derive_key(arguments.username, password, parameters))
    except (ProxyError, ValueError) as problem:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    main()

"""Sign up, log in, refresh, log out, and the parameters of key derivation."""

from __future__ import annotations

import logging

from flask import Blueprint, Response, request

from auth import check_username
from logs import event
from routes.http import answer, count_request, json_body, services
from user_sessions import UserSession

log = logging.getLogger("auth")
routes = Blueprint("auth_api", __name__)

# What clients derive their key with; clients refuse anything weaker, so these can only ever rise.
KDF_PARAMETERS = {
    "algorithm": "argon2id",
    "time_cost": 2,
    "memory_kib": 1953,
    "parallelism": 1,
    "hash_len": 64,
    "salt": {"algorithm": "blake2b", "digest_bytes": 16, "password_prefix_characters": 6},
    "encoding": "base64url",
    "length": 64,
}


@routes.get("/api/auth/kdf")
def kdf() -> Response:
    """How a client derives its key: salt = BLAKE2b(password[:6] + username + domain)."""
    return answer(KDF_PARAMETERS | {"domain": services().config.kdf_domain})


@routes.post("/register")
def register() -> Response:
    """{username, derived_key} → 201."""
    count_request("registrations")
    body = json_body()
    user_id = services().auth.register(body.get("username"), body.get("derived_key"))
    event(log, "registered", user_id=user_id)
    return answer({"message": "User registered successfully"}, 201)


@routes.post("/login")
def login() -> Response:
    """{username, derived_key} → tokens. Those refused for their number cost no Argon2 hash."""
    count_request("log-ins")
    body = json_body()
    username = check_username(body.get("username"))
    services().rate_limits.check_account(services().users.name_hash(username))
    session, token = services().auth.login(username, body.get("derived_key"))
    return answer({"message": "Login successful", "token": token} | _tokens(session, token))


@routes.post("/api/auth/refresh")
def refresh() -> Response:
    """{refresh_token} → new tokens; the old refresh token is used up."""
    count_request("refreshes")
    session, token = services().auth.refresh(json_body().get("refresh_token"))
    return answer(_tokens(session, token))


@routes.post("/api/auth/logout")
def logout() -> Response:
    """End the session of the access token."""
    caller = services().auth.authenticate(request.headers.get("Authorization"), may_call=False)
    services().auth.logout(caller)
    return answer({"message": "Logged out"})


def _tokens(session: UserSession, token: str) -> dict[str, object]:
    return {
        "access_token": token,
        "refresh_token": session.refresh_token,
        "token_type": "Bearer",
        "expires_in": int(services().auth.access_life.total_seconds()),
        "user": {"id": session.user_id},
    }

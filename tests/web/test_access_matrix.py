"""Who gets what on every route: nobody, the owner, another user, a silenced one, admins and programs, on real gateways.

A route without a row here fails. What a row asks for is the owner's (or the silenced user's own), so that the columns
tell what others get of it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from flask import Flask

import tables
from db import inserted_id
from tables import identities
from tests.sandbox.conftest import Running
from tests.support.api_world import CANARY, KINDS, PEOPLE, World, all_routes
from tests.support.gateway import Gateway, new_derived_key, wait_for
from tests.support.usage_rows import NOON, row, store
from web.pages.table import register_pages

# What each kind of caller gets, in this order:
#            nobody owner other silenced admin operator API-token client-key auditor
ANYBODY = "    200   200   200   200      200   200      200       200        200"
USERS = "      401   200   200   200      200   401      403       403        200"
READERS = "    401   200   200   200      200   401      200       403        200"
CALLERS = "    401   200   200   200      200   401      403       200        200"
CALLS = "      401   200   200   403      200   401      403       200        200"
THE_OWNER = "  401   200   404   200      404   401      403       403        404"
THEIR_OWN = "  401   200   403   200      403   401      403       403        403"
THEIR_LOG = "  401   200   404   404      404   401      200       403        404"
THEIR_CALLS = "401   200   404   404      404   401      403       200        404"
OPERATORS = "  401   403   403   403      200   200      403       403        403"
AUDITORS = "   401   403   403   403      200   200      403       403        200"
SCRAPERS = "  401   401   401   401      401   401      401       401        401"
NOT_HERE = "   404   404   404   404      404   404      404       404        404"


@dataclass(frozen=True)
class Asked:
    """A request. parts: of the path; bearer: instead of the caller's usual credential."""

    body: Any = None
    parts: dict[str, object] | None = None
    query: str = ""
    bearer: str | None = None


Ask = Callable[[World, str], Asked]


def instead(row: str, old: int, new: int) -> str:
    """The same row with another status for those who succeed."""
    return row.replace(str(old), str(new))


def sent(body: Any = None, query: str = "", **parts: object) -> Ask:
    return lambda _world, _kind: Asked(body, parts, query)


PLAIN = sent()
# Of challenges that nobody has asked for.
PASSKEY = {"id": "AA", "rawId": "AA", "type": "public-key"}
CLIENT_DATA = "eyJjaGFsbGVuZ2UiOiJ4In0"
NEW_PASSKEY = PASSKEY | {"response": {"clientDataJSON": CLIENT_DATA, "attestationObject": "AA"}}
PASSKEY_ANSWER = PASSKEY | {
    "response": {"clientDataJSON": CLIENT_DATA} | dict.fromkeys(("authenticatorData", "signature", "userHandle"), "AA")
}
PASSWORD = "Tr4in-to-Nowhere"
UPSTREAM = {"base_url": "https://1.1.1.1/v1", "is_active": False}  # an address that may be one; nothing calls it
RULE = {"timeout_seconds": 60}
ALIAS = {"models": [{"model": "openai/gpt-4o-mini"}]}
CHAT = sent({"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5})
TEXT = sent({"model": "openai/gpt-4o-mini", "prompt": "Hi", "max_tokens": 5})
VECTORS = sent({"model": "openai/text-embedding-3-small", "input": "Hi"})
FITTING = sent({"model": "cohere/rerank-v3.5", "query": "Hi", "documents": ["Hi"]})
PICTURE = sent({"model": "openai/gpt-image-1", "prompt": "Hi"})
SPOKEN = sent({"model": "mistralai/voxtral-mini-tts-2603", "input": "Hi"})
HEARD = sent({"model": "openai/whisper-large-v3", "input_audio": {"data": "UklGRiQA", "format": "wav"}})
FILM = sent({"model": "google/veo-3.1", "prompt": "Hi", "duration": 4})
RESPONSE = sent({"model": "openai/gpt-4o-mini", "input": "Hi", "max_output_tokens": 20})
MODEL = sent(name="openai/gpt-4o-mini")
IMAGE_MODEL = sent(name="openai/gpt-image-1")
FILE = sent(query="?format=jsonl")


def new_account(_world: World, _kind: str) -> Asked:
    return Asked({"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()})


def own_log_in(world: World, kind: str) -> Asked:
    return Asked(world.owns(kind).account)


def own_proof(world: World, kind: str) -> Asked:
    person = getattr(world, kind) if kind in PEOPLE else world.owner
    return Asked({"derived_key": person.account["derived_key"]})


def own_refresh_token(world: World, kind: str) -> Asked:
    return Asked({"refresh_token": world.logged_in(world.owns(kind).account).refresh_token})


def a_session_more(world: World, kind: str) -> Asked:
    """What ends the session that asks: so one that nothing else needs."""
    person = getattr(world, kind) if kind in PEOPLE else None
    return Asked(bearer=world.logged_in(person.account).token if person else None)


def of_somebody_new(world: World, kind: str) -> Asked:
    """What ends all sessions: so by somebody whom nothing else needs, in the same role."""
    if kind not in PEOPLE:
        return Asked()
    return Asked(bearer=world.new_person().token)


def of_somebody_new_with_a_new_key(world: World, kind: str) -> Asked:
    new = {"new_derived_key": new_derived_key()}
    if kind not in PEOPLE:
        return Asked({"derived_key": world.owner.account["derived_key"]} | new)
    person = world.new_person()
    return Asked({"derived_key": person.account["derived_key"]} | new, bearer=person.token)


def new_person_with_a_password() -> dict[str, str]:
    return {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD, "password_confirm": PASSWORD}


def new_account_with_a_password(_world: World, _kind: str) -> Asked:
    return Asked(new_person_with_a_password())


def log_in_with_a_password(world: World, _kind: str) -> Asked:
    person = new_person_with_a_password()
    assert world.gateway.post("/api/auth/register", person).status_code == 201
    return Asked({name: person[name] for name in ("email", "password")})


def of_somebody_new_with_a_new_password(world: World, kind: str) -> Asked:
    known = log_in_with_a_password(world, kind).body
    body = known | dict.fromkeys(("new_password", "new_password_confirm"), PASSWORD[::-1])
    if kind not in PEOPLE:
        return Asked(body)
    return Asked(body, bearer=world.gateway.post("/api/auth/login", known).json()["token"])


def own_session(world: World, kind: str) -> Asked:
    session = jwt.decode(world.logged_in(world.owns(kind).account).token, options={"verify_signature": False})["sid"]
    return Asked(parts={"session_id": session})


def with_a_recovery_code(world: World, kind: str) -> Asked:
    """Of somebody new, whoever asks: whoever has the code and the name has the account."""
    del kind
    person = world.new_person()
    codes = world.made("/api/auth/recovery-codes", person)["codes"]
    body = {"username": person.account["username"], "recovery_code": codes[0], "new_derived_key": new_derived_key()}
    return Asked(body)


def with_a_code_for_a_password(world: World, kind: str) -> Asked:
    asked = with_a_recovery_code(world, kind).body
    new = dict.fromkeys(("new_password", "new_password_confirm"), PASSWORD)
    return Asked({"email": asked["username"], "recovery_code": asked["recovery_code"]} | new)


def with_a_reset_link(world: World, kind: str) -> Asked:
    del kind
    person = world.new_person()
    text = world.ask("operator", "POST", f"/admin/users/{person.id}/reset-link").json()["reset"]
    return Asked({"reset": text, "username": person.account["username"], "new_derived_key": new_derived_key()})


def with_a_link_for_a_password(world: World, kind: str) -> Asked:
    asked = with_a_reset_link(world, kind).body
    new = dict.fromkeys(("new_password", "new_password_confirm"), PASSWORD)
    return Asked({"reset": asked["reset"], "email": asked["username"]} | new)


def first_key(_world: World, _kind: str) -> Asked:
    return Asked({"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()})


def without_a_second_factor(body: Any = None) -> Ask:
    def ask(world: World, _kind: str) -> Asked:
        world.db.transact(lambda tx: tx.execute(tables.totp_secrets.delete()))
        return Asked(body)

    return ask


def own_identity(world: World, kind: str) -> Asked:
    """An account with a key, to which a log-in through GitHub is linked."""
    owner = world.owns(kind)
    row = {"user_id": owner.id, "provider": "github", "issuer": "https://github.com", "display_name": CANARY}
    row |= {"subject": secrets.token_hex(8), "linked_at": NOON}
    of_owner = identities.c.user_id == owner.id
    world.db.transact(
        lambda tx: (tx.execute(identities.delete().where(of_owner)), tx.execute(identities.insert(), row))
    )
    return Asked(parts={"provider": "github"})


def own_passkey(world: World, kind: str) -> Asked:
    owner, name = world.owns(kind), secrets.token_hex(32)
    row = {"user_id": owner.id, "credential_hash": name, "credential_id": "AA", "public_key": "AA", "name": CANARY}
    row |= {"user_handle": "AA", "sign_count": 0, "created_at": NOON}
    key = world.db.transact(lambda tx: inserted_id(tx.execute(tables.passkeys.insert(), row)))
    of_owner = tables.passkeys.delete().where(tables.passkeys.c.id == key)
    world.cleanups.append(lambda: world.db.transact(lambda tx: tx.execute(of_owner)))
    return Asked(parts={"passkey_id": key})


def own_key(body: Any = None) -> Ask:
    def ask(world: World, kind: str) -> Asked:
        made = world.made("/api/api-keys", world.owns(kind), name=CANARY)
        world.cleanups.append(lambda: world.ask("operator", "DELETE", f"/admin/keys/{made['id']}"))
        return Asked(body, {"key_id": made["id"]})

    return ask


def own_request(world: World, _kind: str) -> Asked:
    """A call of the owner's, once it is over."""
    answer = world.gateway.chat(world.owner.token)
    assert answer.status_code == 200, answer.text
    request_id = answer.headers["X-Request-Id"]
    wait_for(lambda: world.ask("operator", "GET", f"/admin/logs/{request_id}").ok)
    return Asked(parts={"request_id": request_id})


def own_token(world: World, kind: str) -> Asked:
    owner = world.owns(kind)
    made = world.made("/api/tokens", owner, name=CANARY)
    path = f"/api/tokens/{made['id']}"
    world.cleanups.append(lambda: world.ask(kind, "DELETE", path, bearer=owner.token))
    return Asked(parts={"token_id": made["id"]})


def new_watched_key(world: World, kind: str) -> Asked:
    world.cleanups.append(lambda: remove_watched_keys(world, kind))
    return Asked({"name": "x", "key": world.stand_in.new_key()["key"]})


def own_watched_key(body: Any = None) -> Ask:
    def ask(world: World, kind: str) -> Asked:
        owner = world.owns(kind)
        made = world.made("/api/keys", owner, name=CANARY, key=world.stand_in.new_key()["key"])
        path = f"/api/keys/{made['id']}"
        world.cleanups.append(lambda: world.ask(kind, "DELETE", path, bearer=owner.token))
        return Asked(body, {"key_id": made["id"]})

    return ask


def remove_watched_keys(world: World, kind: str) -> None:
    """So that whoever adds keys over and over never has as many as one may."""
    answer = world.ask(kind, "GET", "/api/keys")
    for one in answer.json()["items"] if answer.status_code == 200 else ():
        world.ask(kind, "DELETE", f"/api/keys/{one['id']}")


def a_watched_key_of_a_while_ago(world: World, kind: str) -> Asked:
    """One about which OpenRouter may be asked again."""
    asked = own_watched_key()(world, kind)
    assert asked.parts
    row = tables.watched_keys.update().where(tables.watched_keys.c.id == asked.parts["key_id"])
    world.db.transact(lambda tx: tx.execute(row.values(asked_at=NOON)))
    return asked


def a_favourite(world: World, kind: str) -> Asked:
    path = "/api/models/favourites/openai/gpt-4o-mini"
    world.cleanups.append(lambda: world.ask(kind, "DELETE", path))
    return Asked(parts={"name": "openai/gpt-4o-mini"})


def own_favourite(world: World, kind: str) -> Asked:
    """A model that the owner alone has marked."""
    owner, name = world.owns(kind), f"favourite/{secrets.token_hex(4)}"
    row = {"user_id": owner.id, "model": name}
    world.db.transact(lambda tx: tx.execute(tables.favourite_models.insert(), row))
    of_owner = tables.favourite_models.delete().where(tables.favourite_models.c.model == name)
    world.cleanups.append(lambda: world.db.transact(lambda tx: tx.execute(of_owner)))
    return Asked(parts={"name": name})


def own_call(world: World, _kind: str) -> Asked:
    """The call that the owner made with a client key: both see it."""
    return Asked(query=f"?id={world.owners_call()}")


def own_job(world: World, _kind: str) -> Asked:
    """The video that the owner has had made with a client key: both see it."""
    return Asked(parts={"job_id": world.owners_job()})


def the_owner(body: Any = None, **parts: object) -> Ask:
    return lambda world, _kind: Asked(body, {"user_id": world.owner.id, "number": world.owner.id} | parts)


def an_invitation(world: World, _kind: str) -> Asked:
    return Asked(parts={"invitation_id": world.ask("operator", "POST", "/admin/invitations", {}).json()["id"]})


def an_operator_token(world: World, _kind: str) -> Asked:
    made = world.ask("operator", "POST", "/admin/tokens", {"name": f"n{secrets.token_hex(4)}"})
    world.cleanups.append(lambda: world.ask("operator", "DELETE", f"/admin/tokens/{made.json()['id']}"))
    return Asked(parts={"token_id": made.json()["id"]})


def the_owners_quota(world: World, _kind: str) -> Asked:
    path = f"/admin/quotas/user/{world.owner.id}"
    assert world.ask("operator", "PUT", path, {"limit_usd": 1000}).status_code == 200
    return Asked(parts={"kind": "user", "number": world.owner.id})


def of_a_new_upstream(body: Any = None) -> Ask:
    def ask(world: World, _kind: str) -> Asked:
        name = f"u{secrets.token_hex(6)}"
        made = world.ask("operator", "POST", "/admin/upstreams", UPSTREAM | {"name": name})
        assert made.status_code == 201, made.text
        world.cleanups.append(lambda: world.ask("operator", "DELETE", f"/admin/upstreams/{name}"))
        return Asked(body and body | {"name": name}, {"upstream": name})

    return ask


def new_upstream(world: World, _kind: str) -> Asked:
    name = f"u{secrets.token_hex(6)}"
    world.cleanups.append(lambda: world.ask("operator", "DELETE", f"/admin/upstreams/{name}"))
    return Asked(UPSTREAM | {"name": name})


def an_alias(body: Any = None) -> Ask:
    def ask(world: World, _kind: str) -> Asked:
        name = f"a{secrets.token_hex(6)}"
        assert world.ask("operator", "PUT", f"/admin/aliases/{name}", ALIAS).status_code == 200
        world.cleanups.append(lambda: world.ask("operator", "DELETE", f"/admin/aliases/{name}"))
        return Asked(body, {"alias": name})

    return ask


def a_rule(body: Any = None) -> Ask:
    def ask(world: World, _kind: str) -> Asked:
        model = f"m/{secrets.token_hex(6)}"
        assert world.ask("operator", "PUT", f"/admin/model-rules/{model}", RULE).status_code == 200
        world.cleanups.append(lambda: world.ask("operator", "DELETE", f"/admin/model-rules/{model}"))
        return Asked(body, {"model": model})

    return ask


def new_named(world: World, kind: str) -> Asked:
    del world, kind
    return Asked({"name": f"n{secrets.token_hex(4)}"})


def own_team(world: World, kind: str) -> Asked:
    """The team that the owner is in, for as long as it is asked for."""
    owner = world.owns(kind)
    there = world.ask(kind, "GET", "/api/team", bearer=owner.token)
    if there.status_code == 200:
        return Asked(parts={"team_id": there.json()["id"], "user_id": owner.id})
    team = a_team()(world, kind).parts or {}
    put = {"user_id": owner.id, "role": "manager"}
    assert world.ask("operator", "POST", f"/admin/teams/{team['team_id']}/members", put).status_code == 201
    return Asked(parts=team | {"user_id": owner.id})


def with_a_member(body: Any = None) -> Ask:
    return lambda world, kind: Asked(body, own_team(world, kind).parts)


def a_team(body: Any = None) -> Ask:
    def ask(world: World, _kind: str) -> Asked:
        made = world.ask("operator", "POST", "/admin/teams", {"name": f"{CANARY}-{secrets.token_hex(4)}"})
        assert made.status_code == 201, made.text
        path = f"/admin/teams/{made.json()['id']}"
        world.cleanups.append(lambda: world.ask("operator", "DELETE", path))
        return Asked(body, {"team_id": made.json()["id"]})

    return ask


def a_team_for_somebody_new(world: World, kind: str) -> Asked:
    return Asked({"user_id": world.new_person().id}, a_team()(world, kind).parts)


def a_pool_key(world: World, _kind: str) -> Asked:
    enable = "/admin/pool/enable"
    world.cleanups.append(lambda: world.ask("operator", "POST", enable, {"name": world.pool_key}))
    return Asked({"name": world.pool_key})


def of_a_new_account(world: World, kind: str) -> Asked:
    """A key of an account at OpenRouter, disconnected afterwards: other requests are not to be carried by it."""
    disconnect = "/api/v1/openrouter/logout"
    world.cleanups.append(lambda: world.ask(kind, "POST", disconnect, {}))
    return Asked({"api_key": world.stand_in.new_key()["key"]})


def with_an_account(world: World, kind: str) -> Asked:
    world.ask(kind, "POST", "/api/v1/openrouter/auth/validate-key", of_a_new_account(world, kind).body)
    return Asked()


def with_a_code(world: World, kind: str) -> Asked:
    """What OpenRouter's log-in has returned to whoever may begin one, and to others what it never did."""
    of_a_new_account(world, kind)
    begun = world.ask(kind, "POST", "/api/v1/openrouter/oauth/initiate", {"callback_url": "http://localhost:9/"})
    if begun.status_code != 200:
        return Asked({"code": "x", "state": "x"})
    url, account = begun.json()["authorization_url"], world.stand_in.new_account()["id"]
    returned = parse_qs(urlsplit(world.stand_in.decide(url, account)).query)
    return Asked({name: returned[name][0] for name in ("code", "state")})


ROWS: dict[str, tuple[str, Ask]] = {
    # ── model calls
    "POST /api/proxy/openrouter": (CALLS, CHAT),
    "POST /v1/chat/completions": (CALLS, CHAT),
    "POST /api/v1/chat/completions": (CALLS, CHAT),
    "POST /v1/completions": (CALLS, TEXT),
    "POST /api/v1/completions": (CALLS, TEXT),
    "POST /v1/embeddings": (CALLS, VECTORS),
    "POST /api/v1/embeddings": (CALLS, VECTORS),
    "POST /v1/rerank": (CALLS, FITTING),
    "POST /api/v1/rerank": (CALLS, FITTING),
    "POST /v1/images": (CALLS, PICTURE),
    "POST /api/v1/images": (CALLS, PICTURE),
    "POST /v1/images/generations": (CALLS, PICTURE),
    "POST /api/v1/images/generations": (CALLS, PICTURE),
    "POST /v1/audio/speech": (CALLS, SPOKEN),
    "POST /api/v1/audio/speech": (CALLS, SPOKEN),
    "POST /v1/audio/transcriptions": (CALLS, HEARD),
    "POST /api/v1/audio/transcriptions": (CALLS, HEARD),
    "POST /v1/videos": (instead(CALLS, 200, 202), FILM),
    "POST /api/v1/videos": (instead(CALLS, 200, 202), FILM),
    "POST /v1/responses": (CALLS, RESPONSE),
    "POST /api/v1/responses": (CALLS, RESPONSE),
    "POST /v1/messages": (CALLS, CHAT),
    "POST /api/v1/messages": (CALLS, CHAT),
    "POST /v1/messages/count_tokens": (CALLS, CHAT),
    "POST /api/v1/messages/count_tokens": (CALLS, CHAT),
    # ── what SDKs read
    "GET /v1/models": (CALLERS, PLAIN),
    "GET /api/v1/models": (CALLERS, PLAIN),
    "GET /v1/models/{name}": (CALLERS, MODEL),
    "GET /api/v1/models/{name}": (CALLERS, MODEL),
    "GET /v1/model/{name}": (CALLERS, MODEL),
    "GET /api/v1/model/{name}": (CALLERS, MODEL),
    **{
        f"GET {base}{path}": (CALLERS, PLAIN)
        for base in ("/v1", "/api/v1")
        for path in (
            "/models/count",
            "/models/user",
            "/embeddings/models",
            "/images/models",
            "/videos/models",
            "/providers",
            "/endpoints/zdr",
            "/credits",
        )
    },
    **{f"GET {base}/models/{{name}}/endpoints": (CALLERS, MODEL) for base in ("/v1", "/api/v1")},
    **{f"GET {base}/images/models/{{name}}/endpoints": (CALLERS, IMAGE_MODEL) for base in ("/v1", "/api/v1")},
    "GET /v1/videos/{job_id}": (THEIR_CALLS, own_job),
    "GET /api/v1/videos/{job_id}": (THEIR_CALLS, own_job),
    "GET /v1/videos/{job_id}/content": (THEIR_CALLS, own_job),
    "GET /api/v1/videos/{job_id}/content": (THEIR_CALLS, own_job),
    "GET /v1/generation": (THEIR_CALLS, own_call),
    "GET /api/v1/generation": (THEIR_CALLS, own_call),
    "GET /v1/key": (CALLERS, PLAIN),
    "GET /api/v1/key": (CALLERS, PLAIN),
    "GET /api/v1/auth/key": (CALLERS, PLAIN),
    # ── one's favourites among the models
    "GET /api/models/favourites": (USERS, PLAIN),
    "PUT /api/models/favourites/{name}": (USERS, a_favourite),
    "DELETE /api/models/favourites/{name}": (THE_OWNER, own_favourite),
    "PUT /api/models/default": (USERS, sent({"model": "openai/gpt-4o-mini"})),
    # ── accounts
    "GET /api/auth/kdf": (ANYBODY, PLAIN),
    "POST /api/auth/step-up": (USERS, own_proof),
    "POST /api/auth/step-up-password": (instead(USERS, 200, 401), sent({"email": "nobody", "password": PASSWORD})),
    "GET /api/auth/second-factor": (USERS, PLAIN),
    "POST /api/auth/second-factor": (instead(USERS, 200, 201), PLAIN),
    "POST /api/auth/second-factor/confirm": (instead(USERS, 200, 404), without_a_second_factor({"code": "000000"})),
    "DELETE /api/auth/second-factor": (instead(USERS, 200, 404), without_a_second_factor()),
    "DELETE /admin/users/{user_id}/second-factor": (instead(OPERATORS, 200, 404), the_owner()),
    "GET /api/auth/passkeys": (USERS, PLAIN),
    "POST /api/auth/passkeys/challenge": (USERS, PLAIN),
    "POST /api/auth/passkeys": (instead(USERS, 200, 400), sent({"name": "x", "credential": NEW_PASSKEY})),
    "DELETE /api/auth/passkeys/{passkey_id}": (THE_OWNER, own_passkey),
    "POST /api/auth/passkeys/log-in/challenge": (ANYBODY, PLAIN),
    "POST /api/auth/passkeys/log-in": (instead(ANYBODY, 200, 400), sent({"credential": PASSKEY_ANSWER})),
    "GET /api/auth/recovery-codes": (USERS, PLAIN),
    "POST /api/auth/recovery-codes": (instead(USERS, 200, 201), PLAIN),
    "POST /api/auth/recover": (ANYBODY, with_a_recovery_code),
    "POST /api/auth/recover-password": (ANYBODY, with_a_code_for_a_password),
    "POST /api/auth/reset": (ANYBODY, with_a_reset_link),
    "POST /api/auth/reset-password": (ANYBODY, with_a_link_for_a_password),
    "POST /api/auth/set-key": (instead(USERS, 200, 409), first_key),  # they have one
    "POST /api/auth/set-password": (instead(USERS, 200, 409), new_account_with_a_password),
    "POST /register": (instead(ANYBODY, 200, 201), new_account),
    "POST /login": (ANYBODY, own_log_in),
    "POST /api/auth/register": (instead(ANYBODY, 200, 201), new_account_with_a_password),
    "POST /api/auth/login": (ANYBODY, log_in_with_a_password),
    "GET /api/auth/check-username": (ANYBODY, sent(query="?username=somebody")),
    "POST /api/auth/refresh": (ANYBODY, own_refresh_token),
    "POST /api/auth/logout": (USERS, a_session_more),
    "POST /api/auth/logout-all": (USERS, of_somebody_new),
    "POST /api/auth/end-everything": (USERS, of_somebody_new),
    "POST /api/auth/change-key": (USERS, of_somebody_new_with_a_new_key),
    "POST /api/auth/change-password": (USERS, of_somebody_new_with_a_new_password),
    "GET /api/auth/sessions": (USERS, PLAIN),
    "DELETE /api/auth/sessions/{session_id}": (THE_OWNER, own_session),
    "GET /api/auth/events": (USERS, PLAIN),
    "GET /api/auth/me": (USERS, PLAIN),
    "DELETE /api/auth/me": (USERS, of_somebody_new),
    "GET /api/auth/export": (USERS, PLAIN),
    "PUT /api/auth/profile": (USERS, sent({"display_name": "Ann"})),
    # ── single sign-on
    "GET /api/auth/sso": (ANYBODY, PLAIN),
    "GET /api/auth/sso/links": (USERS, own_identity),
    "GET /api/auth/sso/{provider}": (instead(ANYBODY, 200, 302), sent(provider="github")),
    # Nobody comes back who has not begun in the same browser.
    "GET /api/auth/sso/{provider}/callback": (
        instead(ANYBODY, 200, 400),
        sent(query="?state=x&code=y", provider="github"),
    ),
    "GET /api/auth/sso/initiate": (instead(ANYBODY, 200, 302), sent(query="?provider=github")),
    "GET /api/auth/sso/callback": (instead(ANYBODY, 200, 400), sent(query="?state=x&code=y")),
    "GET /api/auth/github/login": (instead(ANYBODY, 200, 302), PLAIN),
    "POST /api/auth/github/callback": (instead(ANYBODY, 200, 400), sent({"code": "x"})),
    "POST /api/auth/sso/token": (instead(ANYBODY, 200, 400), sent({"code": "x"})),
    "POST /api/auth/sso/{provider}/link": (USERS, sent({"next": "/"}, provider="github")),
    "DELETE /api/auth/sso/{provider}": (THE_OWNER, own_identity),
    # ── client keys and API tokens
    "GET /api/api-keys": (USERS, own_key()),
    "POST /api/api-keys": (instead(USERS, 200, 201), new_named),
    "GET /api/api-keys/{key_id}": (THE_OWNER, own_key()),
    "PATCH /api/api-keys/{key_id}": (THE_OWNER, own_key({"description": "x"})),
    "DELETE /api/api-keys/{key_id}": (THE_OWNER, own_key()),
    "GET /api/tokens": (USERS, own_token),
    "POST /api/tokens": (instead(USERS, 200, 201), new_named),
    "DELETE /api/tokens/{token_id}": (THE_OWNER, own_token),
    # ── OpenRouter keys of people's own
    "GET /api/keys": (USERS, own_watched_key()),
    "POST /api/keys": (instead(USERS, 200, 201), new_watched_key),
    "GET /api/keys/{key_id}": (THEIR_OWN, own_watched_key()),
    "PUT /api/keys/{key_id}": (THEIR_OWN, own_watched_key({"name": "x"})),
    "DELETE /api/keys/{key_id}": (THEIR_OWN, own_watched_key()),
    "POST /api/keys/{key_id}/sync": (THEIR_OWN, a_watched_key_of_a_while_ago),
    "GET /api/keys/{key_id}/usage": (THEIR_OWN, own_watched_key()),
    # ── plug-ins
    "GET /api/plugin-api/accounts": (USERS, PLAIN),
    "POST /api/plugin-api/oauth/authorize": (USERS, sent({"callback_url": "http://localhost:9/"})),
    "GET /api/plugin-api/quotas/user": (CALLERS, PLAIN),
    "GET /api/plugin-api/models": (CALLERS, PLAIN),
    "POST /api/plugin-api/chat/completions": (CALLS, CHAT),
    # ── usage, quota, own key
    "GET /api/usage/stats": (READERS, PLAIN),
    "GET /api/usage/shares": (READERS, PLAIN),
    "GET /api/usage/logs": (READERS, PLAIN),
    "GET /api/usage/logs/export": (READERS, FILE),
    "GET /api/usage/logs/{request_id}": (THEIR_LOG, own_request),
    "GET /api/v1/stats": (READERS, PLAIN),
    "GET /api/v1/usage": (READERS, PLAIN),
    "GET /api/v1/keys": (READERS, PLAIN),
    "GET /api/quota": (CALLERS, PLAIN),
    "GET /api/team": (THE_OWNER, own_team),
    "GET /api/upstream": (USERS, PLAIN),
    "PUT /api/upstream": (instead(USERS, 200, 409), sent({"choice": "shared_first"})),
    # ── one's own account at OpenRouter
    "POST /api/v1/openrouter/auth/validate-key": (USERS, of_a_new_account),
    "POST /api/v1/openrouter/oauth/initiate": (USERS, sent({"callback_url": "http://localhost:9/"})),
    "POST /api/v1/openrouter/oauth/callback": (USERS, with_a_code),
    "GET /api/v1/openrouter/oauth/callback": (instead(ANYBODY, 200, 403), sent(query="?code=x&state=x")),
    "GET /api/v1/openrouter/status": (USERS, PLAIN),
    "GET /api/v1/openrouter/user-info": (USERS, with_an_account),
    "POST /api/v1/openrouter/logout": (USERS, with_an_account),
    # ── operators
    "GET /admin/stats": (AUDITORS, PLAIN),
    "GET /admin/usage/shares": (AUDITORS, PLAIN),
    "GET /admin/latency": (AUDITORS, PLAIN),
    "GET /admin/logs": (AUDITORS, PLAIN),
    "GET /admin/logs/export": (AUDITORS, FILE),
    "GET /admin/logs/{request_id}": (AUDITORS, own_request),
    "GET /admin/refusals": (AUDITORS, PLAIN),
    "GET /admin/settings": (AUDITORS, PLAIN),
    "GET /admin/usage-checks": (AUDITORS, PLAIN),
    "GET /admin/audit": (AUDITORS, PLAIN),
    "GET /admin/pool": (AUDITORS, PLAIN),
    "POST /admin/pool/enable": (OPERATORS, a_pool_key),
    "POST /admin/pool/disable": (OPERATORS, a_pool_key),
    "POST /admin/pool/rotate": (instead(OPERATORS, 200, 404), a_pool_key),  # it isn't a minted one
    "GET /admin/quotas": (AUDITORS, PLAIN),
    "GET /admin/quotas/{kind}/{number}": (AUDITORS, the_owners_quota),
    "PUT /admin/quotas/{kind}/{number}": (OPERATORS, the_owner({"limit_usd": 1000}, kind="user")),
    "DELETE /admin/quotas/{kind}/{number}": (OPERATORS, the_owners_quota),
    "GET /admin/keys": (AUDITORS, PLAIN),
    "POST /admin/keys": (instead(OPERATORS, 200, 201), new_named),
    "GET /admin/keys/{key_id}": (AUDITORS, own_key()),
    "PATCH /admin/keys/{key_id}": (OPERATORS, own_key({"description": "x"})),
    "DELETE /admin/keys/{key_id}": (OPERATORS, own_key()),
    "GET /admin/upstreams": (AUDITORS, PLAIN),
    "POST /admin/upstreams": (instead(OPERATORS, 200, 201), new_upstream),
    "GET /admin/upstreams/{upstream}": (AUDITORS, of_a_new_upstream()),
    "PUT /admin/upstreams/{upstream}": (OPERATORS, of_a_new_upstream(UPSTREAM | {"timeout_seconds": 9})),
    "DELETE /admin/upstreams/{upstream}": (OPERATORS, of_a_new_upstream()),
    "POST /admin/upstreams/{upstream}/check": (OPERATORS, of_a_new_upstream()),
    "GET /admin/users": (AUDITORS, PLAIN),
    "POST /admin/users/find": (AUDITORS, lambda world, _kind: Asked({"username": world.owner.account["username"]})),
    "GET /admin/users/{user_id}": (AUDITORS, the_owner()),
    "DELETE /admin/users/{user_id}": (
        OPERATORS,
        lambda world, _kind: Asked(parts={"user_id": world.new_person().id}),
    ),
    "PATCH /admin/users/{user_id}": (OPERATORS, the_owner({"trust_level": 1})),
    "GET /admin/alerts": (AUDITORS, PLAIN),
    "POST /admin/alerts/test": (instead(OPERATORS, 200, 400), PLAIN),  # no channel is set
    "PUT /admin/alerts/kinds/{kind}": (
        OPERATORS,
        lambda _world, _kind: Asked({"silenced": False}, parts={"kind": "pool-low"}),
    ),
    "GET /admin/teams": (AUDITORS, PLAIN),
    "POST /admin/teams": (instead(OPERATORS, 200, 201), new_named),
    "GET /admin/teams/{team_id}": (AUDITORS, own_team),
    "PATCH /admin/teams/{team_id}": (OPERATORS, a_team({"models": ["openai/*"]})),
    "DELETE /admin/teams/{team_id}": (OPERATORS, a_team()),
    "POST /admin/teams/{team_id}/members": (instead(OPERATORS, 200, 201), a_team_for_somebody_new),
    "PATCH /admin/teams/{team_id}/members/{user_id}": (OPERATORS, with_a_member({"role": "member"})),
    "DELETE /admin/teams/{team_id}/members/{user_id}": (OPERATORS, with_a_member()),
    "GET /admin/aliases": (AUDITORS, PLAIN),
    "PUT /admin/aliases/{alias}": (OPERATORS, an_alias(ALIAS)),
    "DELETE /admin/aliases/{alias}": (OPERATORS, an_alias()),
    "GET /admin/model-rules": (AUDITORS, PLAIN),
    "PUT /admin/model-rules/{model}": (OPERATORS, a_rule(RULE)),
    "DELETE /admin/model-rules/{model}": (OPERATORS, a_rule()),
    "GET /admin/tokens": (AUDITORS, PLAIN),
    "POST /admin/tokens": (instead(OPERATORS, 200, 201), new_named),
    "DELETE /admin/tokens/{token_id}": (OPERATORS, an_operator_token),
    "GET /admin/invitations": (AUDITORS, PLAIN),
    "POST /admin/invitations": (instead(OPERATORS, 200, 201), sent({"note": "x"})),
    "DELETE /admin/invitations/{invitation_id}": (OPERATORS, an_invitation),
    "POST /admin/users/{user_id}/end-everything": (
        OPERATORS,
        lambda world, _kind: Asked(parts={"user_id": world.new_person().id}),
    ),
    "POST /admin/users/{user_id}/reset-link": (instead(OPERATORS, 200, 201), the_owner()),
    "POST /admin/users/{user_id}/end-sessions": (
        OPERATORS,
        lambda world, _kind: Asked(parts={"user_id": world.new_person().id}),
    ),
    # ── health and documents
    "GET /api/health": (ANYBODY, PLAIN),
    "GET /metrics": (SCRAPERS, PLAIN),  # with a token that is nobody's
    "GET /livez": (ANYBODY, PLAIN),
    "GET /readyz": (ANYBODY, PLAIN),
    "GET /api/openapi.json": (ANYBODY, PLAIN),
    "GET /api/docs": (ANYBODY, PLAIN),
    "GET /api/redoc": (ANYBODY, PLAIN),
    "GET /api/docs/assets/{name}": (ANYBODY, sent(name="api-docs.js")),
}
ROUTES = all_routes()


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    assert set(ROUTES) - set(ROWS) == set(), "say who may use it, in ROWS"
    assert set(ROWS) - set(ROUTES) == set()


def test_every_row_says_what_each_kind_of_caller_gets() -> None:
    assert {route: len(row.split()) for route, (row, _) in ROWS.items()} == dict.fromkeys(ROWS, len(KINDS))


@pytest.fixture(scope="module")
def world(modules_database_url: str, start: Callable[..., Gateway], stand_in: Running) -> Iterator[World]:
    """A gateway and its people, once on each kind of database; the owner has made a call and has one more in the log."""
    made = World(start, stand_in, modules_database_url)
    store(made.db, [row(1, NOON, user_id=made.owner.id, model=CANARY)])
    yield made
    made.close()


@pytest.mark.parametrize("route", [route for route in ROUTES if route in ROWS])
def test_each_kind_of_caller_gets_what_it_may_have_and_nothing_of_others(world: World, route: str) -> None:
    expected, ask = ROWS[route]
    method, _, template = route.partition(" ")
    got = []
    for kind in KINDS:
        asked = ask(world, kind)
        answer = world.ask(kind, method, template.format(**asked.parts or {}) + asked.query, asked.body, asked.bearer)
        got.append(answer.status_code)
        if kind in {"nobody", "other"}:
            assert CANARY not in answer.text, kind
        assert world.owner.token not in answer.text
        while world.cleanups:
            world.cleanups.pop()()
    assert dict(zip(KINDS, map(str, got), strict=True)) == dict(zip(KINDS, expected.split(), strict=True))


def test_no_other_method_is_taken_anywhere(world: World) -> None:
    """Also none that a proxy in front might rewrite. Pages have methods of their own, which tests/web/pages looks at."""
    app = Flask("pages", static_folder=None)
    register_pages(app)
    pages = app.url_map.bind("pages")
    taken = {tuple(route.split(" ")) for route in ROUTES}
    for path in sorted({path for _, path in taken}):
        numbers = dict.fromkeys(
            ("key_id", "token_id", "passkey_id", "user_id", "invitation_id", "team_id", "number"), 1
        )
        names = dict.fromkeys(
            ("name", "upstream", "alias", "model", "session_id", "provider", "request_id", "job_id"), "x"
        )
        asked = path.format(**numbers, **names, kind="user")
        # What stands in the place of another path's part, too.
        here = {found for found, other in taken if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", other), asked)}
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT"):
            # These two have no body (RFC 9110, 9.3.6 and 9.3.8): a server takes one for the start of another request.
            body = None if method in {"TRACE", "CONNECT"} else {}
            if method not in here and not pages.test(asked, method):
                assert world.ask("operator", method, asked, body).status_code in {404, 405}, (method, path)

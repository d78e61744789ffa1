"""A user's client keys: what programs call models with instead of a log-in. Nobody else's are ever shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import Field

from accounts.allow_lists import MAX_MODELS, MAX_UPSTREAMS
from accounts.caller import Caller
from accounts.client_keys import MAX_RPM, SCOPES, Also, ClientKeyRow
from accounts.networks import MAX_NETWORKS
from accounts.step_up import Act
from billing.quotas.budgets import budget_terms, sets_budget, with_budgets
from billing.quotas.terms import QuotaTerms, check_amount
from db import Transaction
from foundation.errors import Conflict
from vault.hashed import MAX_NAME_CHARACTERS, is_lasting
from web.api.quotas import QuotaShown
from web.http import answer, audit, check_fresh, services
from web.operation import Body, Moment, Page, Paging, Shown, Who, operation

routes = Blueprint("client_key_api", __name__, url_prefix="/api/api-keys")

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
Description = Annotated[str, Field(max_length=1000)]
Scope = Literal[
    "chat",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "rerank",
    "images",
    "speech",
    "transcriptions",
    "videos",
]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))]
Models = Annotated[list[str], Field(min_length=1, max_length=MAX_MODELS)]
Addresses = Annotated[
    list[Annotated[str, Field(max_length=64)]],
    Field(min_length=1, max_length=MAX_NETWORKS, description="From where it may be used"),
]
Upstreams = Annotated[list[str], Field(min_length=1, max_length=MAX_UPSTREAMS)]
ResponseCache = Annotated[bool, Field(description="Whether exact repeats of its calls are answered from memory")]
Rpm = Annotated[int, Field(ge=1, le=MAX_RPM)]
Expiry = Annotated[
    Moment | None,
    Field(
        description="None, or more than a year (366 days) away, takes a fresh session",
        examples=["2027-01-01T00:00:00Z"],
    ),
]
State = Literal["active", "expired", "revoked"]


class Budget(Body):
    """What a key may spend. So for period and recovery: those of the settings."""

    limit_usd: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = Field(examples=[20])
    period: Literal["day", "week", "month", "none"] | None = None
    recovery: Literal["reset", "steady"] | None = None

    def terms(self) -> QuotaTerms:
        """As a quota has it. Raises BadRequest."""
        limit_nano = check_amount("limit_usd", self.limit_usd)
        return budget_terms(services().config, limit_nano, self.period, self.recovery)


class NewClientKey(Body):
    """Lists that are null or missing: all of them. models: names, or beginnings with an asterisk."""

    name: Name = Field(examples=["nightly report"])
    description: Description = ""
    scopes: Scopes | None = Field(None, examples=[["chat"]])
    models: Models | None = Field(None, examples=[["openai/gpt-4o-mini", "anthropic/*"]])
    upstreams: Upstreams | None = Field(None, examples=[["openrouter"]])
    addresses: Addresses | None = Field(None, examples=[["203.0.113.7", "2001:db8::/48"]])
    rpm: Rpm | None = Field(None, examples=[60])
    budget: Budget | None = None
    response_cache: ResponseCache = False
    expires_at: Expiry = None
    team: bool = Field(False, description="A key of the owner's team: it ends when its owner leaves that")


class ClientKeyChanges(Body):
    """What is missing stays as it is; null takes a limit away."""

    name: Name = Field("", examples=["nightly report"])
    description: Description = ""
    scopes: Scopes | None = None
    models: Models | None = Field(None, examples=[["openai/*"]])
    upstreams: Upstreams | None = None
    addresses: Addresses | None = None
    rpm: Rpm | None = None
    budget: Budget | None = None
    response_cache: ResponseCache = False
    expires_at: Expiry = None


class ClientKeyShown(Shown):
    """A key without its text. key_hint: its first characters. Null lists: all. rpm null: as for every key."""

    id: int
    user_id: int
    team_id: int | None = Field(description="Of whose team it is a key", examples=[3])
    key_hint: str = Field(examples=["sk-auto-ab****"])
    name: str
    description: str
    state: State
    scopes: list[Scope] | None
    models: list[str] | None
    upstreams: list[str] | None
    addresses: list[str] | None
    rpm: int | None
    budget: QuotaShown | None
    response_cache: bool
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    last_used: datetime | None
    revoked_at: datetime | None


class ClientKeyMade(ClientKeyShown):
    """A new key. key: its text, shown this once."""

    key: str = Field(examples=["sk-auto-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"])


@routes.get("")
@operation("List your client keys", Who.USER, query=Paging, answers={200: Page[ClientKeyShown]})
def page(caller: Caller, query: Paging) -> Response:
    """Newest first, without those that are revoked."""
    found, total = services().client_keys.page(query.page, query.page_size, caller.user_id)
    return answer({"items": shown(found), "total": total, "page": query.page, "page_size": query.page_size})


@routes.post("")
@operation("Make a client key", Who.USER, body=NewClientKey, answers={201: ClientKeyMade}, refusals=(409,))
def create(caller: Caller, body: NewClientKey) -> Response:
    """Its text is shown in this answer and never again. 409 for more keys than a user may have, or for `team` without
    one."""
    return make_key(_actor(caller), caller.user_id, body, caller.hold)


@routes.get("/<int:key_id>")
@operation("Show a client key", Who.USER, answers={200: ClientKeyShown}, refusals=(404,))
def show(caller: Caller, key_id: int) -> Response:
    """One of your keys; 404 for one that is revoked."""
    return answer(shown([services().client_keys.get(key_id, caller.user_id)])[0])


@routes.patch("/<int:key_id>")
@operation("Change a client key", Who.USER, body=ClientKeyChanges, answers={200: ClientKeyShown}, refusals=(404,))
def change(caller: Caller, key_id: int, body: ClientKeyChanges) -> Response:
    """In force everywhere within two seconds."""
    return change_key(_actor(caller), key_id, body, caller.user_id)


@routes.delete("/<int:key_id>")
@operation("Revoke a client key", Who.USER, answers={200: ClientKeyShown}, refusals=(404,))
def delete(caller: Caller, key_id: int) -> Response:
    """The key is refused everywhere within two seconds, for good."""
    return revoke_key(_actor(caller), key_id, caller.user_id)


def _actor(caller: Caller) -> str:
    return f"user/{caller.user_id}"


# ── for the operator's routes too


def make_key(
    actor: str, user_id: int | None, body: NewClientKey, first: Callable[[Transaction], None] = lambda _: None
) -> Response:
    """Make a key for a user, or with an account of its own. first: as for ClientKeys.create.

    Raises Conflict; SessionNotFresh for one that is to last.
    """
    check_life(body.expires_at)
    teams, team = services().teams, None
    if body.team and (user_id is None or (team := teams.of_user.get(user_id)) is None):
        raise Conflict("There is no team that this key could be of: its owner is in none; leave out `team`")

    def check(tx: Transaction) -> None:
        first(tx)
        if team and user_id:
            teams.check_member(tx, team.id, user_id)

    fields = body.model_dump(exclude={"budget", "user_id", "team"}) | {"team_id": team.id if team else None}
    row, text = services().client_keys.create(user_id, fields, _budget(body), check)
    audit(actor, "client_key_made", _subject(row), row.user_id, fields=_told(body))
    return answer({**shown([row])[0], "key": text}, 201)


def change_key(actor: str, key_id: int, body: ClientKeyChanges, user_id: int | None = None) -> Response:
    """Change a key. user_id: whose it has to be. Raises SessionNotFresh if it is to last, and did not."""
    keys = services().client_keys
    if "expires_at" in body.model_fields_set:
        so_far = keys.get(key_id, user_id).expires_at
        if not is_lasting(so_far, services().clock.now()):
            check_life(body.expires_at)
    fields = body.model_dump(exclude={"budget"}, exclude_unset=True)
    row = keys.change(key_id, fields, user_id, _budget(body))
    audit(actor, "client_key_changed", _subject(row), row.user_id, fields=_told(body))
    return answer(shown([row])[0])


def revoke_key(actor: str, key_id: int, user_id: int | None = None) -> Response:
    """Revoke a key. user_id: whose it has to be."""
    row = services().client_keys.revoke(key_id, user_id)
    audit(actor, "client_key_revoked", _subject(row), row.user_id)
    return answer(shown([row])[0])


def check_life(expires_at: datetime | None) -> None:
    """Let only a fresh session make a secret that lasts: whoever finds a browser open could keep it for good.

    Raises SessionNotFresh.
    """
    if is_lasting(expires_at, services().clock.now()):
        check_fresh(Act.MAKE_LASTING_KEY)


def shown(rows: Sequence[ClientKeyRow]) -> list[dict[str, object]]:
    """Keys as they are answered, with their budgets."""
    return with_budgets(rows, services().quotas, services().clock.now())


def _budget(body: NewClientKey | ClientKeyChanges) -> Also | None:
    """Sets the quota that the body asks for; None if it says nothing of it."""
    if "budget" not in body.model_fields_set:
        return None
    return sets_budget(body.budget.terms() if body.budget else None)


def _told(body: Body) -> dict[str, Any]:
    """What the audit log is told of a change."""
    return body.model_dump(mode="json", exclude_unset=True)


def _subject(row: ClientKeyRow) -> str:
    return f"client-key/{row.id}"

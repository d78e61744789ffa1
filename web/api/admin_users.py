"""For operators: the accounts, without their names, and changes to them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import AfterValidator, Field

from accounts.labels import MAX_CHARACTERS, check_printable
from accounts.roles import rights_of
from accounts.step_up import Act
from accounts.users import MAX_TRUST_LEVEL, UpstreamChoice, User, UserRole, UserState
from auth import check_username
from billing.quotas.rows import Quota
from foundation.errors import Conflict, NotFound
from web.api.own_data import AccountDeleted
from web.api.quotas import QuotaShown
from web.api.recovery import ResetLinkMade, make_reset_link
from web.api.second_factors import SecondFactorChanged, remove_users_second_factor
from web.api.sessions import AllEnded, end_all
from web.http import answer, audit, check_appoints, check_fresh, note_read, services
from web.operation import DIGITS, Body, Page, Paging, Shown, Who, operation

routes = Blueprint("admin_user_api", __name__, url_prefix="/admin/users")

ONE = "/<int:user_id>"


class UserFilter(Paging):
    """Which accounts."""

    state: Literal["active", "disabled", "silenced", "pending"] | None = Field(
        None, description="In this state alone; pending: waits to be let in"
    )
    role: Literal["user", "auditor", "admin", "service"] | None = Field(None, description="With this role alone")
    trust_level: Annotated[int, Field(ge=0, le=MAX_TRUST_LEVEL), DIGITS] | None = Field(
        None, description="With this trust level alone"
    )


class UserName(Body):
    """Who is looked for; in a body, because what stands in a URL ends up in logs."""

    username: str = Field(examples=["somebody@example.com"])


def _label(text: str) -> str:
    return check_printable(text) if text else text


class UserChange(Body):
    """What changes; what is null or missing stays."""

    state: Literal["active", "disabled", "silenced"] | None = Field(
        None,
        description="disabled: no log-in, no calls; silenced: may look, may not call; active lets in who is pending",
        examples=["silenced"],
    )
    role: Literal["user", "auditor", "admin"] | None = Field(
        None, description="auditor: may read all below /admin; admin: may change it too", examples=["user"]
    )
    trust_level: int | None = Field(None, ge=0, le=MAX_TRUST_LEVEL, examples=[1])
    label: Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_label)] | None = Field(
        None,
        description="What operators call it, in printable characters; empty for nothing",
        examples=["marketing, laptop 3"],
    )


class UserShown(Shown):
    """An account. Its name is stored as a hash only, so nobody can be shown it."""

    id: int = Field(examples=[17])
    state: UserState
    role: UserRole
    trust_level: int = Field(examples=[0])
    created_at: datetime
    last_login: datetime | None
    upstream_choice: UpstreamChoice
    label: str | None = Field(description="What operators call it", examples=["marketing, laptop 3"])
    user_label: str | None = Field(
        description="The label; without one the display name that its owner shares, in quotation marks",
        examples=["marketing, laptop 3"],
    )
    providers: list[str] = Field(description="Where its owner logs in elsewhere", examples=[["github"]])
    has_second_factor: bool
    quota: QuotaShown | None = Field(description="What it may spend and has spent; null without a quota")


class SessionsEnded(Shown):
    """How many sessions there were."""

    ended: int = Field(examples=[2])


@routes.get("")
@operation("List users", Who.AUDITOR, query=UserFilter, answers={200: Page[UserShown]})
def page(query: UserFilter) -> Response:
    """The accounts, newest first. Service accounts are those of client keys without a person."""
    return answer(users_shown(query))


@routes.post("/find")
@operation("Find a user by name", Who.AUDITOR, body=UserName, answers={200: UserShown}, refusals=(404,))
def find(body: UserName) -> Response:
    """The account of this name; 404 without one."""
    return answer(user_found(body))


@routes.get(ONE)
@operation("Show a user", Who.AUDITOR, answers={200: UserShown}, refusals=(404,))
def show(user_id: int) -> Response:
    """An account by its id."""
    return answer(user_shown(user_id))


@routes.patch(ONE)
@operation("Change a user", Who.OPERATOR, body=UserChange, answers={200: UserShown}, refusals=(404, 409))
def patch(operator: str, user_id: int, body: UserChange) -> Response:
    """Change state, role, trust level or label, in force everywhere within two seconds; disabling ends all sessions.

    409 for an admin who would lock themselves out, and for the role of a service account.
    """
    return change_user(operator, user_id, body)


@routes.post(f"{ONE}/end-sessions")
@operation("End a user's sessions", Who.OPERATOR, answers={200: SessionsEnded}, refusals=(404,))
def end_sessions(operator: str, user_id: int) -> Response:
    """Log a user out everywhere within two seconds. Client keys and API tokens stay."""
    return end_users_sessions(operator, user_id)


@routes.post(f"{ONE}/end-everything")
@operation("End a user's sessions and keys", Who.OPERATOR, answers={200: AllEnded}, refusals=(404,))
def end_everything(operator: str, user_id: int) -> Response:
    """After a theft: sessions, client keys and API tokens are refused everywhere within two seconds."""
    return answer({"message": "Everything is ended"} | end_all(operator, _get(user_id).id))


@routes.post(f"{ONE}/reset-link")
@operation("Make a reset link", Who.OPERATOR, answers={201: ResetLinkMade}, refusals=(404, 409))
def reset_link(operator: str, user_id: int) -> Response:
    """For who has forgotten their password and has no recovery code: good once and for an hour; the one before is over.

    Send it to nobody but the account's owner, who is told of it at the next log-in. 409 for a service account.
    """
    return answer(make_reset_link(operator, user_id), 201)


@routes.delete(f"{ONE}/second-factor")
@operation("Remove a user's second factor", Who.OPERATOR, answers={200: SecondFactorChanged}, refusals=(404,))
def remove_second_factor(operator: str, user_id: int) -> Response:
    """For who has lost it, and has no recovery code: the next log-in takes the password alone. 404 without one."""
    remove_users_second_factor(operator, user_id)
    return answer({"message": "Second factor removed"})


@routes.delete(ONE)
@operation("Delete a user", Who.OPERATOR, answers={200: AccountDeleted}, refusals=(404, 409))
def delete(operator: str, user_id: int) -> Response:
    """Sessions, keys and tokens are refused everywhere within two seconds, and it can't be undone. The name is free.

    What their calls have cost stays in the books, under a number. 409 for one's own account: that is at
    `DELETE /api/auth/me`.
    """
    delete_user(operator, user_id)
    return answer({"message": "Account deleted"})


# ── for the pages too


def users_shown(query: UserFilter) -> dict[str, Any]:
    """A page of accounts, as it is answered."""
    wanted = query.model_dump(include={"state", "role", "trust_level"}, exclude_none=True)
    found, total = services().users.page(query.page, query.page_size, wanted)
    quotas = services().quotas.find_all([f"user/{user.id}" for user in found])
    ids = [user.id for user in found]
    more = services().sign_on.identities.providers_of(ids), services().second_factors.holders(ids)
    items = [_shown(user, quotas.get(f"user/{user.id}"), *more) for user in found]
    return {"items": items, "total": total, "page": query.page, "page_size": query.page_size}


def user_found(body: UserName) -> dict[str, Any]:
    """The account of this name, as it is answered. Raises NotFound."""
    user = services().users.find(check_username(body.username))
    if user is None:
        raise NotFound("There is no user of this name")
    note_read("account", user.id)
    return _with_quota(user)


def user_shown(user_id: int) -> dict[str, Any]:
    """An account, as it is answered. Raises NotFound."""
    user = _get(user_id)
    note_read("account", user.id)
    return _with_quota(user)


def change_user(operator: str, user_id: int, body: UserChange) -> Response:
    """Change an account.

    Raises NotFound; Conflict for one's own rights and for the role of a service account; Forbidden for a token that
    changes a role, or anything of who has rights.
    """
    if operator == f"user/{user_id}" and (body.state or "active", body.role or "admin") != ("active", "admin"):
        raise Conflict("You can't take your own rights away; another operator can")
    state = UserState(body.state) if body.state else None
    role = UserRole(body.role) if body.role else None
    now = _get(user_id).role
    if role or rights_of(now):
        check_appoints()
    if role not in {None, now}:
        check_fresh(Act.CHANGE_ROLE)
    before, after = services().users.change(user_id, state, role, body.trust_level, body.label)
    if after.state is not before.state:
        services().users.reload()  # here at once: who is let in logs in next
    for action, details in after.changes_since(before).items():
        audit(operator, action, f"user/{user_id}", user_id, **details)
    return answer(_with_quota(after))


def end_users_sessions(operator: str, user_id: int) -> Response:
    """Log a user out everywhere. Raises NotFound."""
    ended = services().sessions.end_all(_get(user_id).id)
    audit(operator, "sessions_ended", f"user/{user_id}", user_id, ended=ended)
    return answer({"ended": ended})


def delete_user(operator: str, user_id: int) -> None:
    """Delete an account. Raises NotFound; Conflict for one's own; Forbidden for a token and who has rights."""
    user = _get(user_id)
    if operator == f"user/{user_id}":
        raise Conflict("This is your own account: delete it in your profile")
    check_fresh(Act.DELETE_OTHERS_ACCOUNT)
    if rights_of(user.role):
        check_appoints()
    services().leaving.delete(user_id)
    audit(operator, "account_deleted", f"user/{user_id}", user_id)


def _get(user_id: int) -> User:
    user = services().users.find_by_id(user_id)
    if user is None:
        raise NotFound(f"There is no user {user_id}")
    return user


def _with_quota(user: User) -> dict[str, Any]:
    more = services().sign_on.identities.providers_of([user.id]), services().second_factors.holders([user.id])
    return _shown(user, services().quotas.find(f"user/{user.id}"), *more)


def _shown(user: User, quota: Quota | None, providers: dict[int, list[str]], holders: set[int]) -> dict[str, Any]:
    more = {"providers": providers.get(user.id, []), "has_second_factor": user.id in holders}
    return user.to_dict() | more | {"quota": quota.to_dict() if quota else None}

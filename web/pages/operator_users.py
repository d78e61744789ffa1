"""The operator's pages of users: who there is, without names, and changes to their accounts, quotas and sessions."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from accounts.users import MAX_TRUST_LEVEL
from web.api.admin_quotas import NewQuota, reset_subjects_quota, set_subjects_quota, subject_of
from web.api.admin_users import (
    UserChange,
    UserFilter,
    UserName,
    change_user,
    delete_user,
    end_users_sessions,
    user_found,
    user_shown,
    users_shown,
)
from web.api.recovery import make_reset_link
from web.api.second_factors import remove_users_second_factor
from web.api.sessions import end_all
from web.pages.forms import form_of, found, here, query_of
from web.pages.operator import for_auditors, for_operators
from web.pages.views import SESSION, go_to, own_address, page_blueprint, show

routes = page_blueprint("operator_user_pages", "/operator/users")

ONE = "/<int:user_id>"


@routes.get("")
@for_auditors
def users() -> Response:
    """The accounts, newest first."""
    shown = found(lambda: users_shown(query_of(UserFilter)))
    return show("operator_users.html", given=request.args, here=here, max_trust_level=MAX_TRUST_LEVEL, **shown)


@routes.post("/find")
@for_auditors
def find() -> Response:
    """To the account of a name, which is sent in a body: what stands in an address ends up in logs."""
    return go_to(f"/operator/users/{user_found(form_of(UserName))['id']}")


@routes.get(ONE)
@for_auditors
def user(user_id: int) -> Response:
    """One account."""
    return show("operator_user.html", **_values(user_id))


@routes.put(ONE)
@for_operators
def change(operator: str, user_id: int) -> Response:
    """Change state, role or trust level."""
    change_user(operator, user_id, form_of(UserChange, label=_label()))
    return show("operator_user_part.html", done="saved", **_values(user_id))


@routes.put(f"{ONE}/quota")
@for_operators
def set_quota(operator: str, user_id: int) -> Response:
    """Give a user a quota of their own."""
    set_subjects_quota(operator, subject_of("user", str(user_id)), form_of(NewQuota))
    return show("operator_user_part.html", done="quota set", **_values(user_id))


@routes.delete(f"{ONE}/quota")
@for_operators
def reset_quota(operator: str, user_id: int) -> Response:
    """Back to the default."""
    reset_subjects_quota(operator, subject_of("user", str(user_id)))
    return show("operator_user_part.html", done="quota reset", **_values(user_id))


@routes.delete(f"{ONE}/sessions")
@for_operators
def end_sessions(operator: str, user_id: int) -> Response:
    """Log a user out everywhere; an operator who ends their own has to log in again."""
    end_users_sessions(operator, user_id)
    return _ended(operator, user_id, "sessions ended")


@routes.delete(f"{ONE}/everything")
@for_operators
def end_everything(operator: str, user_id: int) -> Response:
    """End a user's sessions, client keys and API tokens."""
    end_all(operator, user_shown(user_id)["id"])
    return _ended(operator, user_id, "everything ended")


@routes.post(f"{ONE}/reset-link")
@for_operators
def reset_link(operator: str, user_id: int) -> Response:
    """Make a link by which a user sets a new password; it is shown in this answer and never again."""
    made = make_reset_link(operator, user_id)
    return show("operator_user_part.html", made=own_address() + made["path"], **_values(user_id))


@routes.delete(f"{ONE}/second-factor")
@for_operators
def remove_second_factor(operator: str, user_id: int) -> Response:
    """Take away a second factor that its owner has lost."""
    remove_users_second_factor(operator, user_id)
    return show("operator_user_part.html", done="second factor removed", **_values(user_id))


@routes.delete(ONE)
@for_operators
def delete(operator: str, user_id: int) -> Response:
    """Delete an account."""
    delete_user(operator, user_id)
    return go_to("/operator/users")


def _ended(operator: str, user_id: int, done: str) -> Response:
    if operator == f"user/{user_id}":
        response = go_to("/login")
        SESSION.take(response)  # or this process would know the visitor for another second
        return response
    return show("operator_user_part.html", done=done, **_values(user_id))


def _label() -> str | None:
    """Empty where the field is, as somebody has emptied it."""
    text = request.form.get("label")
    return None if text is None else text.strip()


def _values(user_id: int) -> dict[str, Any]:
    return {"user": user_shown(user_id), "max_trust_level": MAX_TRUST_LEVEL}

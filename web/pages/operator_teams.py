"""The operator's pages of teams: which there are, what holds for one, and who is in it."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from accounts.teams import TeamRole
from web.api.admin_quotas import NewQuota, reset_subjects_quota, set_subjects_quota, subject_of
from web.api.admin_teams import (
    NewMember,
    NewRole,
    NewTeam,
    TeamChanges,
    add_member,
    change_role,
    change_team,
    delete_team,
    make_team,
    remove_member,
    team_shown,
    teams_shown,
)
from web.http import services
from web.operation import Paging
from web.pages.forms import form_of, here, is_emptied, query_of
from web.pages.operator import for_auditors, for_operators
from web.pages.views import go_to, page_blueprint, show

routes = page_blueprint("operator_team_pages", "/operator/teams")

ONE, MEMBER = "/<int:team_id>", "/<int:team_id>/members/<int:user_id>"
LISTS = "models", "upstreams"


@routes.get("")
@for_auditors
def teams() -> Response:
    """All of them, newest first."""
    shown = teams_shown(query_of(Paging))
    return show("operator_teams.html", here=here, upstreams=services().upstreams.names(), **shown)


@routes.post("")
@for_operators
def create(operator: str) -> Response:
    """Make a team, and go to its page: there is nobody in it yet."""
    terms = {name: request.form.get(name, "").strip() for name in ("limit_usd", "period")}
    quota = {name: term for name, term in terms.items() if term} if terms["limit_usd"] else None
    made = make_team(operator, form_of(NewTeam, lists=LISTS, quota=quota, limit_usd=None, period=None))
    return go_to(f"/operator/teams/{made['id']}")


@routes.get(ONE)
@for_auditors
def team(team_id: int) -> Response:
    """One team."""
    return show("operator_team.html", **_values(team_id))


@routes.put(ONE)
@for_operators
def change(operator: str, team_id: int) -> Response:
    """Change the name or the lists: a list whose field is empty allows all."""
    empty = list(filter(is_emptied, LISTS))
    change_team(operator, team_id, form_of(TeamChanges, lists=LISTS, emptied=empty))
    return _part(team_id, "saved")


@routes.delete(ONE)
@for_operators
def delete(operator: str, team_id: int) -> Response:
    """Dissolve a team."""
    delete_team(operator, team_id)
    return go_to("/operator/teams")


@routes.put(f"{ONE}/quota")
@for_operators
def set_quota(operator: str, team_id: int) -> Response:
    """Say what its people may spend together."""
    set_subjects_quota(operator, subject_of("team", str(team_id)), form_of(NewQuota))
    return _part(team_id, "quota set")


@routes.delete(f"{ONE}/quota")
@for_operators
def reset_quota(operator: str, team_id: int) -> Response:
    """Let nothing limit what its people spend together."""
    reset_subjects_quota(operator, subject_of("team", str(team_id)))
    return _part(team_id, "quota reset")


@routes.post(f"{ONE}/members")
@for_operators
def add(operator: str, team_id: int) -> Response:
    """Take somebody in who is in no team."""
    member = add_member(operator, team_id, form_of(NewMember))
    return _part(team_id, "added", member.user_id)


@routes.put(MEMBER)
@for_operators
def set_role(operator: str, team_id: int, user_id: int) -> Response:
    """Say who manages the team."""
    change_role(operator, team_id, user_id, form_of(NewRole))
    return _part(team_id, "role changed", user_id)


@routes.delete(MEMBER)
@for_operators
def remove(operator: str, team_id: int, user_id: int) -> Response:
    """Let somebody go."""
    remove_member(operator, team_id, user_id)
    return _part(team_id, "removed", user_id)


def _part(team_id: int, done: str, user_id: int | None = None) -> Response:
    return show("operator_team_part.html", done=done, done_to=user_id, **_values(team_id))


def _values(team_id: int) -> dict[str, Any]:
    return {"team": team_shown(team_id), "upstreams": services().upstreams.names(), "roles": list(map(str, TeamRole))}

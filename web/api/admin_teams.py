"""For operators: teams, what holds for them, and who is in them. Quotas of those that there are: admin_quotas.py."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import Field

from accounts.labels import with_labels
from accounts.step_up import Act
from accounts.teams import MAX_NAME_CHARACTERS, Member, TeamRole, TeamRow
from billing.quotas.budgets import sets_budget
from web.api.admin_quotas import NewQuota
from web.api.client_keys import Models, Upstreams
from web.api.quotas import QuotaShown
from web.api.teams import MemberShown, people_of
from web.http import answer, audit, check_fresh, services
from web.operation import MAX_ID, Body, Page, Paging, Shown, Who, operation

routes = Blueprint("admin_team_api", __name__, url_prefix="/admin/teams")

ONE, MEMBERS, MEMBER = "/<int:team_id>", "/<int:team_id>/members", "/<int:team_id>/members/<int:user_id>"
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
ROLES = Field(description="manager: is shown what each member spends", examples=["member"], strict=False)
Role = Annotated[TeamRole, ROLES]


class NewTeam(Body):
    """Lists that are null or missing: all of them. models: names, or beginnings with an asterisk."""

    name: Name = Field(examples=["research"])
    models: Models | None = Field(None, examples=[["openai/gpt-4o-mini", "anthropic/*"]])
    upstreams: Upstreams | None = Field(None, examples=[["openrouter"]])
    quota: NewQuota | None = Field(None, description="What its members may spend together, beside their own quotas")


class TeamChanges(Body):
    """What is missing stays as it is; null takes a list away."""

    name: Name = Field("", examples=["research"])
    models: Models | None = Field(None, examples=[["openai/*"]])
    upstreams: Upstreams | None = None


class NewMember(Body):
    """Somebody who is in no team."""

    user_id: Annotated[int, Field(ge=1, le=MAX_ID)] = Field(examples=[17])
    role: Role = TeamRole.MEMBER


class NewRole(Body):
    """What somebody may do in the team."""

    role: Role


class TeamShown(Shown):
    """A team. Null lists: all models, all upstreams. members: how many."""

    id: int = Field(examples=[3])
    name: str = Field(examples=["research"])
    models: list[str] | None
    upstreams: list[str] | None
    created_at: datetime
    updated_at: datetime
    members: int = Field(examples=[4])
    quota: QuotaShown | None


class LabelledMember(MemberShown):
    """Somebody in a team, with what operators call them."""

    user_label: str | None = Field(examples=["marketing, laptop 3"])


class TeamWithPeople(TeamShown):
    """A team and who is in it."""

    since: datetime = Field(description="The start of the quota's period, or of this month without a quota")
    people: list[LabelledMember] = Field(description="Managers first")


@routes.get("")
@operation("List teams", Who.AUDITOR, query=Paging, answers={200: Page[TeamShown]})
def page(query: Paging) -> Response:
    """Newest first."""
    return answer(teams_shown(query))


@routes.post("")
@operation("Make a team", Who.OPERATOR, body=NewTeam, answers={201: TeamShown}, refusals=(409,))
def create(operator: str, body: NewTeam) -> Response:
    """With nobody in it yet. 409 for a name that another team has."""
    return answer(make_team(operator, body), 201)


@routes.get(ONE)
@operation("Show a team", Who.AUDITOR, answers={200: TeamWithPeople}, refusals=(404,))
def show(team_id: int) -> Response:
    """With its people, and what each has spent in this period. Who has left is not among them."""
    return answer(team_shown(team_id))


@routes.patch(ONE)
@operation("Change a team", Who.OPERATOR, body=TeamChanges, answers={200: TeamShown}, refusals=(404, 409))
def change(operator: str, team_id: int, body: TeamChanges) -> Response:
    """In force everywhere within two seconds. Its quota is changed at `/admin/quotas/team/<id>`."""
    return answer(change_team(operator, team_id, body))


@routes.delete(ONE)
@operation("Delete a team", Who.OPERATOR, answers={200: TeamShown}, refusals=(404,))
def delete(operator: str, team_id: int) -> Response:
    """Its people stay, each with their own quota; its client keys are revoked. Answers with what it was."""
    return answer(delete_team(operator, team_id))


@routes.post(MEMBERS)
@operation("Add somebody to a team", Who.OPERATOR, body=NewMember, answers={201: LabelledMember}, refusals=(404, 409))
def add(operator: str, team_id: int, body: NewMember) -> Response:
    """All their calls count in the team within two seconds. 409 for who is in a team already."""
    return answer(_member(add_member(operator, team_id, body)), 201)


@routes.patch(MEMBER)
@operation("Change a member's role", Who.OPERATOR, body=NewRole, answers={200: LabelledMember}, refusals=(404,))
def set_role(operator: str, team_id: int, user_id: int, body: NewRole) -> Response:
    """Say who manages the team; any number of people may."""
    return answer(_member(change_role(operator, team_id, user_id, body)))


@routes.delete(MEMBER)
@operation("Remove somebody from a team", Who.OPERATOR, answers={200: TeamShown}, refusals=(404,))
def remove(operator: str, team_id: int, user_id: int) -> Response:
    """The team's client keys that they have made are revoked. Answers with the team."""
    remove_member(operator, team_id, user_id)
    return answer(_shown(services().teams.get(team_id))[0])


# ── for the pages too


def teams_shown(query: Paging) -> dict[str, Any]:
    """A page of teams, as it is answered."""
    found, total = services().teams.page(query.page, query.page_size)
    return {"items": _shown(*found), "total": total, "page": query.page, "page_size": query.page_size}


def team_shown(team_id: int) -> dict[str, Any]:
    """A team with its people, as it is answered. Raises NotFound."""
    team = services().teams.get(team_id)
    since, people = people_of(team)
    return {**_shown(team)[0], "since": since, "people": _labelled(*people)}


def make_team(operator: str, body: NewTeam) -> dict[str, Any]:
    """Make a team with its quota. Raises BadRequest, Conflict."""
    sets_quota = sets_budget(body.quota.terms()) if body.quota else None
    team = services().teams.create(body.model_dump(exclude={"quota"}), sets_quota)
    audit(operator, "team_made", _subject(team.id), fields=body.model_dump(exclude_unset=True))
    return _shown(team)[0]


def change_team(operator: str, team_id: int, body: TeamChanges) -> dict[str, Any]:
    """Change a team's name or lists. Raises NotFound, BadRequest, Conflict."""
    fields = body.model_dump(exclude_unset=True)
    team = services().teams.change(team_id, fields)
    audit(operator, "team_changed", _subject(team_id), fields=fields)
    return _shown(team)[0]


def delete_team(operator: str, team_id: int) -> dict[str, Any]:
    """Dissolve a team; returns what it was. Raises NotFound, SessionNotFresh."""
    check_fresh(Act.DELETE_TEAM)
    shown = _shown(services().teams.get(team_id))[0]
    team = services().teams.delete(team_id)
    audit(operator, "team_deleted", _subject(team_id), name=team.name)
    return shown


def add_member(operator: str, team_id: int, body: NewMember) -> Member:
    """Take somebody in. Raises NotFound, Conflict."""
    member = services().teams.add(team_id, body.user_id, body.role)
    audit(operator, "team_member_added", _subject(team_id), body.user_id, role=body.role.value)
    return member


def change_role(operator: str, team_id: int, user_id: int, body: NewRole) -> Member:
    """Say what somebody may do in the team. Raises NotFound."""
    member = services().teams.set_role(team_id, user_id, body.role)
    audit(operator, "team_role_changed", _subject(team_id), user_id, role=body.role.value)
    return member


def remove_member(actor: str, team_id: int, user_id: int) -> None:
    """Let somebody go. Raises NotFound."""
    services().teams.remove(team_id, user_id)
    audit(actor, "team_member_removed", _subject(team_id), user_id)


def _subject(team_id: int) -> str:
    return f"team/{team_id}"


def _shown(*found: TeamRow) -> list[dict[str, Any]]:
    quotas = services().quotas.find_all([team.quota_subject for team in found])
    shown = {subject: quota.to_dict() for subject, quota in quotas.items()}
    return [team.to_dict(shown.get(team.quota_subject)) for team in found]


def _member(member: Member) -> dict[str, Any]:
    quota = services().quotas.find(_subject(member.team_id))
    _, spent = services().usage.spent_by_members(member.team_id, quota)
    return _labelled(member.to_dict(spent[member.user_id]))[0]


def _labelled(*people: dict[str, Any]) -> list[dict[str, Any]]:
    return with_labels(services().db, people, user_label="user_id")

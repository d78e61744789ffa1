"""What somebody sees of their team: all of it what holds for them, and its managers what each of its people spends."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response
from pydantic import Field

from accounts.caller import Caller
from accounts.teams import TeamRole, TeamRow
from foundation.errors import NotFound
from web.api.quotas import QuotaShown
from web.http import answer, services
from web.operation import Shown, Who, operation

routes = Blueprint("team_api", __name__)


class MemberShown(Shown):
    """Somebody in a team. spent_usd: in this period, whatever they have called with."""

    user_id: int = Field(examples=[17])
    role: TeamRole
    joined_at: datetime
    spent_usd: float = Field(examples=[1.25])


class OwnTeam(Shown):
    """The team that you are in. Null lists: all models, all upstreams."""

    id: int = Field(examples=[3])
    name: str = Field(examples=["research"])
    role: TeamRole = Field(description="Yours")
    models: list[str] | None
    upstreams: list[str] | None
    quota: QuotaShown | None = Field(description="What its people may spend together; null for no limit")
    since: datetime = Field(description="The start of the quota's period, or of this month without a quota")
    spent_usd: float = Field(description="What you have spent since then", examples=[1.25])
    people: list[MemberShown] | None = Field(description="For its managers; null for everybody else")


@routes.get("/api/team")
@operation("Your team", Who.USER, answers={200: OwnTeam}, refusals=(404,))
def own(caller: Caller) -> Response:
    """The team whose quota and lists hold for your calls beside your own; 404 for who is in none."""
    return answer(own_team(caller.user_id))


# ── for the pages too


def own_team(user_id: int) -> dict[str, Any]:
    """Somebody's team, as they are answered. Raises NotFound."""
    member = services().teams.member(user_id)
    if member is None:
        raise NotFound("You are in no team")
    team = services().teams.get(member.team_id)
    quota = services().quotas.find(team.quota_subject)
    since, people = people_of(team)
    return {
        "id": team.id,
        "name": team.name,
        "role": member.role.value,
        "models": team.models,
        "upstreams": team.upstreams,
        "quota": quota.to_dict() if quota else None,
        "since": since,
        "spent_usd": next((one["spent_usd"] for one in people if one["user_id"] == user_id), 0.0),
        "people": people if member.role is TeamRole.MANAGER else None,
    }


def people_of(team: TeamRow) -> tuple[datetime, list[dict[str, Any]]]:
    """The start of the period of a team's quota, and its people, each with what they have spent in it."""
    since, spent = services().usage.spent_by_members(team.id, services().quotas.find(team.quota_subject))
    return since, [one.to_dict(spent[one.user_id]) for one in services().teams.members(team.id)]

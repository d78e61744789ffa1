"""One's own account: what the service knows of it, and what one wants to be called."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from flask import Blueprint, Response
from pydantic import AfterValidator, Field

from accounts.caller import Caller
from accounts.labels import check_printable
from accounts.users import UpstreamChoice, UserRole, UserState
from web.http import answer, audit, services
from web.operation import Body, Shown, Who, operation

routes = Blueprint("profile_api", __name__, url_prefix="/api/auth")


class NewProfile(Body):
    """What one wants to be called."""

    display_name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(check_printable)] | None = Field(
        description="Printable characters, without space at their begin and end; null for none", examples=["Ann"]
    )
    shares_display_name: bool | None = Field(
        None, description="Operators are shown it, beside your number; null leaves that as it is", examples=[False]
    )


class Profile(Shown):
    """One's own account. Its username is stored as a hash only, so it can't be shown."""

    id: int = Field(examples=[17])
    display_name: str | None = Field(examples=["Ann"])
    shares_display_name: bool = Field(description="Operators are shown it")
    avatar_url: str | None = Field(description="A picture, from the provider that one has logged in with")
    state: UserState
    role: UserRole
    trust_level: int = Field(examples=[0])
    created_at: datetime
    last_login: datetime | None
    upstream_choice: UpstreamChoice


@routes.get("/me")
@operation("Show your account", Who.USER, answers={200: Profile})
def me(caller: Caller) -> Response:
    """What the service knows of you."""
    return answer(services().users.get(caller.user_id).profile())


@routes.put("/profile")
@operation("Change your profile", Who.USER, body=NewProfile, answers={200: Profile})
def put(caller: Caller, body: NewProfile) -> Response:
    """Nobody else is shown it, but for operators if you share it with them."""
    change_display_name(caller.user_id, body)
    return answer(services().users.get(caller.user_id).profile())


def change_display_name(user_id: int, body: NewProfile) -> None:
    """Store what a user wants to be called; for the pages too."""
    services().users.set_display_name(user_id, body.display_name, body.shares_display_name)
    audit(f"user/{user_id}", "profile_changed", f"user/{user_id}", user_id)

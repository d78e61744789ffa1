"""A user's sessions and what has happened to the account: who is logged in, from where; ending them; a new key."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field

from accounts.caller import Caller
from accounts.sessions import EndedBy, UserSession
from auth import check_derived_key, check_login_key
from web.api.admin_audit import AuditEntryShown
from web.api.auth import EXAMPLE_KEY, LoggedOut, Tokens, origin, tokens
from web.http import answer, audit, services
from web.operation import Body, Page, Paging, Query, Shown, Who, operation

routes = Blueprint("session_api", __name__, url_prefix="/api/auth")


class SessionShown(Shown):
    """A log-in that can still be refreshed. is_current: the one that asks."""

    id: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015"])
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime
    method: str = Field(description="How it began: `key`, `password`, or a provider's name", examples=["key"])
    address: str | None = Field(examples=["192.0.2.1"])
    user_agent: str | None = Field(examples=["Mozilla/5.0"])
    is_current: bool


class Sessions(Shown):
    """All of them."""

    items: list[SessionShown]


class WhichSessions(Query):
    """Which sessions end."""

    but_this: Literal["true", "false"] = Field("false", description="Spare the session that asks")


class AllLoggedOut(Shown):
    """Sessions have ended."""

    message: Literal["Logged out everywhere", "Logged out everywhere else"]
    sessions: int = Field(description="How many there were", examples=[3])


class AllEnded(Shown):
    """How many there were."""

    message: Literal["Everything is ended"]
    sessions: int = Field(examples=[3])
    client_keys: int = Field(examples=[2])
    api_tokens: int = Field(examples=[1])


# Of a change of the password, in either form.
RevokesAll = Annotated[bool, Field(description="Revoke all client keys and API tokens too, as after a theft")]


class NewDerivedKey(Body):
    """A change of the key that the password is derived to."""

    derived_key: Annotated[str, BeforeValidator(check_login_key)] = Field(
        min_length=1, max_length=512, description="The one up to now", examples=[EXAMPLE_KEY]
    )
    new_derived_key: Annotated[str, BeforeValidator(check_derived_key)] = Field(
        pattern="^[A-Za-z0-9_-]{64}$", examples=[EXAMPLE_KEY[::-1]]
    )
    revoke_all: RevokesAll = False


@routes.get("/sessions")
@operation("List your sessions", Who.USER, answers={200: Sessions})
def sessions(caller: Caller) -> Response:
    """The latest used first."""
    return answer({"items": shown(caller)})


@routes.delete("/sessions/<session_id>")
@operation("End one of your sessions", Who.USER, answers={200: LoggedOut}, refusals=(404,))
def end(caller: Caller, session_id: str) -> Response:
    """Its tokens are refused everywhere within two seconds."""
    end_session(caller, session_id)
    return answer({"message": "Logged out"})


@routes.post("/logout-all")
@operation("Log out everywhere", Who.USER, query=WhichSessions, answers={200: AllLoggedOut})
def logout_all(caller: Caller, query: WhichSessions) -> Response:
    """End all your sessions, or all but this one: their tokens are refused everywhere within two seconds."""
    but_this = query.but_this == "true"
    message = "Logged out everywhere else" if but_this else "Logged out everywhere"
    return answer({"message": message, "sessions": end_sessions(caller, but_this)})


@routes.post("/end-everything")
@operation("End all sessions, client keys and API tokens", Who.USER, answers={200: AllEnded})
def end_everything(caller: Caller) -> Response:
    """After a theft: all that was given out for your account is refused everywhere within two seconds, and what was
    begun with it comes to nothing. Your password and the log-ins that are linked stay: change and unlink them yourself.
    """
    return answer({"message": "Everything is ended"} | end_all(f"user/{caller.user_id}", caller.user_id))


@routes.post("/change-key")
@operation(
    "Change your derived key", Who.USER, body=NewDerivedKey, answers={200: Tokens}, refusals=(401,), door="log-ins"
)
def change_key(caller: Caller, body: NewDerivedKey) -> Response:
    """After a change of password. All sessions end; the answer has the tokens of a new one.

    With `revoke_all` client keys and API tokens end too.
    """
    return answer(tokens(*change_derived_key(caller, body)))


@routes.get("/events")
@operation("List what happened to your account", Who.USER, query=Paging, answers={200: Page[AuditEntryShown]})
def events(caller: Caller, query: Paging) -> Response:
    """Log-ins and failures, ends of sessions, changes of keys and tokens, by you and by operators; newest first."""
    return answer(events_shown(caller.user_id, query))


# ── for the pages too


def shown(caller: Caller) -> list[dict[str, Any]]:
    """A user's sessions as they are answered."""
    found = services().sessions.open_ones(caller.user_id)
    return [one.to_dict() | {"is_current": one.id == caller.session_id} for one in found]


def end_session(caller: Caller, session_id: str) -> None:
    """End one of a user's sessions. Raises NotFound."""
    services().sessions.end_own(caller.user_id, session_id)
    services().sessions.reload()
    audit(f"user/{caller.user_id}", "session_ended", f"session/{session_id}", caller.user_id)


def end_sessions(caller: Caller, but_this: bool = False) -> int:
    """End a user's sessions; returns how many there were. but_this: not the one that asks."""
    spared = caller.session_id if but_this else None
    count = services().sessions.end_all(caller.user_id, EndedBy.LOGOUT_ALL, spared)
    services().sessions.reload()
    audit(f"user/{caller.user_id}", "sessions_ended", f"user/{caller.user_id}", caller.user_id, sessions=count)
    return count


def change_derived_key(caller: Caller, body: NewDerivedKey) -> tuple[UserSession, str]:
    """Change a user's key; returns a new session with its access token. Raises what Auth.change_key raises, and
    TooManyRequests.
    """
    # Whoever has stolen an access token tries as few keys as at the log-in. Not in one count with that: the name that
    # is counted there is not known here.
    services().rate_limits.check_account(f"user/{caller.user_id}")
    session, token = services().auth.change_derived_key(
        caller, body.derived_key, body.new_derived_key, origin("key"), revokes_all=body.revoke_all
    )
    note_new_key("key_changed", caller.user_id, body.revoke_all)
    return session, token


def note_new_key(action: str, user_id: int, revokes_all: bool) -> None:
    """Write down a change of the key. revokes_all: that client keys and API tokens have ended too."""
    audit(f"user/{user_id}", action, f"user/{user_id}", user_id, **({"revoked_all": True} if revokes_all else {}))


def end_all(actor: str, user_id: int) -> dict[str, int]:
    """End all of a user's sessions, client keys and API tokens; returns how many of each there were."""
    is_own = actor == f"user/{user_id}"
    ended = services().everything.end(user_id, EndedBy.EVERYTHING if is_own else EndedBy.OPERATOR).to_dict()
    audit(actor, "everything_ended", f"user/{user_id}", user_id, **ended)
    return ended


def events_shown(user_id: int, query: Paging) -> dict[str, Any]:
    """A page of what happened to a user's account."""
    found, total = services().audit.page(query.page, query.page_size, user_id=user_id, with_reads=True)
    items = [entry.to_dict() for entry in found]
    return {"items": items, "total": total, "page": query.page, "page_size": query.page_size}

"""The profile: what one is called, how one logs in, where one is logged in, what happened, and a new password."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from accounts.user_agents import browser_of
from accounts.users import NO_KEY
from web.api import own_data, profile
from web.api import passkeys as passkey_api
from web.api import recovery as recovery_api
from web.api import second_factors as factor_api
from web.api import sessions as session_api
from web.api import sign_on as sso_api
from web.api.passkeys import NewPasskey
from web.api.profile import NewProfile
from web.api.recovery import FirstKey
from web.api.second_factors import AppCode
from web.api.sessions import NewDerivedKey
from web.http import answer, count_request, services
from web.operation import Paging, asked
from web.pages.forms import form_of, json_of
from web.pages.views import SESSION, Visitor, for_users, give_session, go_to, page_blueprint, show

routes = page_blueprint("profile_pages", "/profile")

# What happened, in words; other changes are shown by their names.
EVENTS = {
    "registered": "Account made",
    "logged_in": "Logged in",
    "login_failed": "Log-in with a wrong password",
    "login_refused": "Log-in while the account was disabled",
    "refresh_token_reused": "A refresh token was used twice: its session has ended",
    "session_ended": "A session was ended",
    "sessions_ended": "Sessions were ended",
    "everything_ended": "All sessions, client keys and API tokens were ended",
    "key_changed": "Password changed",
    "password_changed": "Password changed",
    "key_change_refused": "Change of password with a wrong password",
    "stepped_up": "Confirmed that it’s you",
    "step_up_refused": "Confirmation with a wrong password",
    "password_set": "Password set",
    "recovered": "New password set with a recovery code",
    "recovery_refused": "Recovery with a wrong code",
    "recovery_codes_made": "Recovery codes made",
    "reset_link_made": "An operator made a link to set a new password",
    "reset_link_used": "New password set by an operator’s link",
    "second_factor_set_up": "Second factor set up",
    "second_factor_removed": "Second factor removed",
    "second_factor_refused": "Log-in with the right password and a wrong second factor",
    "passkey_added": "Passkey added",
    "passkey_removed": "Passkey removed",
    "passkey_refused": "Log-in with a passkey that was refused",
    "profile_changed": "Profile changed",
    "identity_linked": "A log-in was linked",
    "identity_unlinked": "A log-in was unlinked",
    "client_key_made": "Client key made",
    "client_key_changed": "Client key changed",
    "client_key_revoked": "Client key revoked",
    "api_token_made": "API token made",
    "api_token_revoked": "API token revoked",
    "personal_key_added": "OpenRouter key added",
    "personal_key_changed": "OpenRouter key changed",
    "personal_key_removed": "OpenRouter key removed",
    "openrouter_connected": "OpenRouter connected",
    "openrouter_disconnected": "OpenRouter disconnected",
    "upstream_chosen": "Keys for calls chosen",
    "person_read": "Viewed by an operator",
    "data_exported": "All that is kept of you was fetched",
    "encryption_key_saved": "Said that the encryption key is saved",
    "quota_set": "Quota set",
    "quota_reset": "Quota reset",
    "user_changed": "Account changed",
    "user_labelled": "An operator changed what the account is called",
}
FIRST_EVENTS = Paging.model_validate({"page_size": "10"})


@routes.get("")
@for_users
def page(visitor: Visitor) -> Response:
    """All of it."""
    parts = _about(visitor) | _links(visitor) | _sessions(visitor) | _events(visitor, FIRST_EVENTS)
    return show("profile.html", **(parts | _recovery(visitor) | _second_factor(visitor)))


@routes.put("")
@for_users
def change(visitor: Visitor) -> Response:
    """Call oneself otherwise; empty for no name."""
    is_named = bool(request.form.get("display_name", "").strip())
    shares = "shares_display_name" in request.form
    if is_named:
        body = form_of(NewProfile, shares_display_name=shares)
    else:
        body = NewProfile(display_name=None, shares_display_name=shares)
    profile.change_display_name(visitor.user.id, body)
    return show("profile_about.html", is_saved=True, **_about(visitor))


@routes.get("/export")
@for_users
def export(visitor: Visitor) -> Response:
    """All that is kept of one, as a file."""
    return own_data.own_data(visitor.caller)


@routes.delete("")
@for_users
def delete(visitor: Visitor) -> Response:
    """Delete one's account."""
    own_data.delete_own_account(visitor.caller)
    return _logged_out()


def _about(visitor: Visitor) -> dict[str, Any]:
    return {"profile": services().users.get(visitor.user.id).profile()}


# ── log-ins elsewhere


@routes.post("/links/<provider>")
@for_users
def link(visitor: Visitor, provider: str) -> Response:
    """Send the browser to a provider; it comes back to this page, with what came of it behind the #."""
    count_request("log-ins")
    begun = services().sign_on.begin_link(provider, visitor.user.id, visitor.caller.session_id, "/profile")
    return sso_api.give_cookie(go_to(begun.url), begun)


@routes.delete("/links/<provider>")
@for_users
def unlink(visitor: Visitor, provider: str) -> Response:
    """Take a log-in away."""
    sso_api.unlink_identity(visitor.user.id, provider)
    return show("profile_links.html", **_links(visitor))


def _links(visitor: Visitor) -> dict[str, Any]:
    sign_on = services().sign_on
    linked = {one.provider: one.to_dict() for one in sign_on.identities.of(visitor.user.id)}
    titles = {name: name for name in linked} | {name: one.title for name, one in sign_on.providers.items()}
    items = [{"name": name, "title": title, "linked": linked.get(name)} for name, title in sorted(titles.items())]
    return {"log_ins": items, "titles": titles, "is_fresh": _is_fresh(visitor)}


# ── sessions


@routes.delete("/sessions/<session_id>")
@for_users
def end(visitor: Visitor, session_id: str) -> Response:
    """End a session; who ends the one of this browser has to log in again."""
    session_api.end_session(visitor.caller, session_id)
    return _logged_out() if session_id == visitor.caller.session_id else _sessions_part(visitor)


@routes.post("/sessions/end-others")
@for_users
def end_others(visitor: Visitor) -> Response:
    """End all sessions but that of this browser."""
    session_api.end_sessions(visitor.caller, but_this=True)
    return _sessions_part(visitor)


@routes.post("/sessions/end-all")
@for_users
def end_all(visitor: Visitor) -> Response:
    """End all sessions, this one too."""
    session_api.end_sessions(visitor.caller)
    return _logged_out()


@routes.post("/end-everything")
@for_users
def end_everything(visitor: Visitor) -> Response:
    """End all sessions, client keys and API tokens."""
    session_api.end_all(f"user/{visitor.user.id}", visitor.user.id)
    return _logged_out()


def _logged_out() -> Response:
    response = go_to("/login")
    SESSION.take(response)
    return response


def _sessions_part(visitor: Visitor) -> Response:
    return show("profile_sessions.html", **_sessions(visitor))


def _sessions(visitor: Visitor) -> dict[str, Any]:
    titles = {name: one.title for name, one in services().sign_on.providers.items()}
    sessions = [one | {"browser": browser_of(one["user_agent"] or "")} for one in session_api.shown(visitor.caller)]
    return {"sessions": sessions, "titles": titles}


# ── what happened


@routes.get("/events")
@for_users
def events(visitor: Visitor) -> Response:
    """The part with what happened: another page of it."""
    query = FIRST_EVENTS.model_copy(update={"page": asked(Paging).page})
    return show("profile_events.html", **_events(visitor, query))


def _events(visitor: Visitor, query: Paging) -> dict[str, Any]:
    return {"events": session_api.events_shown(visitor.user.id, query), "event_words": EVENTS}


# ── password and recovery codes


@routes.post("/password")
@for_users
def change_password(visitor: Visitor) -> Response:
    """Put a key that the browser has derived in the place of the one up to now; a new session begins with it."""
    count_request("log-ins")
    session, _access_token = session_api.change_derived_key(visitor.caller, form_of(NewDerivedKey))
    return give_session(Response(status=204), session.user_id, session.id)


@routes.post("/first-password")
@for_users
def set_password(visitor: Visitor) -> Response:
    """Give an account that a provider made a name and a key that the browser has derived; a new session begins."""
    count_request("log-ins")
    session, _access_token = recovery_api.set_first_key(visitor.caller, form_of(FirstKey))
    return give_session(Response(status=204), session.user_id, session.id)


@routes.post("/recovery-codes")
@for_users
def make_codes(visitor: Visitor) -> Response:
    """New codes: they are shown in this answer and never again."""
    codes = recovery_api.new_codes(visitor.caller)
    return show("profile_recovery.html", codes=codes, **_recovery(visitor))


def _recovery(visitor: Visitor) -> dict[str, Any]:
    left = recovery_api.codes_shown(visitor.user.id)
    return {"has_password": visitor.user.key_hash != NO_KEY, "recovery": left, "is_fresh": _is_fresh(visitor)}


def _is_fresh(visitor: Visitor) -> bool:
    return services().step_up.is_fresh(visitor.user.id, visitor.caller.session_id)


# ── second factor


@routes.post("/second-factor")
@for_users
def begin_second_factor(visitor: Visitor) -> Response:
    """A secret for an app: it is shown in this answer and never again."""
    begun = factor_api.begin_second_factor(visitor.caller)
    return show("profile_second_factor.html", begun=begun, **_second_factor(visitor))


@routes.put("/second-factor")
@for_users
def confirm_second_factor(visitor: Visitor) -> Response:
    """Put it in force, by a code that the app shows."""
    count_request("log-ins")
    factor_api.confirm_second_factor(visitor.caller, form_of(AppCode).code)
    return show("profile_second_factor.html", **_second_factor(visitor))


@routes.delete("/second-factor")
@for_users
def remove_second_factor(visitor: Visitor) -> Response:
    """Take it away."""
    factor_api.remove_second_factor(visitor.caller)
    return show("profile_second_factor.html", **_second_factor(visitor))


def _second_factor(visitor: Visitor) -> dict[str, Any]:
    shown = {"second_factor": factor_api.second_factor_shown(visitor.user.id), "is_fresh": _is_fresh(visitor)}
    return shown | {"passkeys": passkey_api.passkeys_shown(visitor.user.id)}


# ── passkeys


@routes.post("/passkeys/challenge")
@for_users
def begin_passkey(visitor: Visitor) -> Response:
    """What the browser makes a passkey from."""
    return answer(passkey_api.begin_passkey(visitor.caller))


@routes.post("/passkeys")
@for_users
def add_passkey(visitor: Visitor) -> Response:
    """Keep what the device has made."""
    passkey_api.add_passkey(visitor.caller, form_of(NewPasskey, credential=json_of("credential")))
    return Response(status=204)


@routes.delete("/passkeys/<int:passkey_id>")
@for_users
def remove_passkey(visitor: Visitor, passkey_id: int) -> Response:
    """Take one away."""
    passkey_api.remove_passkey(visitor.caller, passkey_id)
    return show("profile_passkeys.html", **_second_factor(visitor))

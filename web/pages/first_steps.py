"""What to do first, step by step: for users on the dashboard, for operators on their overview; gone when it is done.

Whether a step is done is read from what it leaves behind, and of the one that leaves nothing here, the encryption key's
back-up, from the audit log: it tells who said so, and when. A guide that is dismissed stays away from that browser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, g, request

from billing.reports.statistics import UsageFilter
from web.http import services
from web.pages.views import Visitor, for_users, page_blueprint, show

routes = page_blueprint("first_step_pages")

KEY_SAVED = "encryption_key_saved"
USERS, OPERATORS = "first-steps", "operators-first-steps"  # cookies of who wants none


@dataclass(frozen=True)
class GuideStep:
    """Something to do. text, link: what, and the name of the page where it is done, in English."""

    text: str
    is_done: bool
    link: str
    path: str


@routes.get("/first-steps")
@for_users
def users_part(visitor: Visitor) -> Response:
    """The users' steps, for a page that looks whether one is done by now."""
    g.asked_by_itself = True
    return show("first_steps.html", first_steps=users_steps(visitor.user.id))


def users_guide(visitor: Visitor) -> dict[str, Any]:
    """The users' steps as long as somebody needs them."""
    if request.cookies.get(USERS) == "off":
        return {"first_steps": []}
    steps = users_steps(visitor.user.id)
    return {"first_steps": [] if _is_done(steps) else steps}


def operators_guide(user_id: int) -> dict[str, Any]:
    """The same for an operator; is_key_saved: whether this one has said so."""
    if request.cookies.get(OPERATORS) == "off":
        return {"first_steps": []}
    is_key_saved = services().audit.page(1, 1, KEY_SAVED, user_id)[1] > 0
    steps = operators_steps()
    return {"first_steps": [] if is_key_saved and _is_done(steps) else steps, "is_key_saved": is_key_saved}


def users_steps(user_id: int) -> list[GuideStep]:
    """What somebody does until a program of theirs has called a model."""
    has_key = services().client_keys.page(1, 1, user_id)[1] > 0
    has_called = bool(services().usage_log.page(UsageFilter(user_id, is_error=False), 1, 1).items)
    return [
        GuideStep("Make a client key for your program.", has_key or has_called, "Keys", "/keys"),
        GuideStep(
            "Paste one of the snippets that come with it, or ask a model here.", has_called, "Playground", "/playground"
        ),
        GuideStep("Your first call is seen here: this turns green by itself.", has_called, "Requests", "/requests"),
    ]


def operators_steps() -> list[GuideStep]:
    """What an operator settles before others come."""
    config, quotas = services().config, services().quotas
    has_keys = config.openrouter_provision_key or config.openrouter_api_keys or services().upstreams.rows()
    is_limited = config.quota_usd is not None or quotas.page(1, 1)[1] > 0
    return [
        GuideStep(
            "Give the service keys of OpenRouter, or another upstream.", bool(has_keys), "Pool", "/operator/pool"
        ),
        GuideStep("Limit what people may spend.", is_limited, "Quotas", "/operator/quotas"),
        GuideStep(
            "Say who may sign up, by REGISTRATION.",
            config.registration != "auto",
            "Invitations",
            "/operator/invitations",
        ),
    ]


def _is_done(steps: list[GuideStep]) -> bool:
    return all(step.is_done for step in steps)

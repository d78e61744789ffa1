"""For operators: which settings hold, and where each comes from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response
from pydantic import Field

from config.in_force import in_force
from web.http import answer, services
from web.operation import Shown, Who, operation

routes = Blueprint("admin_settings_api", __name__, url_prefix="/admin")


class SettingShown(Shown):
    """A setting of the process that answers, as one would write it. Secrets are `set, secret` or empty."""

    name: str = Field(examples=["QUOTA_USD"])
    value: str = Field(examples=["20"])
    source: str = Field(description="environment, .env, secret file, generated, in DATA_DIR, or default")
    default: str = Field(examples=["10"])
    description: str


class SettingsShown(Shown):
    """All settings; those that are set come first."""

    items: list[SettingShown]


@routes.get("/settings")
@operation("Show the settings that hold", Who.AUDITOR, answers={200: SettingsShown})
def settings() -> Response:
    """What is set, and where it comes from; no secret is shown."""
    return answer({"items": settings_shown()})


def settings_shown() -> list[dict[str, Any]]:
    """All settings, as they are answered."""
    return [asdict(row) for row in in_force(services().config)]

"""The operator's view of the settings: what holds and why, and no secret."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    return {"QUOTA_USD": "12.5"}


def test_operators_see_what_holds_and_no_secret(administered: Gateway) -> None:
    answer = administered.get("/admin/settings", ADMIN_TOKEN)
    rows = {row["name"]: row for row in answer.json()["items"]}
    assert (rows["QUOTA_USD"]["value"], rows["QUOTA_USD"]["source"]) == ("12.5", "environment")
    assert rows["ADMIN_TOKEN"]["value"] == "set, secret"
    assert not any(secret in answer.text for secret in (ADMIN_TOKEN, SECRET_KEY, ENCRYPTION_KEY))


def test_users_and_strangers_see_none_of_it(administered: Gateway) -> None:
    assert administered.get("/admin/settings", administered.new_user()).status_code == 403
    assert "QUOTA" not in refusal_of(administered.get("/admin/settings"))

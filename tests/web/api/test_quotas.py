"""What users see of their quota: their own, as it is, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jwt
import pytest

from accounts.users import Users, UserState
from config.settings import Config
from db import Database, database_url
from foundation.clock import Clock
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import Gateway, check_headers, refusal_of
from tests.support.quota_world import World, caller

DEFAULT = {"limit_usd": 5.0, "soft_limit_usd": 4.0, "spent_usd": 0.0, "reserved_usd": 0.0, "remaining_usd": 5.0}
DEFAULT |= {"period": "month", "recovery": "reset", "soft_limit_passed": False, "team": None}


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def gateway_of(
    request: pytest.FixtureRequest, start: Callable[..., Gateway], stand_in: Any, tmp_path_factory: Any
) -> Callable[..., Gateway]:
    """Starts a gateway with these settings, on each kind of database."""

    def begin(**settings: Any) -> Gateway:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('quota')}/x.db"
        else:
            url = request.getfixturevalue("mariadb").new_database()
        secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY}
        return start(DATABASE_URL=url, OPENROUTER_API_URL=stand_in.address, **secrets, **settings)

    return begin


@pytest.fixture(scope="module")
def limited(gateway_of: Callable[..., Gateway]) -> Gateway:
    """Where each user may spend $5 a month."""
    return gateway_of(QUOTA_USD=5, QUOTA_SOFT_USD=4)


def quota_of(gateway: Gateway, token: str) -> dict[str, Any]:
    answer = gateway.get("/api/quota", token)
    assert answer.status_code == 200, answer.text
    check_headers(answer)
    return answer.json()


def id_of(token: str) -> int:
    return int(jwt.decode(token, options={"verify_signature": False})["sub"])


def test_everybody_sees_their_own_and_a_stranger_nothing(limited):
    owner, other = limited.new_user(), limited.new_user()
    db = Database(database_url(Config(database_url=limited.settings["DATABASE_URL"])))
    world = World(db, Clock())
    world.quotas.set(f"user/{id_of(owner)}", 2 * 10**9, None, "none", "reset")
    process = world.process()
    process.end(process.begin(10**9, caller(id_of(owner))), 250_000_007)
    process.drain()
    assert quota_of(limited, owner) == {
        "limit_usd": 2.0,
        "soft_limit_usd": None,
        "spent_usd": 0.250000007,
        "reserved_usd": 0.749999993,
        "remaining_usd": 1.0,
        "period": "none",
        "recovery": "reset",
        "resets_at": None,
        "soft_limit_passed": False,
        "team": None,
    }
    shown = quota_of(limited, other)
    assert shown.pop("resets_at").endswith("-01T00:00:00+00:00")
    assert shown == DEFAULT
    for token in (None, "x", owner[:-2]):
        refused = limited.get("/api/quota", token)
        assert refused.status_code == 401
        refusal_of(refused)
    process.slices.return_all()
    db.close()


def test_who_may_not_call_may_still_look(limited):
    token = limited.new_user()
    db = Database(database_url(Config(database_url=limited.settings["DATABASE_URL"])))
    Users(db, b"", Clock()).set_state(id_of(token), UserState.SILENCED)
    db.close()
    assert quota_of(limited, token)["limit_usd"] == 5.0


def test_without_quota_all_is_null(gateway_of):
    gateway = gateway_of()
    shown = quota_of(gateway, gateway.new_user())
    assert set(shown) == {*DEFAULT, "resets_at"}
    assert set(shown.values()) == {None}

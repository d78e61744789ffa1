"""Fixtures of the routes' tests: a gateway with operators, once on each kind of database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from config.settings import Config
from db import Database, database_url
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import ADMIN_TOKEN, Gateway, user_id_of, wait_for


@dataclass
class People:
    """Access tokens: of an admin by role, and of somebody with an account."""

    admin: str
    user: str

    @property
    def admin_id(self) -> int:
        return user_id_of(self.admin)

    @property
    def user_id(self) -> int:
        return user_id_of(self.user)


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """What a file's gateway has besides; for files to override."""
    return {}


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def administered(
    request: pytest.FixtureRequest,
    start: Callable[..., Gateway],
    stand_in: Any,
    gateway_settings: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Gateway:
    """A gateway with an operator, once on each kind of database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('admin')}/x.db"
    else:
        url = request.getfixturevalue("mariadb").new_database()
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}
    secrets["METRICS_TOKEN"] = ADMIN_TOKEN[::-1]  # so that this route refuses who has another token
    return start(DATABASE_URL=url, OPENROUTER_API_URL=stand_in.address, **secrets, **gateway_settings)


@pytest.fixture(scope="module")
def database(administered: Gateway) -> Iterator[Database]:
    """The gateway's database."""
    found = Database(database_url(Config(database_url=administered.settings["DATABASE_URL"])))
    yield found
    found.close()


@pytest.fixture(scope="module")
def people(administered: Gateway) -> People:
    """The operator with ADMIN_TOKEN has made one of them an admin."""
    found = People(administered.new_user(), administered.new_user())
    changed = administered.ask("PATCH", f"/admin/users/{found.admin_id}", {"role": "admin"}, ADMIN_TOKEN)
    assert changed.status_code == 200, changed.text
    wait_for(lambda: administered.get("/admin/users", found.admin).status_code == 200)
    return found

"""Fixtures of what clients read: a gateway whose log of calls is drained, on SQLite; files may have another."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.sandbox.conftest import Running
from tests.support.billing import Billing
from tests.support.gateway import Gateway


@pytest.fixture(scope="module")
def billing(
    start: Callable[..., Gateway], stand_in: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Billing]:
    folder = tmp_path_factory.mktemp("reads")
    made = Billing(start, stand_in, f"sqlite:///{folder}/x.db", folder)
    yield made
    made.close()


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def billing_of_each_kind(
    request: pytest.FixtureRequest,
    start: Callable[..., Gateway],
    stand_in: Running,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Billing]:
    """As `billing`, once on each kind of database."""
    folder = tmp_path_factory.mktemp("reads")
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{folder}/x.db" if is_sqlite else request.getfixturevalue("mariadb").new_database()
    made = Billing(start, stand_in, url, folder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(billing: Billing) -> Gateway:
    return billing.gateway()


@pytest.fixture(scope="module")
def token(served: Gateway) -> str:
    return served.new_user()

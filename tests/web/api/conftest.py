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


@pytest.fixture(scope="module")
def served(billing: Billing) -> Gateway:
    return billing.gateway()


@pytest.fixture(scope="module")
def token(served: Gateway) -> str:
    return served.new_user()

"""Services in this process, as one gateway process has them, with one key in the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy
from typing import Any

import pytest

from config.settings import Config
from services import Services, build
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY

TOKEN = "Vx4-what-only-prometheus-knows-7Kq2Lp9Z"
KEY = f"sk-or-v1-{7:064x}"


@pytest.fixture
def new(migrated_file: Path, tmp_path: Path) -> Iterator[Callable[..., Services]]:
    """Build services over one database and one DATA_DIR: each is what a process of its own would have."""
    copy(migrated_file, tmp_path / "x.db")
    settings = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY, "metrics_token": TOKEN}
    settings |= {"database_url": f"sqlite:///{tmp_path}/x.db", "data_dir": tmp_path, "openrouter_api_keys": KEY}
    settings |= {"openrouter_api_url": "http://127.0.0.1:1/api/v1"}
    built: list[Services] = []

    def begin(**more: Any) -> Services:
        built.append(build(Config(**settings | more)))
        return built[-1]

    yield begin
    for one in built:
        one.stop()
        one.db.close()

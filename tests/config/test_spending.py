"""Settings of quotas: what is accepted, and what the complaint says."""

from __future__ import annotations

import pytest

from config import sources
from tests.support.rows import each_row
from tests.support.settings import fault


@pytest.mark.parametrize("name", ["QUOTA_USD", "QUOTA_SOFT_USD"])
@pytest.mark.parametrize(("text", "value"), [("none", None), (" NONE ", None), ("0", 0.0), ("2.5", 2.5)])
def test_a_quota_may_be_none(tmp_path, name, text, value):
    assert getattr(sources.load({name: text, "DATA_DIR": str(tmp_path)}), name.lower()) == value


@each_row("name", ["QUOTA_USD", "QUOTA_SOFT_USD"])
@each_row("text", ["-1", "nan", "inf", "1e10", "ten"])
def test_a_quota_that_is_no_amount_is_refused(name, text):
    assert fault(**{name: text}).startswith(f"{name}: ")

"""Kinds of values: bounded numbers, and what the complaint says."""

from __future__ import annotations

from config.settings import Config
from tests.support.rows import each_row
from tests.support.settings import fault, faults


@each_row("name", ["JWT_EXPIRATION_HOURS", "REFRESH_TOKEN_DAYS", "KEEPALIVE_SECONDS", "POOL_SIZE", "PORT"])
@each_row("value", ["-1", "nan", "inf", "1e30", "", "seven", "0x10"])
def test_numbers_out_of_range_are_refused(name, value):
    assert [line.split(":")[0] for line in faults(**{name: value})] == ([name] if value else [])


@each_row("name", [name.upper() for name in Config.model_fields if "rate_limit" in name])
def test_a_limit_is_a_whole_number_and_never_negative(name):
    for value in ("-1", "1.5", "many", "1000000001"):
        assert name in fault(**{name: value})
    assert faults(**{name: "0"}) == faults(**{name: "1000000000"}) == []

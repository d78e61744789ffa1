"""How much the tests try that try many cases of one thing: little in the suite, always the same; much in `make torture`."""

from __future__ import annotations

import os
from typing import TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")
MANY = os.environ.get("EXAMPLES") == "many"
# What depends on how fast the machine is at this moment is no fault: a deadline, slow data, a fixture for all examples.
PATIENT = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


def examples(few: T, many: T) -> T:
    """few in the suite, many in `make torture`."""
    return many if MANY else few


settings.register_profile("suite", max_examples=20, derandomize=True, deadline=None, suppress_health_check=PATIENT)
settings.register_profile("torture", max_examples=500, deadline=None, suppress_health_check=PATIENT)
settings.load_profile(examples("suite", "torture"))

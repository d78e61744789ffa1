"""What tests of operators' commands share; the fixtures are in conftest.py."""

from __future__ import annotations

import json
from typing import Any

from click.testing import Result

KEY, OTHER_KEY = "sk-or-v1-" + "a1b2" * 16, "sk-or-v1-" + "c3d4" * 16


def lines(result: Result) -> list[dict[str, Any]]:
    """The JSON lines that a command printed that did not fail."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def refusal(result: Result) -> str:
    """What a command said that refused, and printed nothing else."""
    assert result.exit_code == 1
    assert result.stdout == ""
    return result.stderr

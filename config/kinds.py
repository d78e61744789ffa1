"""Kinds of values that several settings have."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

Seconds = Annotated[float, Field(gt=0, le=3600)]
Limit = Annotated[int, Field(ge=0, le=1_000_000_000)]


def split(value: object) -> object:
    """The words of a text, which commas or spaces part; anything else as it is."""
    return [word for word in re.split(r"[\s,]+", value) if word] if isinstance(value, str) else value


def split_at_commas(value: object) -> object:
    """The same for what may have spaces in it."""
    return [part for one in value.split(",") if (part := one.strip())] if isinstance(value, str) else value

"""Clients of others, loaded by the first test that uses one: every test process collects every test file."""

from __future__ import annotations

import importlib
from typing import Any


class Lazily:
    """A module that is loaded when something of it is first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest asks whatever it finds in a test file whether it wraps a fixture
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)

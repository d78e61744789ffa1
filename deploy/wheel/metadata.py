"""What hatchling asks for the wheel's dependencies: the very versions that the tests ran on, from requirements*.txt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Pinned(MetadataHookInterface):
    """Fills in `dependencies`, and what the extra `traces` needs besides."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling for each build."""
        usual = metadata["dependencies"] = self._pinned_in("requirements.txt")
        traces = self._pinned_in("requirements-traces.txt")
        metadata["optional-dependencies"] = {"traces": [line for line in traces if line not in usual]}

    def _pinned_in(self, name: str) -> list[str]:
        text = (Path(self.root) / name).read_text("utf-8")
        return re.findall(r"^[A-Za-z0-9][^\\\n]*[^\\\s]", text, re.MULTILINE)

"""What hatchling asks for the wheel's dependencies: the very versions that the tests ran on, from requirements.txt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Pinned(MetadataHookInterface):
    """Fills in `dependencies`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling for each build."""
        text = (Path(self.root) / "requirements.txt").read_text("utf-8")
        metadata["dependencies"] = re.findall(r"^[A-Za-z0-9][^\\\n]*[^\\\s]", text, re.MULTILINE)

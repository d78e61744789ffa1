"""One version: what can't read it from the code says the same."""

from __future__ import annotations

import re

from config.version import USER_AGENT, VERSION
from tests.support.gateway import ROOT


def test_one_version_everywhere():
    assert f'org.opencontainers.image.version="{VERSION}"' in (ROOT / "Dockerfile").read_text()
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("Unreleased" if ".dev" in VERSION else VERSION)
    assert f"openrouter-proxy/{VERSION}" == USER_AGENT

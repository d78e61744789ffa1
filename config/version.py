"""Which version this is. Packages, the image's label, health and our User-Agent follow this line."""

from __future__ import annotations

VERSION = "1.0.0.dev0"
"""As PEP 440 writes versions; `.dev0` until it is released (docs/releasing.md)."""
USER_AGENT = f"openrouter-proxy/{VERSION}"

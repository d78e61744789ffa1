"""Small charts in tables, as SVG: calls and errors as bars, and how long the first byte took as a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from web.pages.stacked import HEIGHT, WIDTH, stacked_paths


def sparkline(points: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Paths in a picture as wide and as high as a stacked chart: `errors` and `fine`, and `line`; empty if all is 0.

    points: each with `calls`, `errors` and `first_byte_p95_ms`.
    """
    errors = [max(one["errors"], 0) for one in points]
    fine = [max(one["calls"] - one["errors"], 0) for one in points]
    bars = dict(zip(("errors", "fine"), stacked_paths([errors, fine]), strict=True))
    times = [one["first_byte_p95_ms"] or 0 for one in points]
    return bars | {"line": line_path(times, max(times, default=0))}


def line_path(amounts: Sequence[int], most: int) -> str:
    """Through the amounts above 0; one that stands alone is a dash. most: what touches the top."""
    if not most:
        return ""
    step = WIDTH / len(amounts)
    path = []
    was_there = False
    for place, amount in enumerate(amounts):
        if amount > 0:
            x, y = (place + 0.2) * step, HEIGHT * (1 - amount / most)
            path.append(f"{'L' if was_there else 'M'}{x:.1f} {y:.1f}h{step * 0.4:.1f}")
        was_there = amount > 0
    return "".join(path)

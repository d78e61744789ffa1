"""Stacked bars as SVG: the server draws them, so a page with a chart needs no script."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT = 720, 200
GAP = 0.2  # between bars, in widths of one


def stacked_paths(series: Sequence[Sequence[int]]) -> list[str]:
    """A path for each series, one upon the other; the highest bar is as high as the picture."""
    columns = list(zip(*series, strict=True))
    most = max(map(sum, columns), default=0)
    if most <= 0:
        return ["" for _ in series]
    step = WIDTH / len(columns)
    width = step * (1 - GAP)
    paths: list[list[str]] = [[] for _ in series]
    for number, amounts in enumerate(columns):
        bottom = float(HEIGHT)
        for path, amount in zip(paths, amounts, strict=True):
            if amount <= 0:
                continue
            height = HEIGHT * amount / most
            bottom -= height
            path.append(f"M{number * step:.1f} {bottom:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z")
    return ["".join(path) for path in paths]

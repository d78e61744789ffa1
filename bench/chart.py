"""A picture of a comparison, in SVG: one panel of bars for each figure, on a scale of powers of ten."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

WIDTH, LINE, HEAD, LABEL, VALUE = 760, 24, 44, 150, 110
STYLE = """text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 } .note { fill: #59636e } rect { fill: #8c959f } .ours { fill: #1a7f37 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .note { fill: #9198a1 } rect { fill: #656c76 } .ours { fill: #3fb950 }
}"""


def bars(panels: Mapping[str, Mapping[str, float]], ours: set[str]) -> str:
    """Panels by title, each with a figure above 0 for each name; the best stands first. `ours` are coloured."""
    parts, y = list[str](), 0
    for title, figures in panels.items():
        y += HEAD
        parts.append(f'<text class="title" x="0" y="{y - 16}">{escape(title)}</text>')
        for name, value in sorted(figures.items(), key=lambda one: one[1]):
            length = _length(value, list(figures.values()))
            colour = ' class="ours"' if name in ours else ""
            parts.append(f'<text x="0" y="{y + 13}">{escape(name)}</text>')
            parts.append(f'<rect{colour} x="{LABEL}" y="{y}" width="{length}" height="{LINE - 8}" rx="3"/>')
            parts.append(f'<text x="{LABEL + length + 8}" y="{y + 13}">{value:,.{0 if value >= 100 else 1}f}</text>')
            y += LINE
    y += 30
    note = f'<text class="note" x="0" y="{y - 8}">Shorter is better. Each step of ten is equally long.</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, note, "</svg>"]) + "\n"


def _length(value: float, all_values: list[float]) -> int:
    """How long a bar is: a twentieth of the room for the shortest, all of it for the longest."""
    low, high = math.log10(min(all_values)), math.log10(max(all_values))
    share = (math.log10(value) - low) / (high - low) if high > low else 1.0
    return round((WIDTH - LABEL - VALUE) * (0.05 + 0.95 * share))

"""Stacked bars: each amount as high as its part of the highest, one upon the other."""

from __future__ import annotations

import re

from web.pages.stacked import HEIGHT, WIDTH, stacked_paths

BAR = re.compile(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+z")


def bars(path: str) -> list[tuple[float, ...]]:
    return [tuple(map(float, bar)) for bar in BAR.findall(path)]


def test_bars_stand_upon_each_other_in_their_columns():
    first, second = map(bars, stacked_paths([[1, 0], [1, 4]]))
    step = WIDTH / 2
    assert [(x, y, height) for x, y, _, height in first] == [(0, 150, 50)]
    assert [x for x, *_ in second] == [0, step]
    assert second[1][1] == 0  # the highest fills the picture
    assert second[1][3] == HEIGHT
    assert abs(second[0][1] + second[0][3] - first[0][1]) <= 0.2


def test_nothing_is_drawn_of_nothing():
    assert stacked_paths([]) == []
    assert stacked_paths([[]]) == [""]
    assert stacked_paths([[0, 0], [0, 0]]) == ["", ""]
    assert bars(stacked_paths([[0, -5, 10]])[0])[0][0] == round(WIDTH * 2 / 3, 1)

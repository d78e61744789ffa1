"""What is reserved for a video: by the dearest of its model's prices, and never nothing for want of one."""

from __future__ import annotations

from typing import Any

import pytest

from billing.video_prices import SECONDS, UNKNOWN_NANO, most_nano
from foundation.errors import UpstreamFailed
from foundation.money import NANO

CENT = NANO // 100


class Catalogue:
    """A list of models for videos."""

    def __init__(self, document: dict[str, Any] | None) -> None:
        self._document = document

    def get(self, path: str) -> dict[str, Any]:
        assert path == "/videos/models"
        if self._document is None:
            raise UpstreamFailed("away")
        return self._document


def price(skus: object, seconds: int = 8, model: str = "a/b", **fields: Any) -> int:
    entry = {"id": "a/b", "canonical_slug": "a/b-1", "pricing_skus": skus} | fields
    return most_nano(Catalogue({"data": [None, {"id": "c/d"}, entry]}), model, seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("skus", "nano"),
    [
        ({"duration_seconds": "0.08"}, 64 * CENT),
        ({"duration_seconds_with_audio": "0.08", "duration_seconds_without_audio": "0.05"}, 64 * CENT),
        ({"generate": "0.50"}, 50 * CENT),
        ({"duration_seconds": "0"}, 0),
        ({"video_tokens": "0.0000012"}, 8 * UNKNOWN_NANO),
        ({"duration_seconds": "much"}, 8 * UNKNOWN_NANO),
        ({"duration_seconds": "-1"}, 8 * UNKNOWN_NANO),
        ({"duration_seconds": "NaN"}, 8 * UNKNOWN_NANO),
        ({"duration_seconds": "1e99"}, 8 * UNKNOWN_NANO),
        ({"duration_seconds": 0.08}, 8 * UNKNOWN_NANO),
        ({}, 8 * UNKNOWN_NANO),
        (None, 8 * UNKNOWN_NANO),
        ([], 8 * UNKNOWN_NANO),
    ],
)
def test_prices(skus, nano):
    assert price(skus) == nano


def test_a_model_is_found_by_its_names_and_variants():
    for name in ("a/b", "a/b-1", "a/b:free"):
        assert price({"duration_seconds": "0.01"}, model=name) == 8 * CENT
    assert price({"duration_seconds": "0.01"}, model="a/x") == 8 * UNKNOWN_NANO


def test_the_longest_film_counts_if_nobody_says_how_long():
    skus = {"duration_seconds": "0.01"}
    assert price(skus, 0, supported_durations=[4, 12, 8]) == 12 * CENT
    for odd in (None, [], ["12"], "12", [True, -4]):
        assert price(skus, 0, supported_durations=odd) == SECONDS * CENT


@pytest.mark.parametrize("document", [None, {}, {"data": "x"}])
def test_without_a_list_a_dear_model_is_assumed(document):
    assert most_nano(Catalogue(document), "a/b", 4) == 4 * UNKNOWN_NANO  # type: ignore[arg-type]
    assert most_nano(None, "a/b", 4) == 4 * UNKNOWN_NANO

"""Why a call, or a try, was refused or failed: a word and a sentence, as the request log keeps them."""

from __future__ import annotations

from typing import Any

from foundation.errors import ERROR_TYPES, AppError
from upstream.disclosure import hide_account
from upstream.refusal import Refusal
from upstream.refusals import classify

MOST_WORD, MOST_SENTENCE = 32, 300  # characters, as the columns have room for


def reason_of(error: AppError | Refusal | None) -> dict[str, Any]:
    """The facts `error_type` and `error_message`: what the client was told. Nothing for None.

    An upstream's own words are cleaned as the client's are; where ours stand in their place, ours are kept.
    """
    if isinstance(error, Refusal):
        row = classify(error)
        if row.answer is None:
            word = error.error_type or ERROR_TYPES.get(error.status, "invalid_request")
            return _reason(word, hide_account(error.message or error.reason))
        error = row.answer(error)
    return {} if error is None else _reason(error.type, error.message)


def _reason(word: str, sentence: str) -> dict[str, Any]:
    plain = word.encode("ascii", "replace").decode()[:MOST_WORD]
    return {
        "error_type": plain,
        "error_message": " ".join(sentence.encode(errors="replace").decode().split())[:MOST_SENTENCE],
    }

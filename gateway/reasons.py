"""Why a call, or a try, was refused or failed: a word and a sentence, as the request log keeps them.

The log holds no prompt: of what the caller has sent the sentence repeats nothing but a model's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from foundation.errors import ERROR_TYPES, AppError
from foundation.json_members import Text
from gateway.request import model_to_log
from upstream.disclosure import hide_account
from upstream.refusal import Refusal
from upstream.refusals import classify

MOST_WORD, MOST_SENTENCE = 32, 300  # characters, as the columns have room for
MOST_READ = 65_536  # bytes of a body that are looked through: of a larger one's refusal the word alone is kept
SHORTEST = 6  # characters that count as a repetition: shorter words are everybody's
WORD = re.compile(r"\S+")
AROUND = "'\"`´“”‘’.,:;!?()[]{}<>=…"  # what may stand around a repetition
HIDDEN = "…"


def reason_of(error: AppError | Refusal | None, sent: Text | None = None) -> dict[str, Any]:
    """The facts `error_type` and `error_message`: what the client was told. Nothing for None.

    An upstream's own words are cleaned as the client's are; where ours stand in their place, ours are kept. sent: the
    request's body; None if none was read, empty if it is gone.
    """
    if isinstance(error, Refusal):
        row = classify(error)
        if row.answer is None:
            word = error.error_type or ERROR_TYPES.get(error.status, "invalid_request")
            return _reason(word, hide_account(error.message or error.reason) if sent else "", sent)
        error = row.answer(error)
    return {} if error is None else _reason(error.type, error.message, sent)


def _reason(word: str, sentence: str, sent: Text | None) -> dict[str, Any]:
    plain = word.encode("ascii", "replace").decode()[:MOST_WORD]
    # Cut first: an upstream may send a megabyte as its reason, and to compare takes its length by the body's.
    shown = " ".join(sentence.encode(errors="replace").decode().split())[:MOST_SENTENCE]
    if sent:
        shown = _without(shown, "\n".join(_texts(sent))) if len(sent) <= MOST_READ else ""
    return {"error_type": plain, "error_message": shown or None}


def _texts(sent: Text) -> Iterator[str]:
    """The texts of a body that may be somebody's own; all of one that is no JSON."""
    try:
        left: list[Any] = [orjson.loads(sent)]
    except orjson.JSONDecodeError:
        yield bytes(sent).decode(errors="replace")
        return
    while left:
        value = left.pop()
        if isinstance(value, str):
            if not model_to_log(value, is_openrouters=True):
                yield value
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value


def _without(sentence: str, texts: str) -> str:
    """The sentence with HIDDEN in the place of whatever the texts have too, word by word as long as they go on."""
    flat = " ".join(texts.split())
    words = list(WORD.finditer(sentence))
    shown, begin = [], 0
    while begin < len(words):
        end = begin
        while end < len(words) and sentence[words[begin].start() : words[end].end()].strip(AROUND) in flat:
            end += 1
        run = sentence[words[begin].start() : words[max(begin, end - 1)].end()]
        repeats = end > begin and len(run.strip(AROUND)) >= SHORTEST
        shown.append(HIDDEN if repeats else words[begin].group())
        begin = end if repeats else begin + 1
    return " ".join(shown)

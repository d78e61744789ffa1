"""The format of transcriptions in the stand-in: it hears how long the sound is, and in which format it came."""

import base64
import binascii
from typing import Any

import orjson

from sandbox import openrouter_answers as answers
from sandbox.http_server import Reply
from sandbox.openrouter_accounts import dollars
from sandbox.openrouter_calls import Asked, Call, check_required, check_types
from sandbox.openrouter_faults import bad_request

BYTES_A_SECOND, TOKENS_A_SECOND = 32_000, 9
TYPES_OF_FIELDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "input_audio": (dict,),
    "language": (str,),
    "stream": (bool,),
}


class Transcriptions:
    """`POST /audio/transcriptions`."""

    name = "transcriptions"

    def read(self, document: dict[str, Any]) -> Asked:
        check_types(document, TYPES_OF_FIELDS)
        check_required(document, "model", "input_audio")
        if document.get("response_format") not in (None, "json", "verbose_json"):
            raise bad_request('response_format: Invalid option: expected one of "json"|"verbose_json"')
        sound = document["input_audio"]
        check_types(sound, {"data": (str,), "format": (str,)})
        check_required(sound, "data", "format")
        size = len(decoded(sound["data"]))
        tokens = max(1, round(seconds_of(sound["data"]) * TOKENS_A_SECOND))
        return Asked(document["model"], False, f"{size} bytes of {sound['format']}", tokens, document)

    def whole(self, call: Call) -> bytes:
        document, words = call.asked.document, call.words
        seconds, prompt_tokens = seconds_of(document["input_audio"]["data"]), call.asked.prompt_tokens
        told: dict[str, Any] = {
            "text": words.text,
            "usage": {
                "input_tokens": prompt_tokens,
                "output_tokens": words.tokens,
                "total_tokens": prompt_tokens + words.tokens,
                "seconds": seconds,
                "cost": dollars(call.cost_nano()),
            },
        }
        if document.get("response_format") == "verbose_json":
            segment = {"id": 0, "start": 0.0, "end": seconds, "text": words.text}
            told |= {"task": "transcribe", "language": document.get("language") or "english"}
            told |= {"duration": seconds, "segments": [segment]}
        return orjson.dumps(told)

    def failed_whole(self, call: Call) -> bytes:
        return orjson.dumps({"error": answers.error_of(call.plan.error_code)})

    def refusal(self, reply: Reply) -> Reply:
        return reply


def decoded(text: str) -> bytes:
    """Return the bytes of a text in base64, or refuse what is none."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise bad_request("input_audio.data: Invalid base64-encoded string") from None


def seconds_of(text: str) -> float:
    """Return how long the sound is, as if it were 16,000 samples a second."""
    return round(len(decoded(text)) / BYTES_A_SECOND, 3)

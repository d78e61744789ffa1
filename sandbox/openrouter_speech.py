"""The format of speech in the stand-in: a tone for each letter, as raw samples or under the name of MP3."""

import functools
import math
import struct
from typing import Any

import orjson

from sandbox import openrouter_answers as answers
from sandbox.http_server import Reply
from sandbox.openrouter_calls import Asked, Call, check_required, check_types, count_tokens
from sandbox.openrouter_faults import bad_request

RATE = 24_000
SAMPLES_A_LETTER = 240
MP3_HEAD = bytes.fromhex("fff3 44c4")  # what follows is no MP3 that could be heard
TYPES_OF_FIELDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "input": (str,),
    "voice": (str,),
    "response_format": (str,),
    "speed": (float, int),
}
MEDIA = {"pcm": b"audio/pcm; rate=%d; channels=1" % RATE, "mp3": b"audio/mpeg"}


class Speech:
    """`POST /audio/speech`."""

    name = "speech"

    def read(self, document: dict[str, Any]) -> Asked:
        check_types(document, TYPES_OF_FIELDS)
        check_required(document, "model", "input")
        media = MEDIA.get(document.get("response_format") or "pcm")
        if media is None:
            raise bad_request('response_format: Invalid option: expected one of "mp3"|"pcm"')
        text = document["input"]
        tokens = count_tokens([text])
        return Asked(document["model"], False, text, tokens, document, words=answers.NOTHING, media=media)

    def whole(self, call: Call) -> bytes:
        sound = b"".join(map(tone, call.asked.said))
        return sound if call.asked.media.startswith(b"audio/pcm") else MP3_HEAD + sound

    def failed_whole(self, call: Call) -> bytes:
        return orjson.dumps({"error": answers.error_of(call.plan.error_code)})

    def refusal(self, reply: Reply) -> Reply:
        return reply


@functools.lru_cache(maxsize=256)
def tone(letter: str) -> bytes:
    """Return a letter as samples of 16 bits, little-endian."""
    pitch = 2 * math.pi * (200 + 10 * (ord(letter) % 100)) / RATE
    return struct.pack(f"<{SAMPLES_A_LETTER}h", *(int(8000 * math.sin(pitch * at)) for at in range(SAMPLES_A_LETTER)))

"""OpenRouter's images, where they differ from chat: whole pictures in events, of which the last has the bill."""

from __future__ import annotations

from typing import Any

from formats import body
from formats.chat import ModelApi

Json = dict[str, Any]

COMPLETED = "image_generation.completed"
# Pictures are long, and the event of the last one has to be read.
MAX_HELD_PICTURE_BYTES = 4 * 1024 * 1024


class ImagesApi(ModelApi):
    """The format of POST /images. OpenAI's clients know it by another path."""

    name = "images"
    path = "/images"
    aliases = ("/images/generations",)
    read = staticmethod(body.read_images)
    reason_mark = COMPLETED.encode()  # of several pictures each has one, so that none is surely the end
    max_held_bytes = MAX_HELD_PICTURE_BYTES
    is_text = False

    def _has_said(self, payload: Json) -> bool:
        return bool(payload.get("data") or payload.get("b64_json"))

    def is_finished(self, payload: Json) -> bool:
        return payload.get("type") == COMPLETED

    def _events_of(self, payload: Json) -> bytes | None:
        pictures = payload.get("data")
        if not isinstance(pictures, list) or not pictures or not all(isinstance(one, dict) for one in pictures):
            return None
        beside = {name: value for name, value in payload.items() if name not in ("data", "usage")}
        events = [{"type": COMPLETED, **beside, **one} for one in pictures]
        if "usage" in payload:
            events[-1]["usage"] = payload["usage"]
        return b"".join(map(self.event, events)) + b"data: [DONE]\n\n"

    def _error_chunk(self, error: object, _generation_id: str | None, _model: str) -> bytes:
        told = error if isinstance(error, dict) else {"message": str(error)}
        code = told.get("code")
        return self.event({"type": "error", "error": told | {"code": None if code is None else str(code)}})

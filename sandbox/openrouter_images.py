"""The format of images in the stand-in: each word of the answer is a preview, and the last event has the picture."""

import base64
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import orjson

from sandbox import openrouter_answers as answers
from sandbox.http_server import Reply, Step
from sandbox.openrouter_calls import Asked, Call, check_required, check_types, count_tokens
from sandbox.openrouter_chat import DONE, usage_json
from sandbox.openrouter_faults import bad_request
from sandbox.openrouter_scenarios import MODEL_PREFIX, break_off

TYPES_OF_FIELDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "prompt": (str,),
    "n": (int,),
    "stream": (bool,),
    "input_references": (list,),
}
STREAMING = ("openai/", MODEL_PREFIX)  # other providers' models take `stream` and answer whole


class Images:
    """`POST /images`."""

    name = "images"

    def read(self, document: dict[str, Any]) -> Asked:
        check_types(document, TYPES_OF_FIELDS)
        check_required(document, "model", "prompt")
        if not document["prompt"]:
            raise bad_request("prompt: Too small: expected string to have >=1 characters")
        if not 1 <= (1 if document.get("n") is None else document["n"]) <= 10:
            raise bad_request("n: Invalid input: expected number from 1 to 10")
        model, prompt = document["model"], document["prompt"]
        streamed = document.get("stream") is True and model.startswith(STREAMING)
        return Asked(model, streamed, prompt, count_tokens([prompt]), document)

    def whole(self, call: Call) -> bytes:
        picture = b'{"b64_json":"%b","media_type":"image/png"}' % picture_of(call.words.text)
        data = b",".join([picture] * (call.asked.document.get("n") or 1))
        usage = usage_json(call, call.words.tokens)
        return b'{"created":%d,"data":[%b],"usage":%b}' % (call.created, data, usage)

    def failed_whole(self, call: Call) -> bytes:
        return orjson.dumps({"error": answers.error_of(call.plan.error_code)})

    def opening(self, call: Call) -> Iterator[Step]:  # noqa: ARG002 - nothing opens these streams
        return iter(())

    def delta(self, call: Call, at: int, piece: str) -> bytes:  # noqa: ARG002 - as the others have it
        preview = b'"partial_image_index":%d,"b64_json":"%b"' % (at, picture_of(piece))
        return b'data: {"type":"image_generation.partial_image",%b}\n\n' % preview

    def failure(self, call: Call) -> bytes:
        error = answers.error_of(call.plan.error_code, metadata=False)
        error |= {"code": str(error["code"]), "type": "provider_error", "param": None}
        return b"data: " + orjson.dumps({"type": "error", "error": error}) + b"\n\n"

    def closing(self, call: Call) -> Iterator[Step]:
        plan = call.plan
        yield from break_off(plan, "usage")
        if plan.finish:
            usage = b"" if plan.usage == "none" else b',"usage":' + usage_json(call, call.exchange.chunks_sent)
            shown = b'"created":%d,"media_type":"image/png","b64_json":"%b"' % (
                call.created,
                picture_of(call.words.text),
            )
            yield b'data: {"type":"image_generation.completed",%b%b}\n\n' % (shown, usage)
        yield from break_off(plan, "done")
        if plan.done:
            yield DONE

    def refusal(self, reply: Reply) -> Reply:
        return reply


def picture_of(text: str) -> bytes:
    """Return a PNG of one pixel, in base64: its colour is the text's."""
    colour = zlib.crc32(text.encode()).to_bytes(4, "big")[:3]
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" + colour)),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))

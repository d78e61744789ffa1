"""The format of embeddings in the stand-in: vectors that depend on nothing but the text, never streamed."""

import base64
import functools
import hashlib
import struct
from typing import Any

import orjson

from sandbox import openrouter_answers as answers
from sandbox.http_server import Reply
from sandbox.openrouter_accounts import dollars
from sandbox.openrouter_calls import Asked, Call, check_types, count_tokens, model_of
from sandbox.openrouter_faults import bad_request
from sandbox.openrouter_models import DEFAULT_EMBEDDING_MODEL

DIMENSIONS = 1536
TYPES_OF_FIELDS: dict[str, tuple[type, ...]] = {"model": (str,), "dimensions": (int,), "encoding_format": (str,)}


class Embeddings:
    """`POST /embeddings`."""

    name = "embeddings"

    def read(self, document: dict[str, Any]) -> Asked:
        check_types(document, TYPES_OF_FIELDS)
        texts = texts_of(document.get("input"))
        dimensions = document.get("dimensions")
        if dimensions is not None and not 1 <= dimensions <= 4096:
            raise bad_request("dimensions: Invalid input: expected number from 1 to 4096")
        if document.get("encoding_format") not in (None, "float", "base64"):
            raise bad_request('encoding_format: Invalid option: expected one of "float"|"base64"')
        name = model_of(document, DEFAULT_EMBEDDING_MODEL)
        return Asked(name, False, texts[0], count_tokens(texts), document, words=answers.NOTHING)

    def whole(self, call: Call) -> bytes:
        document, cost = call.asked.document, dollars(call.cost_nano())
        vectors = [vector(text, document.get("dimensions") or DIMENSIONS) for text in texts_of(document["input"])]
        as_text = document.get("encoding_format") == "base64"
        shown: list[Any] = [base64_of(found) for found in vectors] if as_text else list(vectors)
        return orjson.dumps(
            {
                "object": "list",
                "id": call.body_id("gen-emb-"),
                "model": call.model_name,
                "provider": call.model.provider,
                "data": [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(shown)],
                "usage": {
                    "prompt_tokens": call.asked.prompt_tokens,
                    "total_tokens": call.asked.prompt_tokens,
                    "cost": cost,
                    "is_byok": False,
                    "cost_details": {
                        "upstream_inference_cost": cost,
                        "upstream_inference_prompt_cost": cost,
                        "upstream_inference_completions_cost": 0,
                    },
                },
            }
        )

    def failed_whole(self, call: Call) -> bytes:
        return orjson.dumps({"error": answers.error_of(call.plan.error_code)})

    def refusal(self, reply: Reply) -> Reply:
        return reply


def texts_of(given: object) -> list[str]:
    """Return the texts to embed: one, several, or tokens and parts, of which each list counts as one text."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise bad_request("input: Invalid input: expected string or array")
    if all(isinstance(item, int) for item in given):
        given = [given]
    return [item if isinstance(item, str) else orjson.dumps(item).decode() for item in given]


@functools.lru_cache(maxsize=256)
def vector(text: str, dimensions: int) -> tuple[float, ...]:
    """Return the embedding of a text, made of its hash; numbers that 32 bits hold exactly, between -1 and 1."""
    data = hashlib.shake_128(text.encode()).digest(2 * dimensions)
    return tuple(number / 32768 for (number,) in struct.iter_unpack("<h", data))


def base64_of(numbers: tuple[float, ...]) -> str:
    """Return a vector as little-endian 32 bit numbers."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()

"""The format of rerank in the stand-in: documents that share more words with the question come first."""

import re
from typing import Any

import orjson

from sandbox import openrouter_answers as answers
from sandbox.http_server import Reply
from sandbox.openrouter_accounts import dollars
from sandbox.openrouter_calls import Asked, Call, check_required, check_types, count_tokens, type_name
from sandbox.openrouter_faults import bad_request

TYPES_OF_FIELDS: dict[str, tuple[type, ...]] = {"model": (str,), "query": (str,), "top_n": (int,), "documents": (list,)}


class Rerank:
    """`POST /rerank`."""

    name = "rerank"

    def read(self, document: dict[str, Any]) -> Asked:
        check_types(document, TYPES_OF_FIELDS)
        check_required(document, "model", "query", "documents")
        documents = [shown_document(at, given) for at, given in enumerate(document["documents"])]
        if not documents:
            raise bad_request("documents: Too small: expected array to have >=1 items")
        if document.get("top_n") is not None and document["top_n"] < 1:
            raise bad_request("top_n: Too small: expected number to be >=1")
        texts = [document["query"], *(str(one.get("text", "")) for one in documents)]
        return Asked(document["model"], False, texts[0], count_tokens(texts), document, words=answers.NOTHING)

    def whole(self, call: Call) -> bytes:
        asked = call.asked.document
        documents = [shown_document(at, given) for at, given in enumerate(asked["documents"])]
        results: list[dict[str, Any]] = [
            {"index": at, "relevance_score": relevance(asked["query"], one), "document": one}
            for at, one in enumerate(documents)
        ]
        results.sort(key=lambda result: -result["relevance_score"])
        usage = {"search_units": 1, "total_tokens": call.asked.prompt_tokens, "cost": dollars(call.cost_nano())}
        return orjson.dumps(
            {
                "id": call.body_id("gen-rerank-"),
                "model": call.model_name,
                "provider": call.model.provider,
                "results": results[: asked.get("top_n")],
                "usage": usage,
            }
        )

    def failed_whole(self, call: Call) -> bytes:
        return orjson.dumps({"error": answers.error_of(call.plan.error_code)})

    def refusal(self, reply: Reply) -> Reply:
        return reply


def shown_document(at: int, given: object) -> dict[str, Any]:
    """Return a document as answers show it, or refuse what is none."""
    if isinstance(given, str):
        return {"text": given}
    if isinstance(given, dict) and (isinstance(given.get("text"), str) or isinstance(given.get("image"), str)):
        return {name: given[name] for name in ("text", "image") if name in given}
    raise bad_request(f"documents.{at}: Invalid input: expected string or object, received {type_name(given)}")


def relevance(query: str, document: dict[str, Any]) -> float:
    """Return the share of the question's words that a document has."""
    wanted = words_of(query)
    return len(wanted & words_of(str(document.get("text", "")))) / max(1, len(wanted))


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))

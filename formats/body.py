"""What the gateway reads of a call's body, format by format; the rest is OpenRouter's to judge, and goes up unread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from formats.named_models import named_models
from foundation import json_text
from foundation.errors import BadRequest

Json = dict[str, Any]

# Far more than any model writes or answers with: what is larger would only be a way to spoil sums.
MAX_TOKENS, MAX_CHOICES, MAX_MODELS = 10_000_000, 128, 32


@dataclass(frozen=True, slots=True)
class CallBody:
    """What the gateway has to know of a call.

    max_tokens: at most so many tokens an answer; None if the client sets no bound, 0 where nothing is written. n:
    answers asked for. models: to fall back to, in this order. others: what else it can make OpenRouter use
    (formats/named_models.py).
    """

    model: str
    stream: bool
    session_id: str | None = None
    max_tokens: int | None = None
    n: int = 1
    models: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every model that may answer; one empty name if the body leaves the choice to OpenRouter."""
        return (self.model, *self.models) if self.model or not self.models else self.models


def read_chat(body: bytes) -> CallBody:
    """A chat-completions body. Raises BadRequest, as all of these do."""
    request, model, stream = _read(body, "`model` and `messages`")
    is_older_form = request.get("messages") is None and isinstance(request.get("prompt"), str)  # OpenRouter takes it
    if not is_older_form:
        _check_messages(request)
    older, newer = _whole(request, "max_tokens", MAX_TOKENS), _whole(request, "max_completion_tokens", MAX_TOKENS)
    # Which of two bounds OpenRouter obeys is not documented; the larger is the safe one for what a call may cost.
    bound = older if newer is None or (older is not None and older > newer) else newer
    n = _whole(request, "n", MAX_CHOICES) or 1
    return CallBody(model, stream, _session(request), bound, n, _models(request), named_models(request))


def read_completion(body: bytes) -> CallBody:
    """A body of the older text completions: `prompt` is a text, tokens, or a list of either, each with its answers."""
    request, model, stream = _read(body, "`model` and `prompt`")
    prompt = request.get("prompt")
    if not (prompt and isinstance(prompt, str | list)):
        raise BadRequest("`prompt` must be a text or a non-empty list")
    prompts = len(prompt) if isinstance(prompt, list) and json_text.whole(prompt[0]) is None else 1
    # best_of answers are written for each prompt, and billed, though only n of them come back.
    n = max(_whole(request, "n", MAX_CHOICES) or 1, _whole(request, "best_of", MAX_CHOICES) or 1)
    bound = _whole(request, "max_tokens", MAX_TOKENS)
    return CallBody(model, stream, _session(request), bound, n * prompts, _models(request), named_models(request))


def read_embeddings(body: bytes) -> CallBody:
    """An embeddings body: it is never streamed, and nothing is written."""
    request, model, stream = _read(body, "`model` and `input`")
    if stream:
        raise BadRequest("Embeddings are not streamed; leave `stream` out")
    if not (request.get("input") and isinstance(request["input"], str | list)):
        raise BadRequest("`input` must be a text or a non-empty list")
    return CallBody(model, False, _session(request), 0, 1, _models(request), named_models(request))


def read_response(body: bytes) -> CallBody:
    """A body of OpenAI's Responses format."""
    request, model, stream = _read(body, "`model` and `input`")
    if not (request.get("input") and isinstance(request["input"], str | list)):
        raise BadRequest("`input` must be a text or a non-empty list")
    # What lies with OpenRouter lies in the account that all users share: nobody may name what another has put there.
    for name in ("previous_response_id", "conversation", "background"):
        if request.get(name):
            raise BadRequest(f"`{name}` does not work here: nothing is kept between calls; send the whole `input`")
    bound = _whole(request, "max_output_tokens", MAX_TOKENS)
    return CallBody(model, stream, _session(request), bound, 1, _models(request), named_models(request))


def read_message(body: bytes) -> CallBody:
    """A body of Anthropic's Messages format."""
    request, model, stream = _read(body, "`model` and `messages`")
    _check_messages(request)
    fallbacks = request.get("fallbacks") or []
    names = [entry.get("model") if isinstance(entry, dict) else None for entry in _list(fallbacks)]
    if fallbacks and (not names or len(names) > MAX_MODELS or not all(isinstance(name, str) for name in names)):
        raise BadRequest(f'`fallbacks` must be a list of at most {MAX_MODELS} objects such as {{"model": "..."}}')
    bound = _whole(request, "max_tokens", MAX_TOKENS)
    models: Any = (*_models(request), *names)
    return CallBody(model, stream, _session(request), bound, 1, models, named_models(request))


def _read(body: bytes, needed: str) -> tuple[Json, str, bool]:
    """The body's object, its model and whether a stream is asked for."""
    try:
        request = json_text.parse(body)
    except json_text.BadJson as error:
        raise BadRequest(f"The body is {error}") from None
    if not isinstance(request, dict):
        raise BadRequest(f"The body must be a JSON object with {needed}")
    model, stream = request.get("model"), request.get("stream")
    if model is not None and not isinstance(model, str):
        raise BadRequest('`model` must be a string such as "openai/gpt-4o-mini"')
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("`stream` must be true or false")
    return request, model or "", stream or False


def _check_messages(request: Json) -> None:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("`messages` must be a non-empty list of objects with `role` and `content`")


def _session(request: Json) -> str | None:
    session = request.get("session_id")
    return session if isinstance(session, str) and session else None


def _whole(request: Json, name: str, largest: int) -> int | None:
    if (value := request.get(name)) is None:
        return None
    if (number := json_text.whole(value)) is not None and 1 <= number <= largest:
        return number
    raise BadRequest(f"`{name}` must be a whole number from 1 to {largest}")


def _models(request: Json) -> tuple[str, ...]:
    models = request.get("models")
    if models is None:
        return ()
    if not isinstance(models, list) or len(models) > MAX_MODELS or not all(isinstance(name, str) for name in models):
        raise BadRequest(f"`models` must be a list of at most {MAX_MODELS} strings, the models to fall back to")
    return tuple(models)


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()

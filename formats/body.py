"""What the gateway reads of a call's body, format by format; the rest is OpenRouter's to judge, and goes up unread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from formats import form_data
from formats.named_models import named_models
from foundation import json_members, json_text
from foundation.errors import BadRequest
from foundation.json_members import Raw, Text, first

# Far more than any model writes or answers with: what is larger would only be a way to spoil sums.
MAX_TOKENS, MAX_CHOICES, MAX_MODELS = 10_000_000, 128, 32
# Of one value that is read whole. Texts and tools are not: they may be as large as the body.
MAX_VALUE_BYTES = 64 * 1024
MAX_TOOLS = 4096
BYTES_A_SOUND_TOKEN = (
    32  # of a file for each byte of text: speech has some ten tokens a second, and seldom less than 12 kbit
)
MAX_COUNT, MAX_IMAGES, MAX_SECONDS = 1_000_000, 10, 3600
PICTURE_BYTES = 8 * 1024  # of text that cost as much as a picture beside it, or a voice
NOT_STREAMED = "Transcriptions are not streamed; leave `stream` out"
DIGIT = "-0123456789"
NAMING = ("models", "fallbacks", "plugins", "preset")  # members in which other models can stand, and tools


class CallBody(msgspec.Struct, frozen=True):
    """What the gateway has to know of a call.

    max_tokens: at most so many tokens an answer; None if the client sets no bound, 0 where nothing is written. n:
    answers asked for. models: to fall back to, in this order. others: what else it can make OpenRouter use
    (formats/named_models.py). prompt_bytes: of its text, where the body holds pictures or sound; None for all of it.
    images: pictures asked for. seconds: of film, 0 if the model chooses; None where none is made. is_form: no JSON.
    asked_model: what the client's text has, where an alias or a fallback led to another model.
    """

    model: str
    stream: bool
    session_id: str | None = None
    max_tokens: int | None = None
    n: int = 1
    models: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    prompt_bytes: int | None = None
    images: int = 0
    seconds: int | None = None
    is_form: bool = False
    asked_model: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every model that may answer; one empty name if the body leaves the choice to OpenRouter."""
        return (self.model, *self.models) if self.model or not self.models else self.models

    def led_to(self, model: str) -> CallBody:
        """The call with another model in the place of the one that it asks for."""
        if model == self.model:
            return self
        others = (*self.others, *named_models({"model": model}))
        return msgspec.structs.replace(self, model=model, others=others, asked_model=self.asked_model or self.model)


def read_chat(body: Text) -> CallBody:
    """A chat-completions body. Raises BadRequest, as all of these do."""
    request, model, stream = _read(body, "`model` and `messages`")
    is_older_form = request.kind("messages") in {"", "n"} and request.kind("prompt") == '"'  # OpenRouter takes it
    if not is_older_form:
        _check_messages(request)
    older, newer = _whole(request, "max_tokens", MAX_TOKENS), _whole(request, "max_completion_tokens", MAX_TOKENS)
    # Which of two bounds OpenRouter obeys is not documented; the larger is the safe one for what a call may cost.
    bound = older if newer is None or (older is not None and older > newer) else newer
    n = _whole(request, "n", MAX_CHOICES) or 1
    return CallBody(model, stream, _session(request), bound, n, _models(request), request.others(model))


def read_completion(body: Text) -> CallBody:
    """A body of the older text completions: `prompt` is a text, tokens, or a list of either, each with its answers."""
    request, model, stream = _read(body, "`model` and `prompt`")
    _check_filled(request, "prompt")
    is_one = request.kind("prompt") == '"' or request.kind("prompt", within=True) in DIGIT
    count = 1 if is_one else len(request.items("prompt"))
    # best_of answers are written for each prompt, and billed, though only n of them come back.
    n = max(_whole(request, "n", MAX_CHOICES) or 1, _whole(request, "best_of", MAX_CHOICES) or 1)
    bound = _whole(request, "max_tokens", MAX_TOKENS)
    return CallBody(model, stream, _session(request), bound, n * count, _models(request), request.others(model))


def read_embeddings(body: Text) -> CallBody:
    """An embeddings body: it is never streamed, and nothing is written."""
    request, model, stream = _read(body, "`model` and `input`")
    if stream:
        raise BadRequest("Embeddings are not streamed; leave `stream` out")
    _check_filled(request, "input")
    return CallBody(model, False, _session(request), 0, 1, _models(request), request.others(model))


def read_rerank(body: Text) -> CallBody:
    """A body that asks which documents fit a question best: never streamed, and nothing is written."""
    request, model, stream = _read(body, needed := "`model`, `query` and `documents`")
    _check_model(model, needed)
    if stream:
        raise BadRequest("Reranked documents are not streamed; leave `stream` out")
    _check_text(request, "query")
    if request.kind("documents") != "[" or not request.is_filled("documents"):
        raise BadRequest("`documents` must be a non-empty list of texts, or of objects with `text` or `image`")
    _whole(request, "top_n", MAX_COUNT)
    return CallBody(model, False, _session(request), 0, 1, _models(request), request.others(model))


def read_images(body: Text) -> CallBody:
    """A body that asks for pictures. Those that it holds cost as pictures do, and not by their length."""
    request, model, stream = _read(body, needed := "`model` and `prompt`")
    _check_model(model, needed)
    _check_text(request, "prompt")
    n = _whole(request, "n", MAX_IMAGES) or 1
    size = request.size("prompt") + PICTURE_BYTES * len(request.items("input_references"))
    names = _models(request), request.others(model)
    return CallBody(model, stream, _session(request), None, n, *names, prompt_bytes=size, images=n)


def read_speech(body: Text) -> CallBody:
    """A body that asks for a text to be spoken. The answer is sound, and comes as it is."""
    request, model, stream = _read(body, needed := "`model` and `input`")
    _check_model(model, needed)
    _check_text(request, "input")
    if stream or request.get("stream_format") not in (None, "audio"):
        raise BadRequest("Speech comes as bytes, as soon as there are any; leave `stream` and `stream_format` out")
    size = request.size("input") + PICTURE_BYTES * len(request.items("input_references"))
    names = _models(request), request.others(model)
    return CallBody(model, False, _session(request), None, 1, *names, prompt_bytes=size)


def read_transcription(body: Text) -> CallBody:
    """A body that asks for sound to be written down: JSON, or a form with a file. Sound costs by its length in time."""
    if form_data.border_of(body):
        return _read_transcription_form(body)
    request, model, stream = _read(body, needed := "`model` and `input_audio`, or a form with `model` and `file`")
    _check_model(model, needed)
    if request.kind("input_audio") != "{":
        raise BadRequest('`input_audio` must be an object such as {"data": "<base64>", "format": "wav"}')
    if stream:
        raise BadRequest(NOT_STREAMED)
    size = len(body) // BYTES_A_SOUND_TOKEN
    return CallBody(
        model, False, _session(request), None, 1, _models(request), request.others(model), prompt_bytes=size
    )


def _read_transcription_form(body: Text) -> CallBody:
    found = form_data.places(body)
    fields = {name: form_data.text(body, found, name) for name in ("model", "stream") if name in found}
    if not fields.get("model") or " file" not in found:
        raise BadRequest("The form must have the field `model` and the file `file`")
    if fields.get("stream", "false") != "false":
        raise BadRequest(NOT_STREAMED)
    model, size = fields["model"], len(body) // BYTES_A_SOUND_TOKEN
    return CallBody(model, False, others=named_models({"model": model}), prompt_bytes=size, is_form=True)


def read_video(body: Text) -> CallBody:
    """A body that starts the making of a film. Pictures that it holds cost nothing by their length."""
    request, model, stream = _read(body, needed := "`model` and `prompt`")
    _check_model(model, needed)
    for name in ("frame_images", "input_references"):
        if request.kind(name) not in {"", "n"} and (request.kind(name), request.kind(name, within=True)) != ("[", "{"):
            raise BadRequest(f"`{name}` must be a non-empty list of objects")
    if request.kind("prompt") not in {"", "n"} or not (
        request.items("frame_images") or request.items("input_references")
    ):
        _check_text(request, "prompt")
    if stream:
        raise BadRequest("Videos are not streamed; leave `stream` out, and ask for the job at its `polling_url`")
    if request.get("callback_url") is not None:  # signed with the account's secret, it would tell of the account
        raise BadRequest("`callback_url` does not work here; ask for the job at its `polling_url`")
    seconds = _whole(request, "duration", MAX_SECONDS) or 0
    names = _models(request), request.others(model)
    size = request.size("prompt")
    return CallBody(model, False, _session(request), None, 1, *names, prompt_bytes=size, seconds=seconds)


def read_response(body: Text) -> CallBody:
    """A body of OpenAI's Responses format."""
    request, model, stream = _read(body, "`model` and `input`")
    _check_filled(request, "input")
    # What lies with OpenRouter lies in the account that all users share: nobody may name what another has put there.
    for name in ("previous_response_id", "conversation", "background"):
        if request.get(name):
            raise BadRequest(f"`{name}` does not work here: nothing is kept between calls; send the whole `input`")
    bound = _whole(request, "max_output_tokens", MAX_TOKENS)
    return CallBody(model, stream, _session(request), bound, 1, _models(request), request.others(model))


def read_message(body: Text) -> CallBody:
    """A body of Anthropic's Messages format."""
    request, model, stream = _read(body, "`model` and `messages`")
    _check_messages(request)
    fallbacks = request.get("fallbacks") or []
    names = [entry.get("model") if isinstance(entry, dict) else None for entry in _list(fallbacks)]
    if fallbacks and (not names or len(names) > MAX_MODELS or not all(isinstance(name, str) for name in names)):
        raise BadRequest(f'`fallbacks` must be a list of at most {MAX_MODELS} objects such as {{"model": "..."}}')
    bound = _whole(request, "max_tokens", MAX_TOKENS)
    models: Any = (*_models(request), *names)
    return CallBody(model, stream, _session(request), bound, 1, models, request.others(model))


class _Members:
    """A body's members, read one by one; what nobody asks for stays bytes. Raises BadRequest."""

    def __init__(self, members: dict[str, Raw]) -> None:
        self._members = members

    def kind(self, name: str, within: bool = False) -> str:
        """The first character of a member's value, or of what is in that text or list; "" if there is none."""
        return first(self._members.get(name), within)

    def is_filled(self, name: str) -> bool:
        """True for a text or a list that has something in it."""
        return self.kind(name, within=True) != ""

    def size(self, name: str) -> int:
        """How many bytes a member's value has."""
        return len(memoryview(self._members.get(name, b"")))

    def get(self, name: str) -> Any:
        """A member's value, None if there is none."""
        raw = self._members.get(name)
        return None if raw is None else _value(raw, name)

    def items(self, name: str) -> list[Raw]:
        """A list's items; none if it is no list."""
        if self.kind(name) != "[":
            return []
        try:
            return json_members.items(self._members[name])
        except json_text.BadJson as error:
            raise BadRequest(f"The body is {error}") from None

    def others(self, model: str) -> tuple[str, ...]:
        """The models that it names elsewhere than as its model, which may name some too."""
        read = {name: self.get(name) for name in NAMING if name in self._members}
        if "tools" in self._members:
            read["tools"] = self._tools()
        return named_models(read | {"model": model}) if read or "@" in model else ()

    def _tools(self) -> list[Any]:
        """The tools but for functions, which run at the client."""
        tools = self.items("tools")
        if len(tools) > MAX_TOOLS:
            raise BadRequest(f"`tools` may be at most {MAX_TOOLS}")
        return [_value(raw, "tools") for raw in tools if first(raw) == "{" and not _is_function(raw)]


def _value(raw: Raw, name: str) -> Any:
    if len(memoryview(raw)) > MAX_VALUE_BYTES:
        raise BadRequest(f"`{name}` is too long: it may have {MAX_VALUE_BYTES} bytes")
    try:
        return json_text.parse_unique(bytes(raw))
    except json_text.BadJson as error:
        raise BadRequest(f"The body is {error}") from None


def _is_function(tool: Raw) -> bool:
    try:
        kind = json_members.members(tool).get("type")
    except json_text.BadJson as error:
        raise BadRequest(f"The body is {error}") from None
    return kind is None or bytes(kind) == b'"function"'


def _read(body: Text, needed: str) -> tuple[_Members, str, bool]:
    """The body's object, its model and whether a stream is asked for."""
    try:
        json_members.check(body)
        request = _Members(json_members.members(body))
    except json_members.NotAnObject:
        raise BadRequest(f"The body must be a JSON object with {needed}") from None
    except json_text.BadJson as error:
        raise BadRequest(f"The body is {error}") from None
    model, stream = request.get("model"), request.get("stream")
    if model is not None and not isinstance(model, str):
        raise BadRequest('`model` must be a string such as "openai/gpt-4o-mini"')
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("`stream` must be true or false")
    return request, model or "", stream or False


def _check_model(model: str, needed: str) -> None:
    """Refuse a call that leaves the choice to OpenRouter where it makes none."""
    if not model:
        raise BadRequest(f"The body must be a JSON object with {needed}; `model` is missing")


def _check_messages(request: _Members) -> None:
    if (request.kind("messages"), request.kind("messages", within=True)) != ("[", "{"):
        raise BadRequest("`messages` must be a non-empty list of objects with `role` and `content`")


def _check_filled(request: _Members, name: str) -> None:
    if not request.is_filled(name):
        raise BadRequest(f"`{name}` must be a text or a non-empty list")


def _check_text(request: _Members, name: str) -> None:
    if request.kind(name) != '"' or not request.is_filled(name):
        raise BadRequest(f"`{name}` must be a text")


def _session(request: _Members) -> str | None:
    session = request.get("session_id")
    return session if isinstance(session, str) and session else None


def _whole(request: _Members, name: str, largest: int) -> int | None:
    if (value := request.get(name)) is None:
        return None
    if (number := json_text.whole(value)) is not None and 1 <= number <= largest:
        return number
    raise BadRequest(f"`{name}` must be a whole number from 1 to {largest}")


def _models(request: _Members) -> tuple[str, ...]:
    models = request.get("models")
    if models is None:
        return ()
    if not isinstance(models, list) or len(models) > MAX_MODELS or not all(isinstance(name, str) for name in models):
        raise BadRequest(f"`models` must be a list of at most {MAX_MODELS} strings, the models to fall back to")
    return tuple(models)


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()

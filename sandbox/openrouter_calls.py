"""Calls of models in the stand-in: reserves money, answers whole or streamed as the scenario says, and bills.

What differs between the formats of the API (chat, images and so on) is in their modules.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import orjson

from sandbox import openrouter_answers as answers
from sandbox.http_server import Exchange, Heads, Reply, Step
from sandbox.openrouter_accounts import Books, Generation, Key
from sandbox.openrouter_answers import Tool, Words
from sandbox.openrouter_faults import ROWS, Refused, bad_request, values_of
from sandbox.openrouter_forms import form_document
from sandbox.openrouter_models import Model, find_model, is_known_without_variant
from sandbox.openrouter_scenarios import (
    COMMENT,
    MODEL_PREFIX,
    Plan,
    Scenario,
    UnknownScenario,
    blocks,
    break_off,
    on_the_wire,
    parse_scenario,
    regular_endings,
    whole_body,
)

# What the record of a generation calls a format; OpenRouter has one word for everything that answers with text.
API_TYPES = {
    "embeddings": "embeddings",
    "rerank": "rerank",
    "images": "image",
    "speech": "tts",
    "transcriptions": "stt",
}
TYPE_NAMES = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
STREAM_HEADERS = b"cache-control: no-cache\r\n"
MALFORMED = b'data: {"id":"gen-broken","choices":[{"delta":{"content":"half an ev\n\n'
NO_TEXT: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read from any format.

    wanted_tool: the name of the tool that must be called, "" for any of them, None if none must. tool_has_answered: the
    last message is a tool's result. text_format: `text.format` or `response_format`, or nothing.
    words: the answer, if the request alone says it. media: what a whole answer is.
    """

    model: str
    streamed: bool
    said: str
    prompt_tokens: int
    document: Mapping[str, Any]
    ceiling: int | None = None
    tools: Sequence[Tool] = ()
    wanted_tool: str | None = None
    tool_has_answered: bool = False
    text_format: Mapping[str, Any] = field(default_factory=lambda: NO_TEXT)
    words: Words | None = None
    media: bytes = b"application/json"


@dataclass(slots=True)
class Call:
    """One call of a model under way."""

    exchange: Exchange
    key: Key
    asked: Asked
    model: Model
    model_name: str
    words: Words
    worst_nano: int
    id: str
    plan: Plan
    created: int = field(default_factory=lambda: int(time.time()))
    events: int = 0
    failed: bool = False
    finished: bool = False
    ran_on: bool = False

    @property
    def streamed(self) -> bool:
        return self.asked.streamed

    def tokens_made(self) -> int:
        """Return the tokens that the provider made: a stream stops where it breaks, all else runs on to its end."""
        return self.exchange.chunks_sent if self.streamed and not self.ran_on else self.words.tokens

    def costs(self, tokens: int) -> tuple[int, int]:
        """Return what the prompt and so many tokens cost, in nano-dollars; a failed answer is free."""
        if self.failed:
            return 0, 0
        model = self.model
        return model.request_nano + self.asked.prompt_tokens * model.prompt_nano, tokens * model.completion_nano

    def cost_nano(self) -> int:
        """Return what is billed: nothing for an answer that failed or that has not begun."""
        tokens = self.tokens_made()
        return sum(self.costs(tokens)) if tokens or not self.words.tokens else 0

    def body_id(self, prefix: str) -> str:
        """Return the id that the body shows in formats that have their own, made of the generation's."""
        return prefix + self.id.removeprefix("gen-")


class Api(Protocol):
    """One format of the API: how its requests are read, and how its answers and errors look."""

    name: str

    def read(self, document: dict[str, Any]) -> Asked:
        """Return the request if it has the right shape; the wording of refusals is that of OpenRouter's validator."""

    def whole(self, call: Call) -> bytes:
        """Return a whole answer as JSON."""

    def failed_whole(self, call: Call) -> bytes:
        """Return the body of a 200 that failed after all."""

    def refusal(self, reply: Reply) -> Reply:
        """Return a refusal in the envelope of this format."""


class StreamedApi(Api, Protocol):
    """A format that has streams."""

    def opening(self, call: Call) -> Iterator[Step]:
        """Yield the events that come before the first piece."""

    def delta(self, call: Call, at: int, piece: str) -> bytes:
        """Return the event of one piece."""

    def failure(self, call: Call) -> bytes:
        """Return the event that tells of a failure after the stream has begun."""

    def closing(self, call: Call) -> Iterator[Step]:
        """Yield the end of a stream: the reason, the usage, and the mark that it is over."""


class ModelCalls:
    """Answers calls of models according to the scenario that their model, or a fault that is set, asks for."""

    def __init__(self, books: Books, heads: Heads, generation_id: Callable[[], str]) -> None:
        self._books = books
        self._heads = heads
        self._new_id = generation_id

    def start(self, api: Api, exchange: Exchange, key: Key, defaults: Plan, forced: Scenario | None) -> None:
        """Answer one request; refusals are raised before anything is reserved or sent."""
        asked = api.read(form_document(exchange) or json_document(exchange.body))
        scenario = forced or scenario_of_model(asked.model, defaults)
        if scenario.row:
            said = asked.said[: answers.LONGEST_ECHO]
            values = {"MODEL": asked.model, "PROMPT": said} | values_of(exchange, key.account_id)
            self.play_row(api, exchange, scenario, values)
            return
        call = self._prepare(exchange, key, asked, scenario.plan, api.name)
        if call.streamed:
            self._stream(cast(StreamedApi, api), call)  # `read` of the others never says that it is streamed
        else:
            self._answer(api, call, scenario.ordinary)

    def play_row(self, api: Api, exchange: Exchange, scenario: Scenario, values: Mapping[str, str]) -> None:
        """Answer a request with the row of the fault table that a scenario names."""
        plan = scenario.plan
        hint = {"RETRY_AFTER": plan.retry_after} if plan.retry_after else {}
        reply = api.refusal(ROWS[scenario.row].reply({**values, **hint}))
        exchange.play(reply.status, on_the_wire(reply, plan, self._heads, whole_body(plan, reply.body)))

    def _prepare(self, exchange: Exchange, key: Key, asked: Asked, plan: Plan, api: str) -> Call:
        name = asked.model
        model = find_model(name, api)
        if model is None:
            row = "404a" if is_known_without_variant(name) else "400-model"
            raise Refused(row, MODEL=name, ACCOUNT=key.account_id)
        words = chosen_words(asked, plan) if asked.words is None else asked.words
        ceiling = asked.ceiling
        if ceiling is not None and ceiling < 1:
            raise bad_request("max_tokens: Too small: expected number to be >=1")
        if ceiling is not None and ceiling < words.tokens:
            words = answers.shortened(words, ceiling)
        most_tokens = max(ceiling or model.max_completion_tokens, words.tokens)
        worst = model.request_nano + asked.prompt_tokens * model.prompt_nano + most_tokens * model.completion_nano
        if model.is_free:
            self._books.count_free_request(self._books.accounts[key.account_id])
        self._books.reserve(key, worst, most_tokens)
        shown_name = name if name.startswith(MODEL_PREFIX) else model.canonical_slug
        return Call(exchange, key, asked, model, shown_name, words, worst, self._new_id(), plan)

    def _answer(self, api: Api, call: Call, ordinary: bool) -> None:
        plan = call.plan
        call.failed = plan.error_after >= 0
        body = api.failed_whole(call) if call.failed else api.whole(call)
        media = b"application/json" if call.failed else call.asked.media
        call.finished = not plan.ending
        if ordinary:
            # The usual answer goes out in one piece; this is what benchmarks ask for.
            self._settle(call, api.name, cancelled=False)
            headers = b"content-type: %b\r\ncontent-length: %d\r\n" % (media, len(body))
            call.exchange.send(200, self._heads.build(200, headers + id_headers(call)) + body)
            return
        reply = Reply(200, body, id_headers(call), media)
        steps = on_the_wire(reply, plan, self._heads, whole_body(plan, body))
        # A whole answer runs on at the provider and is billed in full, even if the client does not wait for it.
        call.exchange.play(200, steps, lambda _: self._settle(call, api.name, cancelled=False))

    def _stream(self, api: StreamedApi, call: Call) -> None:
        reply = Reply(200, b"", STREAM_HEADERS + id_headers(call), b"text/event-stream")
        steps = on_the_wire(reply, call.plan, self._heads, stream_events(api, call))
        call.exchange.play(200, steps, lambda cancelled: self._settle_stream(call, api.name, cancelled))

    def _settle_stream(self, call: Call, api: str, cancelled: bool) -> None:
        if cancelled and call.plan.runs_on:
            call.ran_on = call.finished = True
            cancelled = False
        self._settle(call, api, cancelled)

    def _settle(self, call: Call, api: str, cancelled: bool) -> None:
        self._books.release(call.key, call.worst_nano)
        if call.streamed and not call.exchange.sent_bytes and not call.ran_on:
            return  # it ended before its head, so nothing was made and nobody knows its id
        finish_reason = call.words.finish_reason if call.finished else None
        generation = Generation(
            id=call.id,
            account_id=call.key.account_id,
            key_hash=call.key.hash,
            model=call.model_name,
            provider=call.model.provider,
            created=self._books.now(),
            streamed=call.streamed,
            cancelled=cancelled,
            finish_reason="error" if call.failed else finish_reason,
            prompt_tokens=call.asked.prompt_tokens,
            completion_tokens=call.tokens_made(),
            cost_nano=call.cost_nano(),
            elapsed_ms=call.exchange.elapsed_ms(),
            api_type=API_TYPES.get(api, "completions"),
        )
        self._books.add_generation(call.key, call.model.id, generation)


def json_document(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise bad_request("Invalid JSON in request body") from None
    if not isinstance(document, dict):
        raise bad_request(f"Invalid input: expected object, received {type_name(document)}")
    return document


def check_types(document: Mapping[str, Any], types_of_fields: Mapping[str, tuple[type, ...]]) -> None:
    """Refuse fields of the wrong type; null is as good as nothing."""
    for name, types in types_of_fields.items():
        value = document.get(name)
        if value is not None and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
            raise bad_request(f"{name}: Invalid input: expected {TYPE_NAMES[types[0]]}, received {type_name(value)}")


def check_required(document: Mapping[str, Any], *names: str) -> None:
    """Refuse a request that lacks one of these fields."""
    for name in names:
        if document.get(name) is None:
            raise bad_request(f"{name}: Invalid input: expected a value, received undefined")


def checked_list(name: str, messages: object) -> list[dict[str, Any]]:
    """Return the messages, or refuse what is not a list of objects with something in it."""
    if not isinstance(messages, list):
        raise bad_request(f"{name}: Invalid input: expected array, received {type_name(messages)}")
    if not messages:
        raise bad_request(f"{name}: Too small: expected array to have >=1 items")
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            raise bad_request(f"{name}.{at}: Invalid input: expected object, received {type_name(message)}")
    return messages


def check_role(place: str, message: Mapping[str, Any], roles: tuple[str, ...]) -> None:
    """Refuse a message whose role is none of these."""
    if message.get("role") not in roles:
        options = "|".join(f'"{role}"' for role in roles)
        raise bad_request(f"{place}.role: Invalid option: expected one of {options}")


def model_of(document: Mapping[str, Any], default: str) -> str:
    """Return the name of the model that a request asks for, or the first of those that may answer."""
    name = document.get("model") or next(iter(document.get("models") or []), None) or default
    if not isinstance(name, str):
        raise bad_request(f"models.0: Invalid input: expected string, received {type_name(name)}")
    return name


def type_name(value: object) -> str:
    """Return the JSON name of a value's type."""
    return "null" if value is None else TYPE_NAMES[type(value)]


def count_tokens(texts: list[str]) -> int:
    """Return a plausible number of tokens for the texts of messages."""
    return sum(4 + len(text) // 4 for text in texts)


def chosen_tool(asked: Asked, plan: Plan) -> Tool | None:
    """Return the tool to call, if there is one."""
    wanted = asked.wanted_tool
    if wanted is None and plan.tools and not asked.tool_has_answered:
        wanted = ""
    return next((tool for tool in asked.tools if wanted in ("", tool.name)), None)


def chosen_words(asked: Asked, plan: Plan) -> Words:
    """Return the answer to a request."""
    kind = str(asked.text_format.get("type"))
    if tool := chosen_tool(asked, plan):
        return answers.tool_call(tool)
    if plan.chunks or plan.text:
        return answers.filler(plan.chunks or 12, plan.text == "utf8")
    if kind == "json_schema":
        return answers.structured(asked.text_format.get("schema"))
    return answers.json_object(asked.said) if kind.startswith("json") else answers.echo(asked.said)


def id_headers(call: Call) -> bytes:
    """Return the headers that name the generation and its provider."""
    return b"x-generation-id: %b\r\nx-provider-name: %b\r\n" % (call.id.encode(), call.model.provider.encode())


def scenario_of_model(name: str, defaults: Plan) -> Scenario:
    """Return the scenario that a model's name asks for; ordinary models ask for none."""
    if not name.startswith(MODEL_PREFIX):
        return Scenario("", defaults, ordinary=True)
    try:
        return parse_scenario(name.removeprefix(MODEL_PREFIX), defaults)
    except UnknownScenario as unknown:
        raise bad_request(f"{name} is not a valid model ID: {unknown}") from None


def stream_events(api: StreamedApi, call: Call) -> Iterator[Step]:
    """Yield the events of a streamed answer, and the waits between them, as the plan of the call says."""
    plan, exchange, pieces = call.plan, call.exchange, call.words.pieces
    if plan.empty:
        return
    for _ in range(plan.comments):
        yield COMMENT
        yield plan.comment_ms / 1000
    if plan.error_after != 0 or plan.opened:
        yield from api.opening(call)
    pace = plan.pace_ms / 1000
    middle = max(1, len(pieces) // 2) if plan.break_at == "middle" else 0
    for at, piece in enumerate(pieces):
        if at == plan.error_after:
            break
        if at and pace:
            yield pace
        exchange.chunks_sent += 1
        yield api.delta(call, at, piece)
        if plan.mid_comments and exchange.chunks_sent % plan.mid_comments == 0:
            yield COMMENT
        if plan.malformed and at == 0:
            yield MALFORMED
        if exchange.chunks_sent == middle:
            yield from break_off(plan, "middle")
    if plan.error_after >= 0:
        yield from failure_events(api, call)
        return
    if plan.huge_bytes:
        yield b'data: {"filler":"'
        yield from blocks(b"x", plan.huge_bytes)
        yield b'"}\n\n'
    yield from regular_endings(plan)
    call.finished = bool(plan.finish)
    yield from api.closing(call)


def failure_events(api: StreamedApi, call: Call) -> Iterator[Step]:
    """Yield the event of a failure, in two parts if the plan says so, and what comes after it."""
    plan = call.plan
    call.failed = True
    event = api.failure(call)
    if plan.error_split_ms:
        yield event[: len(event) // 2]
        yield plan.error_split_ms / 1000
        yield event[len(event) // 2 :]
    else:
        yield event
    if plan.error_done:
        yield b"data: [DONE]\n\n"

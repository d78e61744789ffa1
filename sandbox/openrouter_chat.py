"""Chat completions of the stand-in: checks the request, reserves money, answers whole or streamed, and bills."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sandbox import openrouter_answers as answers
from sandbox.http_server import Exchange, Heads, Reply, Step
from sandbox.openrouter_accounts import Books, Generation, Key
from sandbox.openrouter_faults import Refused, bad_request, values_of
from sandbox.openrouter_models import DEFAULT_MODEL, Model, find_model, is_known_without_variant
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
    play_row,
    regular_endings,
    whole_body,
)

ROLES = ("system", "developer", "user", "assistant", "tool")
TYPES_OF_FIELDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "stream": (bool,),
    "max_tokens": (int,),
    "max_completion_tokens": (int,),
    "tools": (list,),
    "models": (list,),
}
TYPE_NAMES = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
STREAM_HEADERS = b"cache-control: no-cache\r\n"
DONE = b"data: [DONE]\n\n"
MALFORMED = b'data: {"id":"gen-broken","choices":[{"delta":{"content":"half an ev\n\n'


@dataclass(slots=True)
class Chat:
    """One chat completion under way."""

    exchange: Exchange
    key: Key
    model: Model
    model_name: str
    streamed: bool
    words: answers.Words
    prompt_tokens: int
    worst_nano: int
    id: str
    plan: Plan
    created: int = field(default_factory=lambda: int(time.time()))
    failed: bool = False
    finished: bool = False
    ran_on: bool = False

    def tokens_made(self) -> int:
        """Return the tokens that the provider made: a stream stops where it breaks, all else runs on to its end."""
        return self.exchange.chunks_sent if self.streamed and not self.ran_on else self.words.tokens

    def usage(self, tokens: int) -> bytes:
        """Return the usage block of an answer with so many tokens; a failed answer is free."""
        prices = (0, 0) if self.failed else (self.model.prompt_nano, self.model.completion_nano)
        return answers.usage_json(self.prompt_tokens, tokens, self.prompt_tokens * prices[0], tokens * prices[1])

    def cost_nano(self) -> int:
        """Return what is billed: nothing for an answer that failed or that has not begun."""
        tokens = self.tokens_made()
        if self.failed or not tokens:
            return 0
        return self.prompt_tokens * self.model.prompt_nano + tokens * self.model.completion_nano

    def chunk_start(self) -> bytes:
        return answers.CHUNK_START % (
            self.id.encode(),
            self.created,
            orjson.dumps(self.model_name),
            self.model.provider.encode(),
        )

    def completion(self) -> bytes:
        """Return the whole answer as JSON."""
        reason = self.words.finish_reason
        return answers.COMPLETION % (
            self.id.encode(),
            self.created,
            orjson.dumps(self.model_name),
            self.model.provider.encode(),
            reason,
            reason,
            self.words.message,
            self.usage(self.words.tokens),
        )


def checked_request(body: bytes) -> dict[str, Any]:
    """Return the request if it has the right shape; the wording of refusals is that of OpenRouter's validator."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise bad_request("Invalid JSON in request body") from None
    if not isinstance(request, dict):
        raise bad_request(f"Invalid input: expected object, received {type_name(request)}")
    for name, types in TYPES_OF_FIELDS.items():
        value = request.get(name)
        if value is not None and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
            raise bad_request(f"{name}: Invalid input: expected {TYPE_NAMES[types[0]]}, received {type_name(value)}")
    if isinstance(request.get("prompt"), str) and "messages" not in request:
        request["messages"] = [{"role": "user", "content": request["prompt"]}]
    check_messages(request)
    return request


def check_messages(request: Mapping[str, Any]) -> None:
    """Refuse messages that are missing or have the wrong shape."""
    messages = request.get("messages")
    if messages is None:
        raise bad_request('Input required: specify "prompt" or "messages"')
    if not isinstance(messages, list):
        raise bad_request(f"messages: Invalid input: expected array, received {type_name(messages)}")
    if not messages:
        raise bad_request("messages: Too small: expected array to have >=1 items")
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            raise bad_request(f"messages.{at}: Invalid input: expected object, received {type_name(message)}")
        if message.get("role") not in ROLES:
            options = "|".join(f'"{role}"' for role in ROLES)
            raise bad_request(f"messages.{at}.role: Invalid option: expected one of {options}")
        if not isinstance(message.get("content"), str | list | None):
            raise bad_request(f"messages.{at}.content: Invalid input: expected string or array")


def type_name(value: object) -> str:
    """Return the JSON name of a value's type."""
    return "null" if value is None else TYPE_NAMES[type(value)]


def chosen_words(request: Mapping[str, Any], plan: Plan) -> answers.Words:
    """Return the answer to a request."""
    tool = forced_tool(request)
    response_format = request.get("response_format")
    messages = request["messages"]
    if tool:
        return answers.tool_call(tool)
    if plan.chunks or plan.text:
        return answers.filler(plan.chunks or 12, plan.text == "utf8")
    if isinstance(response_format, dict) and str(response_format.get("type")).startswith("json"):
        return answers.json_object(messages)
    return answers.echo(messages)


def forced_tool(request: Mapping[str, Any]) -> str:
    """Return the name of the tool that must be called, if any must."""
    choice = request.get("tool_choice")
    tools = [tool for tool in request.get("tools") or [] if isinstance(tool, dict)]
    functions = [tool["function"] for tool in tools if isinstance(tool.get("function"), dict)]
    names: list[str] = [function["name"] for function in functions if isinstance(function.get("name"), str)]
    if choice == "required" and names:
        return names[0]
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return next((name for name in names if name == choice["function"].get("name")), "")
    return ""


def count_tokens(messages: list[Mapping[str, Any]]) -> int:
    """Return a plausible number of tokens for the messages."""
    return sum(4 + len(answers.text_of(message)) // 4 for message in messages)


class ChatCompletions:
    """Answers chat requests according to the scenario that their model, or a fault that is set, asks for."""

    def __init__(self, books: Books, heads: Heads, generation_id: Callable[[], str]) -> None:
        self._books = books
        self._heads = heads
        self._new_id = generation_id

    def start(self, exchange: Exchange, key: Key, defaults: Plan, forced: Scenario | None) -> None:
        """Answer one request; refusals are raised before anything is reserved or sent."""
        request = checked_request(exchange.body)
        name = request.get("model") or next(iter(request.get("models") or []), None) or DEFAULT_MODEL
        if not isinstance(name, str):
            raise bad_request(f"models.0: Invalid input: expected string, received {type_name(name)}")
        scenario = forced or scenario_of_model(name, defaults)
        if scenario.row:
            said = answers.text_of(request["messages"][-1])[: answers.LONGEST_ECHO]
            values = {"MODEL": name, "PROMPT": said} | values_of(exchange, key.account_id)
            play_row(exchange, self._heads, scenario, values)
            return
        chat = self._prepare(exchange, key, request, name, scenario.plan)
        if chat.streamed:
            self._stream(chat)
        else:
            self._answer(chat, scenario.ordinary)

    def _prepare(self, exchange: Exchange, key: Key, request: dict[str, Any], name: str, plan: Plan) -> Chat:
        model = find_model(name)
        if model is None:
            raise Refused("404a" if is_known_without_variant(name) else "400-model", MODEL=name, ACCOUNT=key.account_id)
        words = chosen_words(request, plan)
        ceiling = request.get("max_completion_tokens") or request.get("max_tokens")
        if ceiling is not None and ceiling < 1:
            raise bad_request("max_tokens: Too small: expected number to be >=1")
        if ceiling is not None and ceiling < words.tokens:
            words = answers.shortened(words, ceiling)
        prompt_tokens = count_tokens(request["messages"])
        most_tokens = max(ceiling or model.max_completion_tokens, words.tokens)
        worst = prompt_tokens * model.prompt_nano + most_tokens * model.completion_nano
        if model.is_free:
            self._books.count_free_request(self._books.accounts[key.account_id])
        self._books.reserve(key, worst, most_tokens)
        shown_name = name if name.startswith(MODEL_PREFIX) else model.canonical_slug
        streamed = request.get("stream") is True
        return Chat(exchange, key, model, shown_name, streamed, words, prompt_tokens, worst, self._new_id(), plan)

    def _answer(self, chat: Chat, ordinary: bool) -> None:
        plan = chat.plan
        chat.failed = plan.error_after >= 0
        body = chat.completion()
        if chat.failed:
            body = b'{"id":"%b","error":%b}' % (chat.id.encode(), answers.error_json(plan.error_code))
        chat.finished = not plan.ending
        if ordinary:
            # The usual answer goes out in one piece; this is what benchmarks ask for.
            self._settle(chat, cancelled=False)
            headers = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            chat.exchange.send(200, self._heads.build(200, headers + self._id_headers(chat)) + body)
            return
        reply = Reply(200, body, self._id_headers(chat))
        steps = on_the_wire(reply, plan, self._heads, whole_body(plan, body))
        # A whole answer runs on at the provider and is billed in full, even if the client does not wait for it.
        chat.exchange.play(200, steps, lambda _: self._settle(chat, cancelled=False))

    def _stream(self, chat: Chat) -> None:
        reply = Reply(200, b"", STREAM_HEADERS + self._id_headers(chat), b"text/event-stream")
        steps = on_the_wire(reply, chat.plan, self._heads, stream_events(chat))
        chat.exchange.play(200, steps, lambda cancelled: self._settle_stream(chat, cancelled))

    def _settle_stream(self, chat: Chat, cancelled: bool) -> None:
        if cancelled and chat.plan.runs_on:
            chat.ran_on = chat.finished = True
            cancelled = False
        self._settle(chat, cancelled)

    def _id_headers(self, chat: Chat) -> bytes:
        return b"x-generation-id: %b\r\nx-provider-name: %b\r\n" % (chat.id.encode(), chat.model.provider.encode())

    def _settle(self, chat: Chat, cancelled: bool) -> None:
        self._books.release(chat.key, chat.worst_nano)
        if chat.streamed and not chat.exchange.sent_bytes and not chat.ran_on:
            return  # it ended before its head, so nothing was made and nobody knows its id
        finish_reason = chat.words.finish_reason.decode() if chat.finished else None
        generation = Generation(
            id=chat.id,
            account_id=chat.key.account_id,
            key_hash=chat.key.hash,
            model=chat.model_name,
            provider=chat.model.provider,
            created=self._books.now(),
            streamed=chat.streamed,
            cancelled=cancelled,
            finish_reason="error" if chat.failed else finish_reason,
            prompt_tokens=chat.prompt_tokens,
            completion_tokens=chat.tokens_made(),
            cost_nano=chat.cost_nano(),
            elapsed_ms=chat.exchange.elapsed_ms(),
        )
        self._books.add_generation(chat.key, chat.model.id, generation)


def scenario_of_model(name: str, defaults: Plan) -> Scenario:
    """Return the scenario that a model's name asks for; ordinary models ask for none."""
    if not name.startswith(MODEL_PREFIX):
        return Scenario("", defaults, ordinary=True)
    try:
        return parse_scenario(name.removeprefix(MODEL_PREFIX), defaults)
    except UnknownScenario as unknown:
        raise bad_request(f"{name} is not a valid model ID: {unknown}") from None


def stream_events(chat: Chat) -> Iterator[Step]:
    """Yield the events of a streamed answer, and the waits between them, as the plan of the chat says."""
    plan, exchange = chat.plan, chat.exchange
    if plan.empty:
        return
    for _ in range(plan.comments):
        yield COMMENT
        yield plan.comment_ms / 1000
    start, end = chat.chunk_start() + answers.CHUNK_DELTA, answers.CHUNK_END
    pace = plan.pace_ms / 1000
    deltas = chat.words.deltas()
    middle = max(1, len(deltas) // 2) if plan.break_at == "middle" else 0
    for at, delta in enumerate(deltas):
        if at == plan.error_after:
            break
        if at and pace:
            yield pace
        exchange.chunks_sent += 1
        yield start + delta + end
        if plan.mid_comments and exchange.chunks_sent % plan.mid_comments == 0:
            yield COMMENT
        if plan.malformed and at == 0:
            yield MALFORMED
        if exchange.chunks_sent == middle:
            yield from break_off(plan, "middle")
    if plan.error_after >= 0:
        chat.failed = True
        yield from failure_events(chat)
        return
    if plan.huge_bytes:
        yield b'data: {"filler":"'
        yield from blocks(b"x", plan.huge_bytes)
        yield b'"}\n\n'
    yield from regular_endings(plan)
    yield from closing_events(chat)


def failure_events(chat: Chat) -> Iterator[Step]:
    """Yield the event that tells of a failure after the stream has begun."""
    plan = chat.plan
    reason = b"null" if plan.error_shape == "null-finish" else b'"error"'
    event = chat.chunk_start() + b'"error":%b' % answers.error_json(plan.error_code)
    if plan.error_shape != "no-choices":
        event += b',"choices":[{"index":0,"delta":{"content":"","role":"assistant"},"finish_reason":%b}]' % reason
    if plan.error_usage:
        event += b',"usage":' + chat.usage(chat.exchange.chunks_sent)
    event += b"}\n\n"
    if plan.error_split_ms:
        yield event[: len(event) // 2]
        yield plan.error_split_ms / 1000
        yield event[len(event) // 2 :]
    else:
        yield event
    if plan.error_done:
        yield DONE


def closing_events(chat: Chat) -> Iterator[Step]:
    """Yield the end of a stream: the reason, the usage, and the mark that it is over."""
    plan, start = chat.plan, chat.chunk_start()
    reason = chat.words.finish_reason
    choice = answers.EMPTY_CHOICE % (reason, reason)
    chat.finished = bool(plan.finish)
    if plan.finish:
        yield start + choice + b"}\n\n"
    yield from break_off(plan, "usage")
    if plan.usage != "none":
        choices = choice if plan.usage == "new" else b'"choices":[]'
        yield (
            start + b'"service_tier":null,' + choices + b',"usage":' + chat.usage(chat.exchange.chunks_sent) + b"}\n\n"
        )
    yield from break_off(plan, "done")
    if plan.done:
        yield DONE

"""A stand-in for OpenRouter on this machine: for trying the gateway without a key, for its tests and its benchmarks.

    python -m sandbox.openrouter --port 0 --management-key sk-or-v1-... --state FILE

It prints one line of JSON when it listens, {"listening": "http://127.0.0.1:PORT/api/v1", "management_key": "..."}
(the key only if none was given), and stops on SIGTERM or SIGINT. A chat request chooses what happens to it by its
model, `sandbox/<scenario>?<knob>=<value>&...`, or the control API chooses for it: POST /sandbox/faults {"scenario":
"429c?retry_after=7", "key": HASH, "account": ID, "path": "/keys", "method": "POST", "times": 1, "delay_ms": 0,
"after": false}. Without a path a fault is for every call of a model; path "/" is for every request. "after" lets an
endpoint other than those do its work before its answer is replaced.

    scenario                                    what the client sees
    400 .. 529, 401b, 402a, 429c, 502-html ..   that row of `openrouter_faults.ROWS`; 302 and 307 redirect
    stream                                      a regular answer, for use with knobs: stream?chunks=5&pace_ms=100
    comments  mid-comments  endless-comments    `: OPENROUTER PROCESSING` before, among, or instead of further chunks
    one-byte  split-utf8  half-events  crlf     the same bytes cut at awkward places; other line ends
    utf8                                        words of multi-byte characters
    tools                                       a call of the first tool, until its result is told
    old-usage  no-usage  no-done  no-finish     ends of a stream that differ from the regular one
    error-first  error-first-comments           200, then an error instead of the first chunk (whole: an error body)
    error-opened                                the same after the events that open a stream of responses or messages
    error-mid  error-string-code  error-usage   an error after three chunks, in its forms;
    error-no-choices  error-split               error_after=N and error_code=429 change it
    reset  cut  stall                           three chunks, then a TCP reset, an end without last chunk, or silence
    malformed  huge-line  empty                 an event that is not JSON; huge_bytes=N without newline; no body
    whitespace  whitespace-error                keep-alive whitespace before a whole answer, or before its error
    slow-headers  early-hints  large-headers    delay_ms=N before any byte; a 103 first; header_bytes=N
    gzip  close-delimited  http10               encodings and framings that nobody asked for
    connection-close  drop  drop-reset          the connection closes after the answer, or before any byte

The knobs are the fields of `openrouter_scenarios.Plan`; every scenario and every row takes all of them. Any answer can
be broken: break_at=headers|body|middle|usage|done|end says where (before the head, before the body, in its middle,
before the usage chunk, before [DONE], before the end of the framing), break_how=reset|fin|stall|pause how, and break_ms
how long a pause is; `at_break` in the log tells that the answer has come there. A stream is billed for what was sent
when it broke or its client left, with runs_on=1 in full; a whole answer is billed in full whatever becomes of it.

Further controls: GET and DELETE /sandbox/faults and /sandbox/log; GET /sandbox/bill (nano-dollars of every account and
key) and /sandbox/generations (the last 50,000 answers: id, key_hash, cost_nano ..); POST and PATCH /sandbox/accounts;
POST /sandbox/keys; POST /sandbox/videos (openrouter_videos.py); POST /sandbox/settings (pace_ms, chunks, comments,
comment_ms, usage, generation_404s, generation_same_key_only, duplicate_generation_ids, keys_on_a_page, video_ms,
video_bytes, clock_offset_seconds). The clock's offset can end a UTC day, for limits that are reset then and for GET
/activity, which shows days that are over.

GET /auth?callback_url=...&code_challenge=...&code_challenge_method=S256 is OpenRouter's log-in: a page on which one
picks an account and approves, or not, and POST /api/v1/auth/keys exchanges the code for a key.

Models are called by POST at the paths of APIS; the scenarios are the same for all, as far as they make sense. Ids of
bodies are not always those of generations: GET /generation takes what X-Generation-Id says. A tool that must be called
is called, with arguments that fit its schema, and structured output fits its schema too.
"""

import argparse
import asyncio
import hashlib
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from sandbox import openrouter_catalogue as catalogue
from sandbox import openrouter_keys, openrouter_models, openrouter_usage
from sandbox.http_server import Exchange, Heads, Reply, listen
from sandbox.openrouter_accounts import NANO, Account, Books, Key
from sandbox.openrouter_calls import Api, ModelCalls
from sandbox.openrouter_chat import Chat, Completions
from sandbox.openrouter_control import Control, FaultRule, RequestLog
from sandbox.openrouter_embeddings import Embeddings
from sandbox.openrouter_endpoint import Call, Endpoint, Settings
from sandbox.openrouter_faults import ROWS, Refused, values_of
from sandbox.openrouter_images import Images
from sandbox.openrouter_logins import Logins
from sandbox.openrouter_messages import Messages
from sandbox.openrouter_rerank import Rerank
from sandbox.openrouter_responses import Responses
from sandbox.openrouter_scenarios import Plan, Scenario, on_the_wire, whole_body
from sandbox.openrouter_speech import Speech
from sandbox.openrouter_transcriptions import Transcriptions
from sandbox.openrouter_videos import Videos

API = "/api/v1"
SHARED_HEADERS = (
    b"server: cloudflare\r\n"
    b"access-control-allow-origin: *\r\n"
    b"access-control-expose-headers: X-Generation-Id,X-Provider-Name,cf-ray\r\n"
    b"permissions-policy: payment=(self)\r\n"
    b"referrer-policy: no-referrer, strict-origin-when-cross-origin\r\n"
    b"vary: Accept-Encoding\r\n"
    b"x-content-type-options: nosniff\r\n"
    b"cf-ray: 8f1e2d3c4b5a6978-FRA\r\n"
    b"set-cookie: __cf_bm=stand-in-cookie; path=/; HttpOnly; Secure; SameSite=None\r\n"
)
ANYONE, ANY_KEY, MANAGEMENT_KEY = "anyone", "any key", "management key"
ROUTES: dict[str, dict[str, tuple[Endpoint, str]]] = {
    "/key": {"GET": (openrouter_keys.current_key, ANY_KEY)},
    "/auth/key": {"GET": (openrouter_keys.current_key, ANY_KEY)},
    "/keys": {"GET": (openrouter_keys.list_keys, MANAGEMENT_KEY), "POST": (openrouter_keys.create_key, MANAGEMENT_KEY)},
    "/keys/*": {
        "GET": (openrouter_keys.get_key, MANAGEMENT_KEY),
        "PATCH": (openrouter_keys.update_key, MANAGEMENT_KEY),
        "DELETE": (openrouter_keys.delete_key, MANAGEMENT_KEY),
    },
    "/credits": {"GET": (openrouter_usage.credits_of_account, MANAGEMENT_KEY)},
    "/activity": {"GET": (openrouter_usage.list_activity, MANAGEMENT_KEY)},
    "/generation": {"GET": (openrouter_usage.get_generation, ANY_KEY)},
    "/models": {"GET": (openrouter_models.list_models, ANYONE)},
    "/models/count": {"GET": (openrouter_models.count_models, ANYONE)},
    "/models/user": {"GET": (openrouter_models.list_models, ANY_KEY)},
    "/models/*": {"GET": (catalogue.list_endpoints, ANYONE)},
    "/images/models": {"GET": (catalogue.list_image_models, ANYONE)},
    "/images/models/*": {"GET": (catalogue.list_image_endpoints, ANYONE)},
    "/videos/models": {"GET": (catalogue.list_video_models, ANYONE)},
    "/providers": {"GET": (catalogue.list_providers, ANYONE)},
    "/endpoints/zdr": {"GET": (catalogue.list_endpoints_zdr, ANYONE)},
    "/model/*": {"GET": (openrouter_models.get_model, ANYONE)},
    "/embeddings/models": {"GET": (openrouter_models.list_embedding_models, ANYONE)},
}
APIS: dict[str, Api] = {
    "/chat/completions": Chat(),
    "/completions": Completions(),
    "/embeddings": Embeddings(),
    "/responses": Responses(),
    "/messages": Messages(),
    "/rerank": Rerank(),
    "/images": Images(),
    "/audio/speech": Speech(),
    "/audio/transcriptions": Transcriptions(),
}
ENDPOINTS = ("/images/models/", "/models/")  # below which there are models' endpoints alone
DUPLICATE_ID = "gen-1790000000-" + "0" * 20


@dataclass(slots=True)
class Options:
    """How to start a stand-in."""

    host: str = "127.0.0.1"
    port: int = 0
    state: Path | None = None
    management_keys: Sequence[str] = ()
    inference_keys: Sequence[str] = ()
    balance: float = 10_000
    plan: Plan = field(default_factory=Plan)
    generation_404s: int = 0
    log_length: int = 2000


class StandIn:
    """The whole of the stand-in behind its socket."""

    def __init__(self, options: Options) -> None:
        self.books = Books(options.state)
        self._heads = Heads(SHARED_HEADERS)
        self._settings = Settings(options.plan, options.generation_404s)
        self._log = RequestLog(options.log_length)
        self._videos = Videos(self.books, self._generation_id)
        self._control = Control(self.books, self._settings, self._log, self._videos.change)
        self._calls = ModelCalls(self.books, self._heads, self._generation_id)
        self._logins = Logins(self.books)
        self._routes = ROUTES | {
            "/auth/keys": {"POST": (self._logins.redeem, ANYONE)},
            "/videos": {"POST": (self._videos.start, ANY_KEY)},
            "/videos/*": {"GET": (self._videos.get, ANY_KEY)},
        }
        self.management_key = self._provision(options)

    def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        if exchange.path.startswith(API + "/"):
            self._answer(exchange, exchange.path[len(API) :].rstrip("/"))
            self._log.add(exchange)
        elif exchange.path == "/auth":
            self._send(exchange, self._reply_of(exchange, self._logins.page), None)
        elif exchange.path.startswith("/sandbox/"):
            self._send(exchange, self._reply_of(exchange, self._control.answer), None)
        else:
            self._send(exchange, ROWS["404"].reply({}), None)

    def _answer(self, exchange: Exchange, path: str) -> None:
        scheme, _, secret = exchange.header(b"authorization").partition(b" ")
        if scheme.lower() == b"bearer" and secret:
            exchange.key_hash = hashlib.sha256(secret.strip()).hexdigest()
        rule = self._control.find_rule(exchange, path) if self._control.rules else None
        api = APIS.get(path)
        if rule and rule.scenario.row and not rule.after:
            self._calls.play_row(api or APIS["/chat/completions"], exchange, rule.scenario, self._values(exchange))
        elif api and exchange.method == "POST":
            try:
                self._start(api, exchange, rule.scenario if rule else None)
            except Refused as refused:
                self._send(exchange, api.refusal(ROWS[refused.label].reply(refused.values_given)), rule)
        else:
            reply = self._reply_of(exchange, lambda asked: self._call(asked, path))
            if rule and rule.scenario.row:
                reply = ROWS[rule.scenario.row].reply(self._values(exchange))
            self._send(exchange, reply, rule)

    def _start(self, api: Api, exchange: Exchange, forced: Scenario | None) -> None:
        key = self._authenticate(exchange, ANY_KEY)
        if key.is_management:
            raise Refused("401b")
        self._calls.start(api, exchange, key, self._settings.defaults, forced)

    def _call(self, exchange: Exchange, path: str) -> Reply:
        pattern, rest = self._pattern(path)
        methods = self._routes.get(pattern)
        if methods is None and path not in APIS:
            raise Refused("404")
        if methods is None or exchange.method not in methods:
            raise Refused("405")
        endpoint, access = methods[exchange.method]
        if access == ANYONE:
            nobody, account = Key("", "", "", "", False, 0), Account("", "", "", 0)
            return endpoint(Call(exchange, self.books, account, nobody, rest, self._settings))
        key = self._authenticate(exchange, access)
        account = self.books.accounts[key.account_id]
        return endpoint(Call(exchange, self.books, account, key, rest, self._settings))

    def _pattern(self, path: str) -> tuple[str, str]:
        """Return the route of a path, and what stands for its asterisk."""
        if path in self._routes:
            return path, ""
        for folder in ("/images/models/", "/models/", "/model/", "/keys/", "/videos/"):
            if path.startswith(folder) and (folder not in ENDPOINTS or path.endswith("/endpoints")):
                return f"{folder}*", path[len(folder) :]
        return path, ""

    def _authenticate(self, exchange: Exchange, access: str) -> Key:
        if not exchange.key_hash:
            raise Refused("401a")
        key = self.books.get_usable_key(exchange.key_hash)
        if access == MANAGEMENT_KEY and not key.is_management:
            raise Refused("403g")
        return key

    def _reply_of(self, exchange: Exchange, answer: Callable[[Exchange], Reply]) -> Reply:
        try:
            return answer(exchange)
        except Refused as refused:
            return ROWS[refused.label].reply(refused.values_given)

    def _send(self, exchange: Exchange, reply: Reply, rule: FaultRule | None) -> None:
        if rule:
            plan = rule.scenario.plan
            exchange.play(reply.status, on_the_wire(reply, plan, self._heads, whole_body(plan, reply.body)))
            return
        lines = b"content-type: %b\r\ncontent-length: %d\r\n%b" % (
            reply.content_type,
            len(reply.body),
            reply.headers,
        )
        exchange.send(reply.status, self._heads.build(reply.status, lines) + reply.body)

    def _generation_id(self) -> str:
        return DUPLICATE_ID if self._settings.duplicate_generation_ids else new_generation_id()

    def _values(self, exchange: Exchange) -> dict[str, str]:
        key = self.books.find_key(exchange.key_hash)
        return values_of(exchange, key.account_id if key else "")

    def _provision(self, options: Options) -> str:
        """Make the first account and the given keys, and return the management key if it had to be made up."""
        accounts = self.books.accounts
        first = next(iter(accounts.values()), None) or self.books.add_account("default", round(options.balance * NANO))
        made_up = ""
        for secret in options.management_keys:
            self.books.add_key(first, "management", True, secret)
        for secret in options.inference_keys:
            self.books.add_key(first, "provisioned", False, secret)
        if not options.management_keys:
            _, made_up = self.books.add_key(first, "management", True)
        self.books.save()
        return made_up


def new_generation_id() -> str:
    """Return an id in OpenRouter's form."""
    return f"gen-{int(time.time())}-{random.getrandbits(80):020x}"


async def serve(options: Options, on_listening: Callable[[str, str], None]) -> None:
    """Run a stand-in until the task is cancelled; tell its address and the management key that it made up."""
    stand_in = StandIn(options)
    server = await listen(stand_in.handle, options.host, options.port)
    try:
        port = server.sockets[0].getsockname()[1]
        on_listening(f"http://{options.host}:{port}{API}", stand_in.management_key)
        while True:
            await asyncio.sleep(1)
            stand_in.books.save_if_changed()
    finally:
        server.close()
        stand_in.books.save_if_changed()


def announce(address: str, management_key: str) -> None:
    """Print where the stand-in listens."""
    made_up = {"management_key": management_key} if management_key else {}
    print(orjson.dumps({"listening": address} | made_up).decode(), flush=True)


def options_from(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.openrouter", description="A local stand-in for OpenRouter."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--state", type=Path, help="file that accounts, keys and the bill survive in")
    parser.add_argument("--management-key", action="append", default=[], help="may be repeated; made up if absent")
    parser.add_argument("--inference-key", action="append", default=[], help="may be repeated")
    parser.add_argument("--balance", type=float, default=10_000, help="dollars of the first account")
    parser.add_argument("--pace-ms", type=float, default=20, help="milliseconds between streamed chunks")
    parser.add_argument("--chunks", type=int, default=0, help="words of an answer; 0 echoes the question")
    parser.add_argument("--comments", type=int, default=0, help="comments before the first chunk")
    parser.add_argument("--comment-ms", type=int, default=20, help="milliseconds between comments")
    parser.add_argument("--usage", choices=("new", "old", "none"), default="new", help="form of the usage chunk")
    parser.add_argument("--generation-404s", type=int, default=0, help="times a generation is not found at first")
    parser.add_argument("--log-length", type=int, default=2000, help="requests that /sandbox/log remembers")
    given = parser.parse_args(arguments)
    plan = Plan(
        pace_ms=given.pace_ms,
        chunks=given.chunks,
        comments=given.comments,
        comment_ms=given.comment_ms,
        usage=given.usage,
    )
    return Options(
        host=given.host,
        port=given.port,
        state=given.state,
        management_keys=given.management_key,
        inference_keys=given.inference_key,
        balance=given.balance,
        plan=plan,
        generation_404s=given.generation_404s,
        log_length=given.log_length,
    )


async def run(options: Options) -> None:
    """Serve until a signal asks to stop."""
    serving = asyncio.ensure_future(serve(options, announce))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        return


if __name__ == "__main__":
    asyncio.run(run(options_from()))

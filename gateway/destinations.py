"""Where a call goes: to OpenRouter with a key of the pool, or to another upstream with its own.

By the header X-Upstream, else by the longest mapped beginning of the model's name, else to the default, which is
the pool unless an upstream was made it. A call is never sent on to another one, which has other models and other
prices and is not whom its user trusts with the prompt, unless the operator rules so for its model (gateway/router.py).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from accounts.users import UpstreamChoice
from api_key_manager import ApiKeyManager
from billing.details import count_of
from billing.prices import DEFAULT_COMPLETION_TOKENS, MAX_CALL_NANO, ModelPrice, ModelPrices
from config.settings import Config
from config.version import USER_AGENT
from formats import form_data
from formats.body import CallBody
from formats.chat import ModelApi
from formats.registry import MODEL_APIS
from foundation import json_members, json_text
from foundation.clock import Clock
from foundation.crypto import SealBroken
from foundation.errors import BadRequest, Busy
from foundation.json_members import Text
from foundation.logs import event, hide_values
from gateway.bodies import Pieces
from gateway.retry_budget import RetryBudget
from pool.choice import PoolKey
from upstream.http import Exchange, UpstreamHttp
from upstream.reachability import Reachability
from upstream.refusal import Refusal
from upstream.refusals import Hits, Other, Row
from upstream.registry import ANY_MODEL, OPENROUTER, Upstream, Upstreams

log = logging.getLogger("upstreams")

JSON_LINE = b"Content-Type: application/json\r\n"
AWAY = {"health": "resting", "reason": "away", "until": None}


class Keys(Protocol):
    """What carries calls to a destination; `ApiKeyManager` says what each of these does."""

    def choice_of(self, user_id: int) -> UpstreamChoice | None: ...
    def is_connected(self, user_id: int) -> bool: ...
    def pick(
        self,
        tried: Collection[PoolKey] = (),
        *,
        other: Other = Other.KEY,
        free: bool = False,
        sticky: str | None = None,
        owner: int | None = None,
        choice: UpstreamChoice | None = None,
    ) -> PoolKey: ...
    def note_success(self, key: PoolKey) -> None: ...
    def note_refusal(self, key: PoolKey, refusal: Refusal, row: Row) -> None: ...
    def release(self, key: PoolKey) -> None: ...


class Prices(Protocol):
    """What calls cost, in nano-dollars."""

    def most_nano(self, call: CallBody, body_bytes: int) -> int: ...
    def estimate_nano(self, model: str, prompt_bytes: int, events: int) -> int | None: ...
    def priced_nano(self, model: str, usage: Mapping[str, Any]) -> int | None: ...


@dataclass(frozen=True)
class Destination:
    """One of them. upstream_id: None for the pool. heads: by a format's name, all but what authorizes a call."""

    name: str
    upstream_id: int | None
    keys: Keys
    http: UpstreamHttp
    heads: Mapping[str, bytes]
    prices: Prices
    first_byte_timeout: float
    idle_timeout: float
    model_prefixes: Mapping[str, str]
    reach: Reachability
    retries: RetryBudget = field(default_factory=RetryBudget)

    def close(self) -> None:
        """No call comes here any more."""
        self.reach.close()
        self.http.close()

    def exchange(self, api: ModelApi, key: PoolKey, headers: bytes, body: Pieces) -> Exchange:
        """A call, to be sent. headers: the client's that may go up."""
        if self.upstream_id is not None:
            headers = _others(headers)
        head = self.heads[api.name]
        if api.takes_forms and (border := form_data.border_of(body[0])):
            media = f'Content-Type: multipart/form-data; boundary="{border}"\r\n'
            head = head.replace(JSON_LINE, media.encode("ascii"))
        head = b"%s%s%s" % (head, key.authorization, headers)
        return self.http.exchange(head, *body, may_repeat=not api.is_job)

    def body_for(self, call: CallBody, body: Text) -> Pieces:
        """What goes up: the client's bytes, but for the model's name where it was an alias, or is another one there."""
        model = call.model
        if self.model_prefixes and (prefix := longest_prefix(model, self.model_prefixes)) is not None:
            model = self.model_prefixes[prefix] + model[len(prefix) :]
        if model == (call.asked_model or call.model):
            return (body,)
        if call.is_form:
            return form_data.replaced(body, "model", model)
        return json_members.replaced(body, "model", json_text.write(model))


def longest_prefix(model: str, prefixes: Collection[str]) -> str | None:
    """The longest of these that the model's name begins with."""
    return max(filter(model.startswith, prefixes), key=len, default=None)


def _others(headers: bytes) -> bytes:
    """Of the client's headers those that are Anthropic's; the rest are between it and OpenRouter."""
    return b"".join(line for line in headers.splitlines(keepends=True) if line.lower().startswith(b"anthropic-"))


class UpstreamPrices:
    """The prices that an operator has set for one upstream. What has no price is free as far as anybody knows."""

    def __init__(self, upstream: Upstream) -> None:
        self._prices = {
            name: ModelPrice(price.prompt, price.completion, 0) for name, price in upstream.terms.prices.items()
        }

    def _price(self, model: str) -> ModelPrice | None:
        return self._prices.get(model) or self._prices.get(ANY_MODEL)

    def most_nano(self, call: CallBody, body_bytes: int) -> int:
        """As of ModelPrices."""
        tokens = DEFAULT_COMPLETION_TOKENS if call.max_tokens is None else call.max_tokens
        prices = filter(None, map(self._price, call.names))
        return min(
            max((price.nano((body_bytes + 1) // 2, tokens, call.n) for price in prices), default=0), MAX_CALL_NANO
        )

    def estimate_nano(self, model: str, prompt_bytes: int, events: int) -> int | None:
        """As of ModelPrices; None if nobody knows."""
        price = self._price(model)
        return min(price.nano((prompt_bytes + 3) // 4, events, 1), MAX_CALL_NANO) if price else None

    def priced_nano(self, model: str, usage: Mapping[str, Any]) -> int | None:
        """What so many tokens cost; None if there is no price, or no count."""
        price = self._price(model)
        prompt, completion = (count_of(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        return None if price is None or prompt is None or completion is None else price.nano(prompt, completion, 1)


class UpstreamKey:
    """The only key of an upstream, or the lack of one, in the place of a pool.

    No refusal rests it: nobody else can be asked whether that was about the key, or only about what one caller wants.
    Operators see it until a call is answered.
    """

    def __init__(self, upstream: Upstream, text: str | None) -> None:
        self._name = upstream.terms.name
        self._key = PoolKey(upstream.id, self._name, text or "", math.inf)
        if text is None:
            self._key.authorization = b""
        self._refused_for = ""

    def choice_of(self, _user_id: int) -> None:
        """There is nothing to choose."""

    def is_connected(self, _user_id: int) -> bool:
        """The operator pays, whoever calls."""
        return False

    def pick(self, tried: Collection[PoolKey] = (), **_how: Any) -> PoolKey:
        """The key, if it is not among `tried`. Raises Busy."""
        if self._key in tried:
            raise Busy(f"The upstream {self._name} has no other key")
        return self._key

    def note_success(self, _key: PoolKey) -> None:
        """Learn that a call was answered."""
        self._refused_for = ""

    def note_refusal(self, _key: PoolKey, _refusal: Refusal, row: Row) -> None:
        """Learn from a refusal."""
        if row.hits is not Hits.NOTHING:
            self._refused_for = row.name

    def report(self) -> dict[str, Any]:
        """How it is, as health_told says."""
        if self._refused_for:
            return {"health": "suspect", "reason": self._refused_for, "until": None}
        return {"health": "ok", "reason": None, "until": None}

    def release(self, _key: PoolKey) -> None:
        """A call is over."""


class Destinations:
    """This process's copy of where calls may go."""

    def __init__(
        self,
        pool: ApiKeyManager,
        openrouter: UpstreamHttp,
        prices: ModelPrices,
        store: Upstreams,
        clock: Clock,
        config: Config,
    ) -> None:
        self._store = store
        self._clock = clock
        self._named: dict[str, Destination | None] = {}
        """Those that calls may go to, by name; None for one that can't be used."""
        self._by_prefix: dict[str, str] = {}
        self._built: dict[int, tuple[Upstream, str | None, Destination]] = {}
        attribution = {"HTTP-Referer": config.app_hostname, "X-Title": config.app_title}
        attribution["X-OpenRouter-Title"] = config.app_title
        self.openrouter = Destination(
            OPENROUTER,
            None,
            pool,
            openrouter,
            _heads(openrouter, attribution),
            prices,
            config.upstream_first_byte_timeout_seconds,
            config.upstream_idle_timeout_seconds,
            {},
            Reachability(openrouter, OPENROUTER),
        )
        self._default_name = OPENROUTER
        self._named[OPENROUTER] = self.openrouter

    def find(self, name: str) -> Destination | None:
        """The one of this name, if calls may go there."""
        return self._named.get(name)

    def choose(self, asked: str, model: str) -> Destination:
        """Where a call goes. asked: by X-Upstream, or "". Raises BadRequest if there is none, Busy if it is off."""
        name = asked or self._name_for(model)
        found = self._named.get(name)
        if found:
            return found
        if name in self._named:
            raise Busy(f"The upstream {name} is switched off at present", retry_after_seconds=60)
        raise BadRequest(f"There is no upstream named {asked[:64]!r}; leave the header X-Upstream out, or send another")

    def _name_for(self, model: str) -> str:
        by_prefix = self._by_prefix
        prefix = longest_prefix(model, by_prefix) if by_prefix else None
        return self._default_name if prefix is None else by_prefix[prefix]

    def reload(self) -> None:
        """Copy the upstreams into memory; one that has not changed keeps its health and its connections."""
        rows = self._store.rows()
        self.use(rows, self._store.keys([row.id for row in rows]))

    def use(self, rows: Sequence[Upstream], keys: Mapping[int, str | SealBroken | None]) -> None:
        """Put these upstreams in the place of those known so far. keys: by their ids."""
        hide_values(key for key in keys.values() if isinstance(key, str))
        named: dict[str, Destination | None] = {OPENROUTER: self.openrouter}
        built: dict[int, tuple[Upstream, str | None, Destination]] = {}
        by_prefix: dict[str, str] = {}
        for row in rows:
            terms, key = row.terms, keys.get(row.id)
            named[terms.name] = None
            if isinstance(key, SealBroken):  # this one only: the others' may be whole
                event(log, "upstream_unreadable", logging.ERROR, upstream=terms.name, reason=str(key))
            elif terms.is_active:
                before = self._built.get(row.id)
                is_same = before is not None and before[:2] == (row, key)
                built[row.id] = before if before and is_same else (row, key, self._build(row, key))
                named[terms.name] = built[row.id][2]
            if terms.is_active:
                by_prefix = dict.fromkeys(terms.model_prefixes, terms.name) | by_prefix  # of two, the first
        gone = [one for row_id, one in self._built.items() if built.get(row_id) is not one]
        self._named, self._by_prefix, self._built = named, by_prefix, built
        self._default_name = next((row.terms.name for row in rows if row.terms.is_default), OPENROUTER)
        for _, _, destination in gone:
            destination.close()

    def report(self) -> dict[str, dict[str, Any]]:
        """How the upstreams are that are not well: by `upstream/<id>`, as health_told says."""
        told: dict[str, dict[str, Any]] = {}
        for row_id, (_, _, to) in self._built.items():
            if isinstance(to.keys, UpstreamKey):
                told[f"upstream/{row_id}"] = AWAY if to.reach.is_away else to.keys.report()
        return {name: one for name, one in told.items() if one["health"] != "ok"}

    def close(self) -> None:
        """No calls come any more."""
        for to in (self.openrouter, *(to for _, _, to in self._built.values())):
            to.close()

    def _build(self, row: Upstream, key: str | None) -> Destination:
        terms = row.terms
        http = UpstreamHttp(terms.base_url, terms.connect_timeout_seconds, dial=self._store.guard.dial)
        return Destination(
            terms.name,
            row.id,
            UpstreamKey(row, key),
            http,
            _heads(http, {}),
            UpstreamPrices(row),
            terms.timeout_seconds,
            terms.idle_timeout_seconds,
            terms.model_prefixes,
            Reachability(http, terms.name),
        )


def _heads(http: UpstreamHttp, more: Mapping[str, str]) -> dict[str, bytes]:
    lines = {"Content-Type": "application/json", "Accept": "*/*", "Accept-Encoding": "identity"}
    lines |= {"User-Agent": USER_AGENT, **more}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("ascii")
    return {api.name: http.request_line("POST", api.path) + head for api in MODEL_APIS}

"""The data plane in this process, over real sockets: the proxy's own objects against an upstream that plays exact bytes."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accounts.caller import Caller
from api_key_manager import ApiKeyManager
from billing.call_counts import CallCounts
from billing.forecast import CostForecasts
from billing.journal import UsageJournal
from billing.meter import UsageMeter
from billing.prices import ModelPrices
from billing.quotas.rate_limits import UNLIMITED, Admission
from billing.quotas.rows import Quotas
from billing.quotas.slices import QuotaSlices
from config.settings import Config
from db import Database, database_url
from formats.chat import ModelApi
from formats.registry import CHAT
from foundation.clock import Clock
from foundation.counts import Counts
from foundation.crypto import Envelopes
from gateway.aliases import Aliases
from gateway.bodies import HeldBody
from gateway.destinations import Destinations
from gateway.model_rules import ModelRules
from gateway.request import ProxyRequest
from gateway.router import Router
from openrouter_proxy import OpenRouterProxy, ProxyAnswer
from pool.choice import PoolKey
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from tests.support.gateway import wait_for
from tests.support.scripted_upstream import ScriptedUpstream
from upstream.dial import GuardedDial
from upstream.http import UpstreamHttp
from upstream.registry import Upstreams

EVENT = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = b'{"id":"gen-1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"cost":0.000007}}'
KEEPALIVE = b": keep-alive\n\n"
numbers = itertools.count()


class WatchedPool(ApiKeyManager):
    """A pool that writes down what it is asked for and told."""

    def __init__(self, store: PoolKeys, clock: Clock) -> None:
        super().__init__(store, clock)
        self.asked: list[dict[str, Any]] = []
        self.told: list[tuple[str, str]] = []
        """What happened, to which key: picked, refused, succeeded, released."""

    def pick(self, *args: Any, **kwargs: Any) -> PoolKey:
        key = super().pick(*args, **kwargs)
        self.asked.append(dict(zip(("tried", "other", "free", "sticky"), args, strict=False)) | kwargs)
        self.told.append(("picked", key.name))
        return key

    def note_refusal(self, key: PoolKey, *args: Any) -> None:
        self.told.append(("refused", key.name))
        super().note_refusal(key, *args)

    def note_success(self, key: PoolKey) -> None:
        self.told.append(("succeeded", key.name))
        super().note_success(key)

    def release(self, key: PoolKey) -> None:
        self.told.append(("released", key.name))
        super().release(key)

    def check(self) -> None:
        """Each key that was picked was given back, and told at most once how it went."""
        count = Counter(self.told)
        for name in {name for _, name in self.told}:
            assert count["released", name] == count["picked", name], self.told
            assert count["refused", name] + count["succeeded", name] <= count["picked", name], self.told


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """An upstream that plays what it is told."""
    scripted = ScriptedUpstream()
    yield scripted
    scripted.close()


@pytest.fixture
def make_proxy(
    upstream: ScriptedUpstream, tmp_path: Path, envelopes: Envelopes, clock: Clock, migrated_file: Path
) -> Iterator[Callable[..., OpenRouterProxy]]:
    """Makes a proxy over a pool of so many keys, with settings that make waiting short."""
    closing: list[Any] = []
    pools: list[WatchedPool] = []

    def make(keys: int = 3, **settings: Any) -> OpenRouterProxy:
        defaults: dict[str, Any] = {
            "keepalive_seconds": 0.2,
            "upstream_first_byte_timeout_seconds": 5,
            "app_title": "Test",
        }
        defaults |= {"upstream_connect_timeout_seconds": 1, "quota_usd": None}
        file = shutil.copy(migrated_file, tmp_path / f"proxy-{next(numbers)}.db")
        config = Config(
            **{"openrouter_api_url": upstream.url, "database_url": f"sqlite:///{file}"} | defaults | settings
        )
        db = Database(database_url(config))
        rows = PoolKeys(db, envelopes, clock)
        pool = WatchedPool(rows, clock)
        for number in range(keys):
            rows.add(f"sk-or-v1-{number:064x}", f"key-{number}", PoolKeySource.OPERATOR)
        pool.reload()
        pools.append(pool)
        http = UpstreamHttp(config.openrouter_api_url, config.upstream_connect_timeout_seconds)
        journal = UsageJournal(tmp_path / "journal", f"process-{next(numbers)}")
        journal.check()
        journal.open()
        slices = QuotaSlices(db, journal.process_id, Quotas(db, clock, config), clock)
        prices = ModelPrices(http, tmp_path)
        closing.extend([db, http, journal])
        guard = GuardedDial(allow_private=True)
        store = Upstreams(db, envelopes, clock, guard)
        destinations = Destinations(pool, http, prices, store, clock, config)
        closing.append(destinations)
        aliases, rules = Aliases(db, clock), ModelRules(db, clock, config.max_timeout_seconds)
        forecasts = CostForecasts(db, prices)
        meter = UsageMeter(journal, slices, forecasts, CallCounts(Counts()))
        return OpenRouterProxy(destinations, Router(destinations, aliases, rules, forecasts), meter, config)

    yield make
    for one in closing:
        one.close()
    for pool in pools:
        pool.check()


def request(
    model: str = "m",
    client_is_gone: Callable[[], bool] = lambda: False,
    headers: bytes = b"",
    user_id: int = 1,
    admission: Admission = UNLIMITED,
    api: ModelApi = CHAT,
    timeout: int = 0,
    **fields: Any,
) -> ProxyRequest:
    """Somebody's call."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    caller, asked = Caller(user_id, "s", 9e9), HeldBody(body)
    return ProxyRequest(
        api, f"{next(numbers):032x}", caller, asked, headers, client_is_gone, admission, timeout=timeout
    )


def whole(answer: ProxyAnswer) -> bytes:
    """An answer's body, whole; closed as a server does."""
    try:
        return b"".join(answer.body)
    finally:
        if hasattr(answer.body, "close"):
            answer.body.close()


def last_event(body: bytes) -> Any:
    """The last event of a stream, as JSON."""
    return json.loads(body.rstrip(b"\n").rpartition(b"\n\n")[2].removeprefix(b"data: "))


def finished(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The fields of the one line that every call logs when it is over."""
    [record] = wait_for(lambda: [r for r in caplog.records if r.getMessage() == "proxied"])
    fields: dict[str, Any] = record.fields
    return fields

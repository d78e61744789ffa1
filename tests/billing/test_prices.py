"""Prices: exact, never free by rounding, never a fault, whatever the list holds; fresh, and there when OpenRouter is not."""

from __future__ import annotations

import json
import logging
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.prices import DEFAULT_COMPLETION_TOKENS, FILE_NAME, MAX_CALL_NANO, ModelPrice, ModelPrices, read_prices
from formats.body import CallBody
from tests.support.gateway import wait_for
from tests.support.rows import each_row
from tests.support.scripted_upstream import CLOSE, RESET, ScriptedUpstream, json_answer
from upstream.http import UpstreamHttp

NOBODY = "http://127.0.0.1:1/api/v1"
DOLLAR = 10**9


def model(name: str = "a/b", prompt: Any = "0.000001", completion: Any = "0.000002", **more: Any) -> dict[str, Any]:
    """An entry of the list, as OpenRouter writes it: by default 1 $ and 2 $ a million tokens."""
    pricing = {"prompt": prompt, "completion": completion, "request": "0", "image": "0"} | more.pop("pricing", {})
    limits = {"context_length": 100_000, "max_completion_tokens": 20_000, "is_moderated": False}
    entry = {"id": name, "canonical_slug": f"{name}-2026", "pricing": pricing, "top_provider": limits}
    return entry | {"context_length": 100_000} | more


def listed(*entries: Any) -> bytes:
    return json.dumps({"data": entries, "links": {"next": None}, "total_count": len(entries)}).encode()


@pytest.fixture
def prices(tmp_path: Path) -> Callable[..., ModelPrices]:
    """Prices of a list that an earlier process kept."""

    def known(*entries: Any) -> ModelPrices:
        (tmp_path / FILE_NAME).write_bytes(listed(*entries))
        made = ModelPrices(UpstreamHttp(NOBODY, 1), tmp_path)
        made.load()
        return made

    return known


def most(prices: ModelPrices, name: str = "a/b", body_bytes: int = 0, **more: Any) -> int:
    return prices.most_nano(CallBody(name, False, **more), body_bytes)


def test_one_list_is_for_prices_and_for_callers(prices, tmp_path):
    known = prices(model())
    assert json.loads(known.models.page(None).body)["data"] == [model()]
    (tmp_path / FILE_NAME).write_bytes(b"{}")
    known.load()
    assert (most(known, max_tokens=1), bool(known.models)) == (2000, True)


# ── what calls cost


def test_a_call_is_reserved_for_its_bytes_and_its_bound(prices):
    known = prices(model())
    assert most(known, body_bytes=2000, max_tokens=500) == 1000 * 1000 + 500 * 2000
    assert most(known, body_bytes=2001, max_tokens=500) == 1001 * 1000 + 500 * 2000
    assert most(known, body_bytes=2000, max_tokens=500, n=3) == 1000 * 1000 + 3 * 500 * 2000


def test_a_call_without_a_bound_counts_as_a_long_answer(prices):
    assert most(prices(model())) == DEFAULT_COMPLETION_TOKENS * 2000


def test_where_nothing_is_written_only_the_prompt_counts(prices):
    assert most(prices(model()), body_bytes=2000, max_tokens=0) == 1000 * 1000


def test_no_more_is_reserved_than_the_model_can_write_and_read(prices):
    known = prices(
        model(),
        model("short", top_provider={"max_completion_tokens": 100}),
        model("small", context_length=50, top_provider=None),
        model("boundless", context_length=None, top_provider={"max_completion_tokens": None}),
    )
    assert most(known, max_tokens=10**7) == 20_000 * 2000
    assert most(known, "short") == 100 * 2000
    assert most(known, "small", 10**6) == 50 * 1000 + 50 * 2000
    assert most(known, "boundless", max_tokens=10**6) == 10**6 * 2000
    assert most(known, body_bytes=10**8, max_tokens=1) == 100_000 * 1000 + 2000


def test_prices_below_a_nano_dollar_a_token_are_exact_and_never_free(prices):
    known = prices(model(prompt="0.00000000375", completion="0.00000000000000000001"))
    assert most(known, body_bytes=8, max_tokens=1) == 16  # 15 and a trifle
    assert most(known, body_bytes=800, max_tokens=1) == 1501
    assert most(known, max_tokens=1) == 1


def test_a_price_of_the_request_and_of_thinking_count(prices):
    known = prices(model(pricing={"request": "0.005"}), model("thinks", pricing={"internal_reasoning": "0.000003"}))
    assert most(known, max_tokens=1) == 5_000_000 + 2000
    assert most(known, "thinks", max_tokens=1) == 3000


def test_long_prompts_cost_what_the_list_says_of_them(prices):
    long = {"min_prompt_tokens": 1000, "prompt": "0.000004", "completion": "0.000009"}
    at_night = {"utc_start": 100, "utc_end": 400, "completion": "0.000001"}
    known = prices(model(pricing={"overrides": [long, at_night]}))
    assert most(known, body_bytes=2000, max_tokens=1) == 1000 * 1000 + 2000
    assert most(known, body_bytes=2002, max_tokens=1) == 1001 * 4000 + 9000


def test_the_dearest_of_a_list_to_fall_back_to_counts(prices):
    known = prices(model(), model("dear", completion="0.00001"), model("free", "0", "0"))
    assert most(known, models=("free", "dear"), max_tokens=10) == 100_000
    assert most(known, "dear", models=("free",), max_tokens=10) == 100_000
    assert most(known, "free", models=("a/b",), max_tokens=10) == 20_000
    assert most(known, "", models=("free",), max_tokens=10) == 0
    assert most(known, "", models=("free", "new"), max_tokens=10) == 250_000


@pytest.mark.parametrize(
    ("name", "each"),
    [
        ("a/b", 2000),
        ("a/b-2026", 2000),
        ("a/b:nitro", 2000),
        ("a/b:online", 2000),
        ("a/b:free", 0),
        ("new/model:free", 0),
        ("a/b:free:online", 2000),
        ("a/own:thinking", 7000),
        ("a/given", 0),
        ("new/model", 25_000),
        ("new/model:nitro", 25_000),
        ("~a/b-latest", 25_000),
        ("@preset/mine", 25_000),
        ("openrouter/auto", 25_000),
        ("", 25_000),
        (":", 25_000),
        ("A" * 10_000, 25_000),
    ],
)
def test_a_model_has_its_price_that_of_its_base_or_the_default(prices, name, each):
    known = prices(
        model(),
        model("a/b:free", "0", "0", canonical_slug="a/b-2026"),
        model("a/own", "0", "0.000001"),
        model("a/own:thinking", "0", "0.000007"),
        model("a/given", "0", "0"),
        model("openrouter/auto", "-1", "-1"),
    )
    assert most(known, name, max_tokens=10) == 10 * each


def test_a_sum_has_a_sane_maximum(prices):
    known = prices(model(completion="1", top_provider={}))
    assert most(known, max_tokens=10**7, n=128) == MAX_CALL_NANO == 100 * DOLLAR
    assert known.estimate_nano("a/b", 0, 10**9) == MAX_CALL_NANO
    assert most(ModelPrices(UpstreamHttp(NOBODY, 1), Path("none")), max_tokens=10**7, n=128) == MAX_CALL_NANO
    assert most(known, "new", max_tokens=10**7) == 131_072 * 25_000


def test_a_broken_off_answer_is_estimated_by_its_bytes_and_events(prices):
    known = prices(model(pricing={"request": "0.1"}), model("a/b:free", "0", "0"))
    assert known.estimate_nano("a/b", 4001, 30) == 1001 * 1000 + 30 * 2000 + DOLLAR // 10
    assert known.estimate_nano("a/b:free", 4000, 30) == 0
    assert known.estimate_nano("new", 4000, 30) == 1000 * 5000 + 30 * 25_000


def test_pictures_are_priced_apart_where_the_list_does(prices):
    known = prices(model("a/b", "0", "0", pricing={"image_output": "0.04"}), model("a/c", "0", "0.000001"))
    assert most(known, max_tokens=10, n=2, images=2) == 2 * DOLLAR // 25
    assert most(known, max_tokens=10) == 0
    assert most(known, "a/c", max_tokens=10, n=2, images=2) == 20_000
    dear = prices(model("a/b", "0", "0.000001", pricing={"image_token": "0.00003"}))
    assert most(dear, max_tokens=10) == 300_000


@given(
    prompt=st.decimals(0, 1, places=14),
    completion=st.decimals(0, 1, places=14),
    sizes=st.tuples(st.integers(0, 10**8), st.integers(1, 10**7), st.integers(1, 128)),
)
def test_a_sum_is_the_exact_one_rounded_up(prompt, completion, sizes):
    body_bytes, max_tokens, n = sizes
    price = read_prices(listed(model(prompt=f"{prompt:f}", completion=f"{completion:f}")))["a/b"]
    tokens = min((body_bytes + 1) // 2, 100_000), min(max_tokens, 20_000) * n
    exact = (Fraction(prompt) * tokens[0] + Fraction(completion) * tokens[1]) * DOLLAR
    assert 0 <= price.nano((body_bytes + 1) // 2, max_tokens, n) - exact < 1


def test_a_sum_takes_microseconds(prices):
    known, chat = prices(model()), CallBody("a/b", True, None, 100)
    assert min(timeit.repeat(lambda: known.most_nano(chat, 3000), number=2000, repeat=9)) / 2000 < 20e-6


# ── odd lists


ODD_PRICES = [
    "-1",
    "-0.000001",
    "NaN",
    "sNaN",
    "Infinity",
    "1e999999999",
    "200",
    "much",
    "0." + "0" * 100 + "1",
    "\ud83d",
]
ODD_PRICES += [True, [7], {"usd": 1}, -1, 1e300]


@pytest.mark.parametrize("price", ODD_PRICES, ids=repr)
@pytest.mark.parametrize("field", ["prompt", "completion", "request", "internal_reasoning"])
def test_a_model_with_an_odd_price_is_unknown_and_the_others_are_not(prices, field, price):
    known = prices(model("good"), model("odd", pricing={field: price}))
    assert most(known, "odd", max_tokens=1) == 25_000
    assert most(known, "good", max_tokens=1) == 2000


@pytest.mark.parametrize("price", [None, "", False, []], ids=repr)
@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_a_model_that_tells_no_price_is_unknown(prices, field, price):
    assert most(prices(model("good"), model("odd", pricing={field: price})), "odd", max_tokens=1) == 25_000


@pytest.mark.parametrize("text", ["1e-999999999", "1e-30", "1E-15"])
def test_a_price_too_small_to_tell_is_not_free(prices, text):
    assert most(prices(model(completion=text)), max_tokens=1) == 1


ODD_ENTRIES = [
    None,
    7,
    "text",
    [],
    {},
    {"id": "odd"},
    model(pricing={"overrides": 7}),
    model(pricing={"overrides": [7]}),
    model(pricing={"overrides": [{"min_prompt_tokens": "many"}]}),
    model(pricing={"overrides": [{"prompt": "-1"}]}),
    *[model(context_length=odd) for odd in (-1, 0, 1.5, True, "8192", 10**30, [])],
    *[model(top_provider={"max_completion_tokens": odd}) for odd in (-1, 0, "4096", 10**30, {})],
    *[model(top_provider=odd) for odd in (7, "text", [7])],
    {**model(), "pricing": None},
    {**model(), "pricing": "0"},
    *[{**model(), "id": odd} for odd in (None, 7, "", [], {})],
]


@each_row("entry", ODD_ENTRIES, ids=repr)
def test_an_odd_entry_is_left_out(entry):
    assert set(read_prices(listed(entry, model("good")))) == {"good", "good-2026"}


@each_row(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"data":null}',
        b'{"data":{}}',
        b'{"data":[]}',
        listed({}),
        b"[" * 10**6,
        b"\xff",
    ],
)
def test_what_is_no_list_of_prices_is_refused(text):
    with pytest.raises(ValueError, match=r"list|prices|JSON"):
        read_prices(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["0.1", "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["id", "canonical_slug", "context_length", "top_provider"]), JSON), JSON, JSON, JSON
)
def test_no_entry_whatever_it_is_raises_or_spoils_the_list(entry, pricing, completion, overrides):
    odd = [
        entry | {"pricing": pricing},
        entry | {"pricing": {"prompt": "0", "completion": completion, "overrides": overrides}},
    ]
    found = read_prices(listed(model("good"), *odd))
    assert found["good"] == ModelPrice(10**9, 2 * 10**9, 0, 100_000, 20_000)
    assert all(price.nano(1000, 1000, 1) >= 0 for price in found.values())


# ── keeping fresh


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    yield scripted
    scripted.close()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "prices"]


def test_the_stand_ins_list_is_read_and_kept_for_a_start_without_openrouter(stand_in, tmp_path):
    first = ModelPrices(UpstreamHttp(stand_in.address, 1), tmp_path / "new" / "folder")
    assert most(first, "openai/gpt-4o-mini", max_tokens=1) == 25_000
    assert first.refresh() == 3600
    assert most(first, "openai/gpt-4o-mini", max_tokens=1) == 600
    second = ModelPrices(UpstreamHttp(NOBODY, 1), tmp_path / "new" / "folder")
    second.load()
    assert second.refresh() == 5
    assert most(second, "openai/gpt-4o-mini", 2, max_tokens=1) == 150 + 600
    assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == [FILE_NAME]


def test_without_an_answer_it_asks_again_soon_then_less_often_and_says_so_once(upstream, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    known = ModelPrices(UpstreamHttp(upstream.url, 1), tmp_path)
    assert [known.refresh() for _ in range(3)] == [5, 10, 20]
    assert [known.refresh() for _ in range(30)][-1] == 3600
    upstream.play("", json_answer("200 OK", listed(model())))
    assert known.refresh() == 3600
    assert most(known, max_tokens=1) == 2000
    upstream.play("", json_answer("500 Oops", b"{}"))
    assert known.refresh() == 5
    assert events(caplog) == ["model_prices_unavailable", "model_prices_known", "model_prices_unavailable"]


@pytest.mark.parametrize(
    "steps",
    [
        [json_answer("500 Oops", listed(model("new")))],
        [json_answer("307 Elsewhere", listed(model("new")), "Location: /\r\n")],
        [json_answer("200 OK", b'{"data":[]}')],
        [json_answer("200 OK", b"not json")],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", CLOSE],
        [RESET],
    ],
)
def test_what_is_known_stays_when_openrouter_says_nothing_useful(upstream, prices, tmp_path, steps):
    prices(model())
    known = ModelPrices(UpstreamHttp(upstream.url, 1), tmp_path)
    known.load()
    upstream.play("", *steps)
    assert known.refresh() == 5
    assert most(known, max_tokens=1) == 2000
    assert (tmp_path / FILE_NAME).read_bytes() == listed(model())


@pytest.mark.parametrize("text", [b"", b"{", b"\x00" * 100, listed(), b'{"data":[{"id":7}]}'])
def test_a_damaged_file_is_as_good_as_none(tmp_path, caplog, text):
    (tmp_path / FILE_NAME).write_bytes(text)
    known = ModelPrices(UpstreamHttp(NOBODY, 1), tmp_path)
    known.load()
    assert most(known, max_tokens=1) == 25_000
    assert events(caplog) == ["kept_prices_unusable"]


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_next_start(stand_in, tmp_path, caplog):
    (tmp_path / "file").touch()
    known = ModelPrices(UpstreamHttp(stand_in.address, 1), tmp_path / "file")
    known.load()
    assert known.refresh() == 3600
    assert most(known, "openai/gpt-4o-mini", max_tokens=1) == 600
    assert events(caplog)[-1] == "model_prices_not_kept"


def test_processes_that_keep_the_list_at_once_leave_one_whole_file(stand_in, tmp_path):
    threads = [
        threading.Thread(target=ModelPrices(UpstreamHttp(stand_in.address, 1), tmp_path).refresh) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]
    assert "openai/gpt-4o-mini" in read_prices((tmp_path / FILE_NAME).read_bytes())


def test_it_runs_until_told_to_stop_and_outlives_faults(stand_in, tmp_path, caplog):
    known = ModelPrices(UpstreamHttp(stand_in.address, 1), tmp_path)
    refresh, calls = known.refresh, []

    def fail_at_first() -> float:
        calls.append(time.monotonic())
        if len(calls) == 1:
            return 0.01
        if len(calls) == 2:
            raise KeyError("a fault")
        return refresh()

    known.refresh = fail_at_first
    stopping = threading.Event()
    thread = threading.Thread(target=known.run, args=(stopping,))
    thread.start()
    wait_for(lambda: len(calls) == 2)
    stopping.set()
    thread.join(60)
    assert not thread.is_alive()
    assert events(caplog) == ["background_fault"]


def test_the_price_that_the_list_says_is_found_and_none_is_made_up(prices):
    known = prices(model())
    found = known.find("a/b")
    assert found
    assert (found.prompt, found.completion) == (DOLLAR, 2 * DOLLAR)
    assert known.find("a/unknown") is None

"""The lists of models over HTTP: OpenRouter's own, its filters, and what a caller may use of them."""

from __future__ import annotations

import pytest
import requests

from tests.support.gateway import Gateway, refusal_of, wait_for
from tests.support.lazily import Lazily
from tests.support.reads import data_of, get
from tests.support.rows import each_row

openai = Lazily("openai")

ALIASES = ["/v1", "/api/v1"]
MODEL = "openai/gpt-4o-mini"


def ids(served: Gateway, path: str, token: str) -> list[str]:
    return [model["id"] for model in data_of(served, path, token)]


@pytest.mark.parametrize("alias", ALIASES)
def test_models_are_those_of_openrouter(served, stand_in, alias):
    theirs = stand_in.call("GET", "/models").json()
    answer = served.get(f"{alias}/models", served.new_user())
    assert answer.json() == theirs
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_the_known_list_is_not_sent_again(served):
    token = served.new_user()
    etag = served.get("/v1/models", token).headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = get(served, "/v1/models", token, **{"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    assert get(served, "/v1/models", token, **{"If-None-Match": '"other"'}).status_code == 200


ALL = "output_modalities=all&"


@each_row(
    ("query", "found"),
    [
        ("q=GPT-4O-mini", [MODEL]),
        ("q=claude", ["anthropic/claude-sonnet-4.6"]),
        ("q=no-such-model", []),
        ("supported_parameters=tools&q=gpt-4o-mini", [MODEL]),
        ("supported_parameters=tools,no_such", []),
        ("input_modalities=image", []),
        ("model_authors=deepseek,google", ["google/gemini-2.5-flash", "deepseek/deepseek-chat"]),
        ("arch=claude", ["anthropic/claude-sonnet-4.6"]),
        ("context=1000000", ["google/gemini-2.5-flash"]),
        ("min_price=3", ["anthropic/claude-sonnet-4.6"]),
        ("max_price=0", ["meta-llama/llama-3.3-70b-instruct:free"]),
        ("min_output_price=10&max_output_price=14.99", ["openai/gpt-4o"]),
        ("min_age_days=100000", []),
        ("max_price=0.2&sort=pricing-high-to-low&model_authors=openai,deepseek", ["deepseek/deepseek-chat", MODEL]),
        ("sort=pricing-low-to-high&model_authors=openai", [MODEL, "openai/gpt-4o"]),
        ("sort=context-high-to-low&limit=1", ["google/gemini-2.5-flash"]),
        ("category=programming", ["openai/gpt-4o", "anthropic/claude-sonnet-4.6"]),
        ("category=programming&q=claude", ["anthropic/claude-sonnet-4.6"]),
        ("zdr=true", ["anthropic/claude-sonnet-4.6", "google/gemini-2.5-flash"]),
        ("providers=DeepSeek", ["deepseek/deepseek-chat"]),
        ("zdr=true&sort=throughput-high-to-low", ["google/gemini-2.5-flash", "anthropic/claude-sonnet-4.6"]),
        (f"{ALL}q=embedding", ["openai/text-embedding-3-small"]),
        ("of_openrouters_one_day=1&q=claude", ["anthropic/claude-sonnet-4.6"]),
    ],
)
def test_every_filter_of_openrouters_works(served, token, query, found):
    assert ids(served, f"/v1/models?{query}", token) == found
    assert ids(served, f"/api/v1/models?{query}", token) == found


@each_row(
    ("query", "accepted"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("offset=-1", "offset"),
        ("offset=1_0", "offset"),
        ("sort=cheapest", "pricing-low-to-high"),
        ("category=cooking", "programming"),
        ("min_price=-1", "min_price"),
        ("min_price=NaN", "min_price"),
        ("max_price=1e3", "max_price"),
        ("context=0", "context"),
        ("zdr=yes", "zdr"),
        ("region=cn", "region"),
        ("min_tool_success_rate=1.1", "min_tool_success_rate"),
        ("use_rss=true", "use_rss"),
        ("q=a&q=b", "q is given more than once"),
    ],
)
def test_what_openrouter_would_not_take_is_refused_and_not_asked_for(served, stand_in, token, query, accepted):
    stand_in.control("DELETE", "log")
    answer = served.get(f"/v1/models?{query}", token)
    assert answer.status_code == 400
    assert accepted in refusal_of(answer)
    asked = stand_in.control("GET", "log")["requests"]
    assert [one for one in asked if "models" in one["path"]] == []


def test_a_page_says_where_the_filtered_list_goes_on(served, token):
    first = served.get("/v1/models?model_authors=openai&limit=1", token).json()
    assert first["total_count"] == 2
    assert first["links"]["next"] == "/api/v1/models?model_authors=openai&offset=1&limit=1"
    second = served.get(first["links"]["next"], token).json()
    assert [one["id"] for one in first["data"] + second["data"]] == [MODEL, "openai/gpt-4o"]
    assert second["links"]["next"] is None


@each_row("alias", ALIASES)
def test_counts_and_kinds_are_those_that_one_may_use(served, stand_in, token, alias):
    assert data_of(served, f"{alias}/models/count", token)["count"] == len(ids(served, "/v1/models", token))
    every = ids(served, "/v1/models?output_modalities=all", token)
    assert data_of(served, f"{alias}/models/count?output_modalities=all", token)["count"] == len(every)
    assert ids(served, f"{alias}/models/user", token) == every
    assert ids(served, f"{alias}/models/user?offset=1&limit=1", token) == every[1:2]
    assert served.get(f"{alias}/embeddings/models", token).json() == stand_in.call("GET", "/embeddings/models").json()


def test_a_client_key_counts_and_lists_its_own_models(served, token):
    made = served.post("/api/api-keys", {"name": "k", "models": ["openai/gpt-4o*"]}, token).json()["key"]
    assert data_of(served, "/v1/models/count?output_modalities=all", made)["count"] == 2
    assert ids(served, "/v1/models/user", made) == [MODEL, "openai/gpt-4o"]
    assert ids(served, "/v1/embeddings/models", made) == []
    assert ids(served, "/v1/models?category=programming", made) == ["openai/gpt-4o"]


def test_heads_and_options_of_every_read_answer(served, token):
    reads = ["models", "models/count", "models/user", f"models/{MODEL}/endpoints", f"model/{MODEL}", "providers"]
    reads += ["embeddings/models", "images/models", "videos/models", "endpoints/zdr", "credits", "key"]
    for path in (f"{alias}/{read}" for alias in ALIASES for read in reads):
        bearer = {"Authorization": f"Bearer {token}"}
        whole, head = (
            requests.request(method, served.url + path, headers=bearer, timeout=30) for method in ("GET", "HEAD")
        )
        assert (whole.status_code, head.status_code, head.content) == (200, 200, b""), path
        assert head.headers["Content-Length"] == str(len(whole.content)), path
        options = served.ask("OPTIONS", path)
        assert (options.status_code, set(options.headers["Allow"].split(", "))) == (200, {"GET", "HEAD", "OPTIONS"})


def test_openais_client_lists_and_retrieves(served):
    with openai.OpenAI(api_key=served.new_user(), base_url=f"{served.url}/v1", max_retries=0) as client:
        assert MODEL in [model.id for model in client.models.list()]
        found = client.models.retrieve(MODEL)
        with pytest.raises(openai.NotFoundError, match="no such model"):
            client.models.retrieve("openai/none")
    assert (found.id, found.object, found.owned_by) == (MODEL, "model", "openai")
    assert data_of(served, f"/v1/model/{MODEL}", served.new_user())["id"] == MODEL


def test_the_list_outlives_openrouter_and_a_restart(billing):
    first = billing.gateway(folder=billing.folder / "kept")
    known = first.get("/v1/models", first.new_user()).content
    first.stop()
    again = billing._start(
        OPENROUTER_API_URL="http://127.0.0.1:1/api/v1",
        DATABASE_URL=first.settings["DATABASE_URL"],
        DATA_DIR=billing.folder / "kept",
        **billing._secrets,
    )
    token = again.new_user()
    found = wait_for(lambda: (answer := again.get("/v1/models", token)).status_code == 200 and answer.content)
    assert found == known
    again.stop()


def test_before_the_first_list_the_client_is_asked_for_patience(billing, tmp_path):
    new = billing._start(
        OPENROUTER_API_URL="http://127.0.0.1:1/api/v1", DATABASE_URL=f"sqlite:///{tmp_path}/y.db", **billing._secrets
    )
    answer = new.get("/v1/models", new.new_user())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "not been fetched" in refusal_of(answer)
    new.stop()

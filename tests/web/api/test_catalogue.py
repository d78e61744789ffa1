"""What OpenRouter publishes, read through the gateway: faithful, asked for seldom, without what a key may not use."""

from __future__ import annotations

from tests.sandbox.conftest import Running
from tests.support.rows import each_row

PICTURES = "bytedance-seed/seedream-4.5"
READS = [
    "/providers",
    "/endpoints/zdr",
    "/images/models",
    "/videos/models",
    "/models/openai/gpt-4o-mini/endpoints",
    "/models/openai/gpt-4o-mini-2024-07-18/endpoints",
    "/models/meta-llama/llama-3.3-70b-instruct:free/endpoints",
    f"/images/models/{PICTURES}/endpoints",
]


def asked(stand_in: Running, path: str) -> int:
    return sum(one["path"].endswith(path) for one in stand_in.control("GET", "log")["requests"])


@each_row("path", READS)
def test_what_openrouter_publishes_comes_as_it_is_and_is_asked_for_once(served, stand_in, token, path):
    stand_in.control("DELETE", "log")
    answers = [served.get(base + path, token) for base in ("/v1", "/api/v1", "/v1")]
    assert asked(stand_in, path) <= 1
    theirs = stand_in.call("GET", path).json()
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, theirs)] * 3
    for stranger in (None, "not-a-token"):
        assert served.get(f"/v1{path}", stranger).status_code == 401


@each_row(
    "path",
    [
        "/models/openai/none/endpoints",
        "/models/endpoints",
        "/models/../keys/endpoints",
        "/models/openai%2F..%2F..%2Fkeys/endpoints",
        "/images/models/openai/none/endpoints",
    ],
)
def test_what_is_no_model_is_not_asked_for(served, stand_in, token, path):
    stand_in.control("DELETE", "log")
    answer = served.get(f"/v1{path}", token)
    assert answer.status_code == 404
    assert asked(stand_in, "/endpoints") == 0


def test_a_key_sees_what_concerns_its_models(served, token):
    made = served.post("/api/api-keys", {"name": "k", "models": ["google/*", PICTURES]}, token).json()["key"]
    zdr, pictures = (served.get(f"/v1/{path}", made).json()["data"] for path in ("endpoints/zdr", "images/models"))
    assert [one["model_id"] for one in zdr] == ["google/gemini-2.5-flash", "google/veo-3.1"]
    assert [one["id"] for one in pictures] == [PICTURES]
    assert len(served.get("/v1/endpoints/zdr", token).json()["data"]) == 3
    for path in ("/models/openai/gpt-4o/endpoints", "/images/models/openai/gpt-image-1/endpoints"):
        assert served.get(f"/v1{path}", made).status_code == 404
        assert served.get(f"/v1{path}", token).status_code == 200


def test_openrouters_refusals_are_told_in_our_words_and_others_go_on(served, stand_in, token):
    known = "/models/anthropic/claude-sonnet-4.6/endpoints"
    assert served.get(f"/v1{known}", token).status_code == 200
    rows = {"502": 502, "429c": 503, "401b": 502}
    models = ["google/gemini-2.5-flash", "deepseek/deepseek-chat", "google/veo-3.1"]
    for (row, status), model in zip(rows.items(), models, strict=True):
        path = f"/models/{model}/endpoints"
        stand_in.control("POST", "faults", row=row, path=path, times=1)
        answer = served.get(f"/v1{path}", token)
        assert answer.status_code == status, row
        assert answer.json()["message"].startswith("OpenRouter ")
        assert served.get(f"/v1{known}", token).status_code == 200
        stand_in.control("DELETE", "faults")


def test_asking_openrouter_counts_as_a_request(billing):
    limited = billing.gateway(RATE_LIMIT_USER_RPM=2)
    token = limited.new_user()
    paths = ["/providers", "/providers", "/providers", "/endpoints/zdr", "/images/models"]
    assert [limited.get(f"/v1{path}", token).status_code for path in paths] == [200, 200, 200, 200, 429]
    limited.stop()

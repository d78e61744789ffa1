"""What the stand-in publishes has the fields that OpenRouter's document requires."""

from __future__ import annotations

from tests.sandbox.conftest import Running


def test_what_is_published_is_in_openrouters_form(stand_in: Running) -> None:
    def of(path: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = stand_in.call("GET", path).json()["data"]
        return found

    assert {"name", "slug", "privacy_policy_url"} <= of("/providers")[0].keys()
    assert {one["model_id"] for one in of("/endpoints/zdr")} >= {"google/gemini-2.5-flash"}
    assert {one["id"] for one in of("/images/models")} == {"bytedance-seed/seedream-4.5", "openai/gpt-image-1"}
    assert [one["id"] for one in of("/videos/models")] == ["google/veo-3.1"]


def test_endpoints_are_those_of_one_model(stand_in: Running) -> None:
    for name in ("openai/gpt-4o", "openai/gpt-4o-2024-11-20"):
        found = stand_in.call("GET", f"/models/{name}/endpoints").json()["data"]
        assert (found["id"], found["endpoints"][0]["provider_name"]) == ("openai/gpt-4o", "OpenAI")
    assert stand_in.call("GET", "/models/openai/none/endpoints").status_code == 404
    assert stand_in.call("GET", "/images/models/openai/gpt-4o/endpoints").status_code == 404
    assert stand_in.call("GET", "/images/models/openai/gpt-image-1/endpoints").json()["id"] == "openai/gpt-image-1"

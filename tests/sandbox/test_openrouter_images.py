"""Pictures of the stand-in, as OpenRouter's own client reads them."""

import base64
import json

import openrouter
import pytest

MODEL = "openai/gpt-image-1"


@pytest.fixture
def draw(stand_in):
    key = stand_in.new_key()["key"]
    return lambda **more: stand_in.call("POST", "/images", key, json={"model": MODEL, "prompt": "Hello"} | more)


def test_openrouters_client_gets_pictures(stand_in):
    with openrouter.OpenRouter(api_key=stand_in.new_key()["key"], server_url=stand_in.address) as client:
        answer = client.images.generate(model=MODEL, prompt="Hello", n=2)
    assert [base64.b64decode(one.b64_json)[:4] for one in answer.data] == [b"\x89PNG"] * 2
    assert answer.usage.cost > 0


def test_only_some_models_stream(draw):
    *previews, completed, done = draw(stream=True).text.strip().split("\n\n")
    assert {json.loads(one[6:])["type"] for one in previews} == {"image_generation.partial_image"}
    assert json.loads(completed[6:])["usage"]["cost"] > 0
    assert done == "data: [DONE]"
    whole = draw(stream=True, model="bytedance-seed/seedream-4.5")
    assert whole.headers["content-type"] == "application/json"
    assert whole.json()["data"]


@pytest.mark.parametrize("wrong", [{"prompt": ""}, {"prompt": None}, {"n": 0}, {"n": 11}, {"stream": 1}])
def test_what_cannot_be_drawn_is_refused(draw, wrong):
    assert draw(**wrong).status_code == 400

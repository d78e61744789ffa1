"""Embeddings of the stand-in, as OpenAI's and OpenRouter's own clients read them."""

import base64
import struct

import pytest

from tests.support.lazily import Lazily

openai = Lazily("openai")

MODEL = "openai/text-embedding-3-small"


@pytest.fixture
def embed(stand_in):
    key = stand_in.new_key()["key"]
    return lambda **more: stand_in.call("POST", "/embeddings", key, json={"model": MODEL, "input": "Hello"} | more)


def test_openais_client_gets_the_same_vectors_however_they_are_written(stand_in):
    with openai.OpenAI(api_key=stand_in.new_key()["key"], base_url=stand_in.address) as client:
        packed = client.embeddings.create(model=MODEL, input=["a", "b"])  # asks for base64
        plain = client.embeddings.create(model=MODEL, input="b", encoding_format="float", dimensions=8)
    assert [one.index for one in packed.data] == [0, 1]
    assert packed.data[0].embedding != packed.data[1].embedding
    assert len(packed.data[0].embedding) == 1536
    assert plain.data[0].embedding == packed.data[1].embedding[:8]
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 8


def test_base64_is_of_32_bit_numbers(embed):
    text = embed(encoding_format="base64", dimensions=3).json()["data"][0]["embedding"]
    assert list(struct.unpack("<3f", base64.b64decode(text))) == embed(dimensions=3).json()["data"][0]["embedding"]


@pytest.mark.parametrize(
    ("given", "count"), [(["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ([{"content": []}], 1)]
)
def test_texts_tokens_and_parts_are_embedded(embed, given, count):
    assert len(embed(input=given, dimensions=1).json()["data"]) == count


@pytest.mark.parametrize(
    "wrong",
    [{"input": None}, {"input": []}, {"input": 5}, {"dimensions": 0}, {"dimensions": "8"}, {"encoding_format": "hex"}],
)
def test_what_cannot_be_embedded_is_refused(embed, wrong):
    assert embed(**wrong).status_code == 400


def test_a_chat_model_does_not_embed(embed):
    assert embed(model="openai/gpt-4o-mini").status_code in (400, 404)
    assert embed().json()["id"].startswith("gen-emb-")

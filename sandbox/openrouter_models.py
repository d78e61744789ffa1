"""The models that the stand-in offers, with their prices, and the endpoints that list them in OpenRouter's form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sandbox.http_server import Reply
from sandbox.openrouter_accounts import dollar_text
from sandbox.openrouter_endpoint import Call, as_json, whole_number
from sandbox.openrouter_faults import Refused, bad_request
from sandbox.openrouter_scenarios import MODEL_PREFIX

VARIANTS = ("nitro", "floor", "exacto", "online", "thinking", "extended")
DEFAULT_MODEL = "openai/gpt-4o-mini"
DEFAULT_EMBEDDING_MODEL = "openai/text-embedding-3-small"
PROGRAMMERS = {"anthropic/claude-sonnet-4.6", "openai/gpt-4o"}  # the models of the category `programming`
# What a format's models answer with; those of all others write text.
OUTPUTS = {
    "embeddings": "embeddings",
    "rerank": "rerank",
    "images": "image",
    "speech": "speech",
    "transcriptions": "transcription",
    "videos": "video",
}


@dataclass(frozen=True, slots=True)
class Model:
    """A model with prices in nano-dollars per token."""

    id: str
    canonical_slug: str
    name: str
    provider: str
    prompt_nano: int
    completion_nano: int
    context_length: int
    max_completion_tokens: int
    tokenizer: str
    output: str = "text"  # or one of OUTPUTS
    request_nano: int = 0  # of each call, beside its tokens

    @property
    def keeps_nothing(self) -> bool:
        """Tell whether its provider has zero data retention."""
        return self.provider in {"Amazon Bedrock", "Google"}

    @property
    def is_free(self) -> bool:
        return self.id.endswith(":free")

    def listed(self) -> dict[str, Any]:
        """Return the entry of the model in `GET /models`."""
        return {
            "id": self.id,
            "canonical_slug": self.canonical_slug,
            "hugging_face_id": None,
            "name": self.name,
            "created": 1_760_000_000,
            "description": f"{self.name}, as the stand-in for OpenRouter offers it.",
            "context_length": self.context_length,
            "architecture": {
                "modality": f"text->{self.output}",
                "input_modalities": ["text"],
                "output_modalities": [self.output],
                "tokenizer": self.tokenizer,
                "instruct_type": None,
            },
            "pricing": {
                "prompt": dollar_text(self.prompt_nano).decode(),
                "completion": dollar_text(self.completion_nano).decode(),
                "request": dollar_text(self.request_nano).decode(),
                "image": "0",
            },
            "top_provider": {
                "context_length": self.context_length,
                "max_completion_tokens": self.max_completion_tokens,
                "is_moderated": False,
            },
            "per_request_limits": None,
            "supported_parameters": [
                "max_tokens",
                "response_format",
                "stop",
                "structured_outputs",
                "temperature",
                "tool_choice",
                "tools",
            ],
            "default_parameters": {"temperature": None, "top_p": None, "frequency_penalty": None},
            "supported_voices": None,
            "expiration_date": None,
            "links": {"details": f"/api/v1/models/{self.canonical_slug}/endpoints"},
        }


MODELS = {
    model.id: model
    for model in (
        Model(
            "openai/gpt-4o-mini",
            "openai/gpt-4o-mini-2024-07-18",
            "OpenAI: GPT-4o-mini",
            "OpenAI",
            150,
            600,
            128_000,
            16_384,
            "GPT",
        ),
        Model(
            "openai/gpt-4o",
            "openai/gpt-4o-2024-11-20",
            "OpenAI: GPT-4o",
            "OpenAI",
            2500,
            10_000,
            128_000,
            16_384,
            "GPT",
        ),
        Model(
            "anthropic/claude-sonnet-4.6",
            "anthropic/claude-4.6-sonnet-20260217",
            "Anthropic: Claude Sonnet 4.6",
            "Amazon Bedrock",
            3000,
            15_000,
            200_000,
            64_000,
            "Claude",
        ),
        Model(
            "google/gemini-2.5-flash",
            "google/gemini-2.5-flash",
            "Google: Gemini 2.5 Flash",
            "Google",
            300,
            2500,
            1_048_576,
            65_535,
            "Gemini",
        ),
        Model(
            "deepseek/deepseek-chat",
            "deepseek/deepseek-chat-v3",
            "DeepSeek: DeepSeek V3",
            "DeepSeek",
            200,
            800,
            64_000,
            8192,
            "DeepSeek",
        ),
        Model(
            "meta-llama/llama-3.3-70b-instruct:free",
            "meta-llama/llama-3.3-70b-instruct",
            "Meta: Llama 3.3 70B Instruct (free)",
            "Chutes",
            0,
            0,
            131_072,
            4096,
            "Llama3",
        ),
        Model(
            DEFAULT_EMBEDDING_MODEL,
            DEFAULT_EMBEDDING_MODEL,
            "OpenAI: Text Embedding 3 Small",
            "OpenAI",
            20,
            0,
            8192,
            0,
            "GPT",
            "embeddings",
        ),
        Model(
            "cohere/rerank-v3.5",
            "cohere/rerank-v3.5",
            "Cohere: Rerank v3.5",
            "Cohere",
            0,
            0,
            4096,
            0,
            "Cohere",
            "rerank",
            1_000_000,
        ),
        Model(
            "bytedance-seed/seedream-4.5",
            "bytedance-seed/seedream-4.5",
            "ByteDance Seed: Seedream 4.5",
            "Seed",
            0,
            3_000_000,
            4096,
            0,
            "Other",
            "image",
        ),
        Model(
            "openai/whisper-large-v3",
            "openai/whisper-large-v3",
            "OpenAI: Whisper Large V3",
            "OpenAI",
            6000,
            0,
            448,
            0,
            "Other",
            "transcription",
        ),
        Model(
            "mistralai/voxtral-mini-tts-2603",
            "mistralai/voxtral-mini-tts-2603",
            "Mistral: Voxtral Mini TTS",
            "Mistral",
            15_000,
            0,
            4096,
            0,
            "Mistral",
            "speech",
        ),
        Model(
            "openai/gpt-image-1",
            "openai/gpt-image-1",
            "OpenAI: GPT Image 1",
            "OpenAI",
            5000,
            40_000,
            400_000,
            4096,
            "GPT",
            "image",
        ),
        Model(
            "google/veo-3.1",
            "google/veo-3.1",
            "Google: Veo 3.1",
            "Google",
            0,
            0,
            4096,
            0,
            "Other",
            "video",
        ),
        Model("sandbox/stream", "sandbox/stream", "Stand-in: scenarios", "Sandbox", 1000, 2000, 128_000, 4096, "Other"),
    )
}


def find_model(name: str, api: str = "chat") -> Model | None:
    """Return the model with this name, if it serves the format; suffixes that name a way of routing do not count."""
    if name.startswith(MODEL_PREFIX):
        return MODELS["sandbox/stream"]
    author_and_slug, _, variant = name.partition(":")
    found = MODELS.get(author_and_slug if variant in VARIANTS else name)
    return found if found and found.output == OUTPUTS.get(api, "text") else None


def is_known_without_variant(name: str) -> bool:
    """Tell whether the model exists, though not in the variant that the name asks for."""
    return name.partition(":")[0] in {known.partition(":")[0] for known in MODELS}


def listed_models(
    output: str, offset: int, limit: int | None, chosen: Callable[[Model], bool] = lambda _: True
) -> dict[str, Any]:
    """Return the answer to `GET /models`, or one page of it. output: `text`, one of OUTPUTS, or `all`."""
    models = [model.listed() for model in MODELS.values() if output in ("all", model.output) and chosen(model)]
    end = len(models) if limit is None else offset + limit
    following = f"/api/v1/models?offset={end}&limit={limit}" if end < len(models) else None
    return {"data": models[offset:end], "links": {"next": following}, "total_count": len(models)}


def list_models(call: Call) -> Reply:
    query = call.query()
    limit = whole_number("limit", query["limit"]) if "limit" in query else None
    if limit is not None and not 1 <= limit <= 1000:
        raise bad_request("limit: Invalid input: expected number from 1 to 1000")
    output = query.get("output_modalities") or "text"
    offset = whole_number("offset", query.get("offset") or "0")
    found = listed_models(output, offset, limit, lambda model: _is_chosen(model, query))
    if query.get("sort") == "throughput-high-to-low":
        found["data"].reverse()
    return as_json(found)


def _is_chosen(model: Model, query: dict[str, str]) -> bool:
    """Tell what an entry does not say: the category, who serves it, and whether that keeps anything."""
    providers = query.get("providers")
    return (
        ("category" not in query or model.id in PROGRAMMERS)
        and (not providers or model.provider in providers.split(","))
        and ("zdr" not in query or model.keeps_nothing)
    )


def list_embedding_models(_: Call) -> Reply:
    return as_json(listed_models("embeddings", 0, None))


def get_model(call: Call) -> Reply:
    """Return one model; the path says `model`, not `models`."""
    model = MODELS.get(call.rest)
    if model is None:
        raise Refused("404")
    return as_json({"data": model.listed()})


def count_models(_: Call) -> Reply:
    return as_json({"data": {"count": len(MODELS)}})

"""What the stand-in publishes beside its list of models: providers, endpoints, models for pictures and films."""

from __future__ import annotations

from typing import Any

from sandbox.http_server import Reply
from sandbox.openrouter_accounts import dollar_text
from sandbox.openrouter_endpoint import Call, as_json
from sandbox.openrouter_faults import Refused
from sandbox.openrouter_models import MODELS, Model

RESOLUTION = {"resolution": {"type": "enum", "values": ["1K", "2K", "4K"]}}


def list_providers(_: Call) -> Reply:
    names = sorted({model.provider for model in MODELS.values()})
    return as_json({"data": [_provider(name) for name in names]})


def list_endpoints(call: Call) -> Reply:
    """Return who serves a model; it may be named by its slug with the date, as its own link does."""
    model = _named(call.rest.removesuffix("/endpoints"))
    entry = model.listed()
    told = {name: entry[name] for name in ("id", "name", "created", "description", "architecture")}
    return as_json({"data": told | {"endpoints": [_endpoint(model)]}})


def list_endpoints_zdr(_: Call) -> Reply:
    return as_json({"data": [_endpoint(model) for model in MODELS.values() if model.keeps_nothing]})


def list_image_models(_: Call) -> Reply:
    return as_json({"data": [_image_model(model) for model in MODELS.values() if model.output == "image"]})


def list_image_endpoints(call: Call) -> Reply:
    model = _named(call.rest.removesuffix("/endpoints"))
    if model.output != "image":
        raise Refused("404")
    endpoint = {
        "provider_name": model.provider,
        "provider_slug": _slug(model.provider),
        "provider_tag": _slug(model.provider),
        "supported_parameters": RESOLUTION,
        "allowed_passthrough_parameters": [],
        "supports_streaming": False,
        "pricing": [{"billable": "output_image", "cost_usd": 0.04, "unit": "image"}],
    }
    return as_json({"id": model.id, "endpoints": [endpoint]})


def list_video_models(_: Call) -> Reply:
    return as_json({"data": [_video_model(model) for model in MODELS.values() if model.output == "video"]})


def _named(name: str) -> Model:
    found = next((model for model in MODELS.values() if name in (model.id, model.canonical_slug)), None)
    if found is None:
        raise Refused("404")
    return found


def _slug(provider: str) -> str:
    return provider.lower().replace(" ", "-")


def _provider(name: str) -> dict[str, Any]:
    site = f"https://{_slug(name)}.example"
    return {
        "name": name,
        "slug": _slug(name),
        "privacy_policy_url": f"{site}/privacy",
        "terms_of_service_url": f"{site}/terms",
        "status_page_url": None,
        "headquarters": "US",
        "datacenters": ["US"],
    }


def _endpoint(model: Model) -> dict[str, Any]:
    entry = model.listed()
    prices = {"prompt": model.prompt_nano, "completion": model.completion_nano, "request": model.request_nano}
    return {
        "name": f"{model.provider} | {model.canonical_slug}",
        "model_id": model.canonical_slug,
        "model_name": model.name,
        "provider_name": model.provider,
        "tag": _slug(model.provider),
        "context_length": model.context_length,
        "max_completion_tokens": model.max_completion_tokens,
        "max_prompt_tokens": None,
        "pricing": {name: dollar_text(nano).decode() for name, nano in prices.items()} | {"discount": 0},
        "quantization": "unknown",
        "status": 0,
        "supported_parameters": entry["supported_parameters"],
        "supports_implicit_caching": False,
        "supports_voice_cloning": False,
        "uptime_last_5m": None,
        "uptime_last_30m": 99.5,
        "uptime_last_1d": None,
        "latency_last_30m": None,
        "throughput_last_30m": None,
    }


def _image_model(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "name": model.name,
        "description": f"{model.name}, as the stand-in for OpenRouter offers it.",
        "created": 1_760_000_000,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["image"]},
        "supported_parameters": RESOLUTION,
        "supports_streaming": False,
        "endpoints": f"/api/v1/images/models/{model.id}/endpoints",
    }


def _video_model(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "canonical_slug": model.canonical_slug,
        "name": model.name,
        "description": f"{model.name}, as the stand-in for OpenRouter offers it.",
        "created": 1_760_000_000,
        "hugging_face_id": None,
        "generate_audio": True,
        "pricing_skus": {"duration_seconds": "0.05"},
        "seed": None,
        "creativity": None,
        "upscale_factor": None,
        "supported_aspect_ratios": ["16:9", "9:16"],
        "supported_durations": [4, 8],
        "supported_frame_images": ["first_frame", "last_frame"],
        "supported_resolutions": ["720p", "1080p"],
        "supported_sizes": None,
        "allowed_passthrough_parameters": [],
    }

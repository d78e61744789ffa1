"""The formats in which models are called, by the names that scopes of client keys have."""

from __future__ import annotations

import time
from typing import Any

from formats import body
from formats.chat import ModelApi
from formats.images import ImagesApi
from formats.messages import MessagesApi
from formats.responses import ResponsesApi
from formats.videos import VideosApi

Json = dict[str, Any]


class CompletionsApi(ModelApi):
    """The older text completions."""

    name = "completions"
    path = "/completions"
    read = staticmethod(body.read_completion)

    def _as_chunk(self, choices: list[Json]) -> Json:
        return {"choices": choices}

    def _error_chunk(self, error: object, generation_id: str | None, model: str) -> bytes:
        chunk = {
            "id": generation_id or "gen-none",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model or "unknown",
            "error": error,
            "choices": [{"index": 0, "text": "", "finish_reason": "error", "logprobs": None}],
        }
        return self.event(chunk)


class EmbeddingsApi(ModelApi):
    """Embeddings: never streamed, and nothing is written."""

    name = "embeddings"
    path = "/embeddings"
    read = staticmethod(body.read_embeddings)

    def _has_said(self, payload: Json) -> bool:
        return bool(payload.get("data"))

    def with_usage(self, _known: Json | None, usage: Json) -> Json:
        return {"completion_tokens": 0, **usage}


class RerankApi(ModelApi):
    """Documents in the order in which they fit a question: never streamed, and nothing is written."""

    name = "rerank"
    path = "/rerank"
    read = staticmethod(body.read_rerank)
    reads_tail = False  # the request's own documents are in the body, and may be made to look like usage

    def _has_said(self, payload: Json) -> bool:
        return bool(payload.get("results"))

    def with_usage(self, _known: Json | None, usage: Json) -> Json:
        return {"prompt_tokens": usage.get("total_tokens"), "completion_tokens": 0, **usage}


class SpeechApi(ModelApi):
    """Spoken texts: answers are sound, and what they cost is in their records only."""

    name = "speech"
    path = "/audio/speech"
    read = staticmethod(body.read_speech)
    is_text = False


class TranscriptionsApi(ModelApi):
    """Sound, written down: never streamed."""

    name = "transcriptions"
    path = "/audio/transcriptions"
    read = staticmethod(body.read_transcription)
    is_text = False
    takes_forms = True

    def _has_said(self, payload: Json) -> bool:
        return bool(payload.get("text"))

    def with_usage(self, _known: Json | None, usage: Json) -> Json:
        return usage | {"prompt_tokens": usage.get("input_tokens"), "completion_tokens": usage.get("output_tokens")}


CHAT = ModelApi()
COMPLETIONS = CompletionsApi()
EMBEDDINGS = EmbeddingsApi()
RESPONSES = ResponsesApi()
MESSAGES = MessagesApi()
RERANK = RerankApi()
IMAGES = ImagesApi()
SPEECH = SpeechApi()
TRANSCRIPTIONS = TranscriptionsApi()
VIDEOS = VideosApi()
MODEL_APIS = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES, RERANK, IMAGES, SPEECH, TRANSCRIPTIONS, VIDEOS)

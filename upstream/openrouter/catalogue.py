"""What OpenRouter publishes beside its list of models: providers, endpoints, models for pictures and films, filters.

It is asked without a key, when somebody asks us; its answer serves everybody for some minutes, and for longer while
OpenRouter is away.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from foundation import json_text
from foundation.clock import Clock
from foundation.errors import AppError, Busy, NotFound, UpstreamFailed
from upstream.http import UpstreamHttp
from upstream.openrouter.small_answers import ANSWER_SECONDS, told_to_users

FRESH_SECONDS = 300.0
REST_SECONDS = 5.0  # after a failure OpenRouter is left alone so long
KEPT = 64  # documents; the largest have 2 MB
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
LIST_OF_MODELS = "/models?"
NO_ANSWER = "OpenRouter did not answer with what was asked for; try again"


@dataclass(slots=True)
class _Kept:
    """One document. asked_at, failed_at: seconds of the monotonic clock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    document: dict[str, Any] | None = None
    asked_at: float = 0.0
    failure: AppError | None = None
    failed_at: float = 0.0


class Catalogue:
    """OpenRouter's public documents, by their paths and queries."""

    def __init__(self, upstream: UpstreamHttp, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def is_fresh(self, path: str) -> bool:
        """False if `get` would have to ask OpenRouter."""
        kept = self._kept.get(path)
        return kept is not None and kept.document is not None and self._age(kept.asked_at) < FRESH_SECONDS

    def get(self, path: str) -> dict[str, Any]:
        """The document at a path below OpenRouter's base URL; of several who want it at once only one asks.

        Raises NotFound, Busy, UpstreamFailed, UpstreamTimeout.
        """
        with self._lock:
            kept = self._kept.setdefault(path, _Kept())
            self._kept.move_to_end(path)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        with kept.lock:
            if kept.document is not None and self._age(kept.asked_at) < FRESH_SECONDS:
                return kept.document
            if kept.failure is None or self._age(kept.failed_at) >= REST_SECONDS:
                self._renew(path, kept)
            if kept.document is None or isinstance(kept.failure, NotFound):
                raise kept.failure or UpstreamFailed(NO_ANSWER)
            return kept.document

    def _renew(self, path: str, kept: _Kept) -> None:
        try:
            kept.document, kept.failure = self._ask(path), None
            kept.asked_at = self._clock.monotonic()
        except AppError as error:
            kept.failure, kept.failed_at = error, self._clock.monotonic()

    def _ask(self, path: str) -> dict[str, Any]:
        with told_to_users():
            status, body = self._upstream.get(path, b"", ANSWER_SECONDS, MAX_DOCUMENT_BYTES)
        if status == 404:
            raise NotFound("OpenRouter has nothing of that name")
        if status == 429:
            raise Busy("OpenRouter can't be asked for that at present; try again shortly", 5)
        try:
            document = json_text.parse(body) if status == 200 else None
        except json_text.BadJson:
            document = None
        if not isinstance(document, dict):
            raise UpstreamFailed(NO_ANSWER)
        return _names_alone(document) if path.startswith(LIST_OF_MODELS) else document

    def _age(self, at: float) -> float:
        return self._clock.monotonic() - at


def _names_alone(document: dict[str, Any]) -> dict[str, Any]:
    """A list of models as their ids: what they are like is known, and each filter's list would be megabytes."""
    entries = document.get("data")
    found = entries if isinstance(entries, list) else []
    return {"data": [{"id": entry["id"]} for entry in found if isinstance(entry, dict) and "id" in entry]}

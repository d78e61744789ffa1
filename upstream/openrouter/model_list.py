"""OpenRouter's list of models for our callers, in memory: answers are written once for each filter, not each request.

ModelPrices fetches it every hour and keeps it in a file, so that it outlives OpenRouter's absence and our restart.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

from foundation import json_text
from upstream.openrouter.model_filter import ModelFilter

KEPT_PAGES = 16  # of up to 2 MB; other filters are written anew, in milliseconds
MAX_DESCRIPTION = 500  # characters
MAX_AMOUNT = 10**11  # of tokens or seconds: what is larger is a mistake, and no date
DEFAULT_MODALITIES = frozenset({"text"})
EVERYTHING = ModelFilter()
LIST_PATH = "/api/v1/models"  # where pages of the list are read


class Allowance(Protocol):
    """What somebody may use, as a client key says. models: what tells two allowances apart; None for all."""

    @property
    def models(self) -> Hashable: ...

    def allows_model(self, name: str) -> bool:
        """True for a model that may be used."""


@dataclass(frozen=True, slots=True)
class ModelPage:
    """An answer of GET /models, as bytes. etag: without quotation marks."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as people choose one; the texts are OpenRouter's.

    context: tokens; created: seconds since 1970; most_written: tokens of an answer. None if the list does not say.
    """

    id: str
    name: str
    description: str
    context: int | None
    created: int | None = None
    most_written: int | None = None


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    slug: str  # the name with its date, which links and endpoints say
    outputs: frozenset[str]
    text: bytes
    listed: ListedModel


class ModelList:
    """The models that OpenRouter offers to everybody. Empty until the first list is taken."""

    def __init__(self) -> None:
        self._models: tuple[_Model, ...] = ()
        self._pages: OrderedDict[tuple[Hashable, ...], ModelPage] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, text: bytes) -> None:
        """Put an answer of OpenRouter's GET /models in the place of the one before.

        Entries without an id are left out. Raises ValueError if it is no list.
        """
        document = json_text.parse(text)
        entries = document.get("data") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("the answer is no list of models")
        found = [
            _Model(entry["id"], _slug(entry), _outputs(entry), json_text.write(entry), _listed(entry))
            for entry in entries
            if _has_id(entry)
        ]
        with self._lock:
            self._models, self._pages = tuple(found), OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._models)

    def page(
        self,
        allowance: Allowance | None,
        outputs: frozenset[str] | None = DEFAULT_MODALITIES,
        offset: int = 0,
        limit: int | None = None,
        wanted: ModelFilter = EVERYTHING,
        path: str = LIST_PATH,
    ) -> ModelPage:
        """The models that somebody may use, in OpenRouter's form and order.

        outputs: what models answer with, any of these; None for all. Without offset and limit all are on one page.
        path: where the next one is, with its query.
        """
        asked = (allowance.models if allowance else None, outputs, offset, limit, wanted, path)
        with self._lock:
            models = self._models
            if found := self._pages.get(asked):
                self._pages.move_to_end(asked)
                return found
        found = _written(_texts(models, allowance, outputs, wanted), offset, limit, path)
        with self._lock:
            if models is self._models:  # else a newer list came meanwhile, and this page is of the old one
                self._pages[asked] = found
                if len(self._pages) > KEPT_PAGES:
                    self._pages.popitem(last=False)
        return found

    def count(self, allowance: Allowance | None, outputs: frozenset[str] | None) -> int:
        """How many models somebody may use that answer with any of these; None for all."""
        return sum(_is_offered(model, allowance, outputs) for model in self._models)

    def find_name(self, name: str, allowance: Allowance | None) -> str | None:
        """The id of the model with this id or dated slug; None if there is none, or none for the one who asks."""
        named = [model.name for model in self._models if name in (model.name, model.slug)]
        return next((found for found in named if allowance is None or allowance.allows_model(found)), None)

    def listed(self) -> list[ListedModel]:
        """Those that answer with text, in OpenRouter's order."""
        return [model.listed for model in self._models if model.outputs & DEFAULT_MODALITIES]

    def find(self, name: str, allowance: Allowance | None) -> dict[str, Any] | None:
        """One model as OpenRouter describes it; None if there is none, or none for the one who asks."""
        if allowance and not allowance.allows_model(name):
            return None
        text = next((model.text for model in self._models if model.name == name), None)
        found: dict[str, Any] | None = json_text.parse(text) if text else None
        return found


def _is_offered(model: _Model, allowance: Allowance | None, outputs: frozenset[str] | None) -> bool:
    is_kind = outputs is None or bool(outputs & model.outputs)
    return is_kind and (allowance is None or allowance.allows_model(model.name))


def _texts(
    models: tuple[_Model, ...], allowance: Allowance | None, outputs: frozenset[str] | None, wanted: ModelFilter
) -> list[bytes]:
    texts = [model.text for model in models if _is_offered(model, allowance, outputs)]
    if wanted == EVERYTHING:
        return texts
    return [json_text.write(entry) for entry in wanted.chosen([json_text.parse(text) for text in texts])]


def _written(texts: list[bytes], offset: int, limit: int | None, path: str) -> ModelPage:
    end = len(texts) if limit is None else offset + limit
    mark = "&" if "?" in path else "?"
    following = None if end >= len(texts) else f"{path}{mark}offset={end}&limit={limit}"
    rest = json_text.write({"links": {"next": following}, "total_count": len(texts)})
    body = b'{"data":[' + b",".join(texts[offset:end]) + b"]," + rest[1:]
    return ModelPage(body, hashlib.blake2b(body, digest_size=16).hexdigest())


def _has_id(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), str) and bool(entry["id"])


def _slug(entry: dict[str, Any]) -> str:
    slug = entry.get("canonical_slug")
    return slug if isinstance(slug, str) else entry["id"]


def _listed(entry: dict[str, Any]) -> ListedModel:
    name, description = entry.get("name"), entry.get("description")
    provider = entry.get("top_provider")
    most_written = provider.get("max_completion_tokens") if isinstance(provider, dict) else None
    return ListedModel(
        entry["id"],
        name if isinstance(name, str) and name else entry["id"],
        description[:MAX_DESCRIPTION] if isinstance(description, str) else "",
        _amount(entry.get("context_length")),
        _amount(entry.get("created")),
        _amount(most_written),
    )


def _amount(value: object) -> int | None:
    number = json_text.whole(value)
    return number if number and 0 < number <= MAX_AMOUNT else None


def _outputs(entry: dict[str, Any]) -> frozenset[str]:
    """What a model answers with; text, if its entry does not say."""
    architecture = entry.get("architecture")
    named = architecture.get("output_modalities") if isinstance(architecture, dict) else None
    return frozenset(name for name in named if isinstance(name, str)) if isinstance(named, list) else DEFAULT_MODALITIES

"""The parameters of GET /models: what the list itself can answer, and what OpenRouter has to be asked for."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from upstream.openrouter.model_filter import ORDERS, ModelFilter
from upstream.openrouter.model_list import DEFAULT_MODALITIES
from web.operation import DIGITS, Number, Query

MAX_OFFSET, MAX_LIMIT = 1_000_000, 1000
MAX_DAYS, MAX_TOKENS, MAX_AMOUNT = 100_000, 10**9, 10**6
LIST = Field("", max_length=500)

CATEGORIES = Literal[
    "programming",
    "roleplay",
    "marketing",
    "marketing/seo",
    "technology",
    "science",
    "translation",
    "legal",
    "finance",
    "health",
    "trivia",
    "academia",
]
SORTS = Literal[
    "most-popular",
    "newest",
    "top-weekly",
    "pricing-low-to-high",
    "pricing-high-to-low",
    "context-high-to-low",
    "throughput-high-to-low",
    "latency-low-to-high",
    "intelligence-high-to-low",
    "coding-high-to-low",
    "agentic-high-to-low",
    "design-arena-elo-high-to-low",
]


def _decimal(text: object) -> Decimal:
    if not isinstance(text, str) or len(text) > 20 or not text.isascii() or not text.replace(".", "", 1).isdigit():
        raise PydanticCustomError("number", "must be a number")
    return Decimal(text)


Amount = Annotated[Decimal, Field(ge=0, le=MAX_AMOUNT), BeforeValidator(_decimal)]
Share = Annotated[Decimal, Field(ge=0, le=1), BeforeValidator(_decimal)]
Days = Annotated[int, Field(ge=0, le=MAX_DAYS), DIGITS]


class Paged(Query):
    """Which part of a list. Without offset and limit all of it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    offset: Number = Field(0, ge=0, le=MAX_OFFSET)
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), DIGITS] | None = None


class Outputs(Query):
    """What models answer with: names with commas between, or `all`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    output_modalities: str = Field("text", max_length=200, examples=["all"])

    def outputs(self) -> frozenset[str] | None:
        """None for all."""
        wanted = _words(self.output_modalities) or DEFAULT_MODALITIES
        return None if "all" in wanted else wanted


class Asked(Query):
    """What only OpenRouter knows of its models."""

    category: CATEGORIES | None = None
    providers: str = LIST
    distillable: Literal["true", "false"] | None = None
    zdr: Literal["true"] | None = None
    region: Literal["eu", "us"] | None = None
    min_intelligence_index: Amount | None = None
    max_intelligence_index: Amount | None = None
    min_coding_index: Amount | None = None
    max_coding_index: Amount | None = None
    min_agentic_index: Amount | None = None
    max_agentic_index: Amount | None = None
    min_tool_success_rate: Share | None = None
    max_tool_success_rate: Share | None = None


class WhichModels(Paged, Outputs, Asked):
    """Which models. Parameters that OpenRouter does not document are taken and change nothing: clients send them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    q: str = Field("", max_length=200, description="Part of a name or slug")
    input_modalities: str = LIST
    supported_parameters: str = LIST
    model_authors: str = LIST
    arch: str = Field("", max_length=100)
    context: Annotated[int, Field(ge=1, le=MAX_TOKENS), DIGITS] | None = None
    min_price: Amount | None = Field(None, description="Dollars per million tokens of a prompt")
    max_price: Amount | None = None
    min_output_price: Amount | None = Field(None, description="Dollars per million tokens of an answer")
    max_output_price: Amount | None = None
    min_age_days: Days | None = None
    max_age_days: Days | None = None
    sort: SORTS | None = None
    use_rss: Literal["false", ""] | None = Field(None, description="There is no feed here")

    def at_openrouter(self) -> str:
        """The path and query that OpenRouter has to be asked for; empty if the list itself is enough."""
        asked = {name: str(value) for name in Asked.model_fields if (value := getattr(self, name)) not in (None, "")}
        if self.sort and self.sort not in ORDERS:
            asked["sort"] = self.sort
        return f"/models?{urlencode(sorted((asked | {'output_modalities': 'all'}).items()))}" if asked else ""

    def wanted(self, ids: tuple[str, ...] | None) -> ModelFilter:
        """ids: what OpenRouter has chosen, in its order; None if it was not asked."""
        return ModelFilter(
            q=self.q,
            inputs=_words(self.input_modalities),
            parameters=_words(self.supported_parameters),
            authors=_words(self.model_authors),
            arch=self.arch,
            context=self.context,
            min_price=self.min_price,
            max_price=self.max_price,
            min_output_price=self.min_output_price,
            max_output_price=self.max_output_price,
            min_age_days=self.min_age_days,
            max_age_days=self.max_age_days,
            sort=self.sort or "",
            ids=ids,
        )

    def rest_of_query(self) -> str:
        """What the next page's address says beside its place."""
        given: dict[str, Any] = self.model_dump(exclude_unset=True, exclude={"offset", "limit"}, exclude_none=True)
        return urlencode(given)


def _words(text: str) -> frozenset[str]:
    return frozenset(filter(None, (word.strip() for word in text.split(","))))

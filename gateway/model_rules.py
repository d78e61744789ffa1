"""What the operator rules for calls of one model or alias: how long they may wait, which of the upstreams that carry it
gets them, and which other models are tried when it fails.

An alias's own rule goes before the rule of the model that it led to; never both. Until there is a rule, nothing of this
happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

import sqlalchemy as sa

from db import Database, Transaction
from formats.body import CallBody
from foundation import json_text
from foundation.clock import Clock
from foundation.errors import BadRequest, Conflict, NotFound
from gateway.aliases import MAX_WEIGHT, MODEL
from gateway.failures import Failure
from replicas.revisions import bump
from tables import model_aliases, upstreams
from tables import model_rules as table
from upstream.registry import OPENROUTER

MAX_RULES, MAX_FALLBACKS, MAX_UPSTREAMS = 200, 3, 20
LINE = "openai/gpt-4o-mini upstream=local after=away,rate-limited"

ChooseBy = Literal["weight", "price", "latency"]


@dataclass(frozen=True)
class Fallback:
    """Another model to try. upstream: where; "" for the one that calls of this model go to. after: which failures."""

    model: str
    upstream: str = ""
    after: tuple[Failure, ...] = tuple(Failure)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"model": self.model, "upstream": self.upstream or None, "after": [one.value for one in self.after]}

    @property
    def line(self) -> str:
        """As operators write it; `fallback_of` reads it."""
        upstream = f" upstream={self.upstream}" if self.upstream else ""
        return f"{self.model}{upstream} after={','.join(self.after)}"


@dataclass(frozen=True)
class RuleTerms:
    """What a rule says. timeout_seconds: until the first content; None for the upstream's. upstreams: by name, each
    with its weight; none for the usual one."""

    fallbacks: tuple[Fallback, ...] = ()
    timeout_seconds: int | None = None
    upstreams: Mapping[str, int] = field(default_factory=dict)
    choose_by: ChooseBy = "weight"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "fallbacks": [one.to_dict() for one in self.fallbacks],
            "timeout_seconds": self.timeout_seconds,
            "upstreams": [{"upstream": name, "weight": weight} for name, weight in self.upstreams.items()],
            "choose_by": self.choose_by,
        }


@dataclass(frozen=True)
class ModelRule:
    """One model's or alias's. name: that one's."""

    name: str
    terms: RuleTerms
    updated_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "model": self.name,
            **self.terms.to_dict(),
            "updated_at": self.updated_at.isoformat(timespec="milliseconds"),
        }


NO_RULE = RuleTerms()


class ModelRules:
    """The rules in the database, and this process's copy of them."""

    def __init__(self, db: Database, clock: Clock, max_timeout_seconds: int) -> None:
        self._db = db
        self._clock = clock
        self.max_timeout_seconds = max_timeout_seconds
        self._live: dict[str, RuleTerms] = {}

    # ── in memory

    def of(self, body: CallBody) -> RuleTerms:
        """What holds for a call."""
        if not (live := self._live):
            return NO_RULE
        return live.get(body.asked_model or body.model) or live.get(body.model) or NO_RULE

    def reload(self) -> None:
        """Copy the rules into memory."""
        self._live = {one.name: one.terms for one in self.rows()}

    # ── in the database

    def rows(self) -> list[ModelRule]:
        """All of them, by name."""
        with self._db.reading() as tx:
            return [_rule(row) for row in tx.execute(sa.select(table).order_by(table.c.name))]

    def set(self, name: str, terms: RuleTerms) -> ModelRule:
        """Let this hold for a model or alias, in the place of what did before; everywhere within two seconds.

        Raises BadRequest, Conflict.
        """
        self._check(name, terms)

        def write(tx: Transaction) -> ModelRule:
            bump(tx, table.name)  # first, so that there is one change at a time
            _check_names(tx, terms)
            now = self._clock.now()
            values = {"terms": json_text.write(terms.to_dict()).decode(), "updated_at": now}
            if not tx.execute(table.update().where(table.c.name == name).values(values)).rowcount:
                if tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() >= MAX_RULES:
                    raise Conflict(f"There may be at most {MAX_RULES} rules")
                tx.execute(table.insert().values(values | {"name": name}))
            return ModelRule(name, terms, now)

        return self._db.transact(write)

    def remove(self, name: str) -> ModelRule:
        """Forget a rule. Raises NotFound."""

        def delete(tx: Transaction) -> ModelRule:
            bump(tx, table.name)
            row = tx.execute(sa.select(table).where(table.c.name == name)).one_or_none() if name.isascii() else None
            if row is None:
                raise NotFound("There is no rule for a model or alias of this name")
            tx.execute(table.delete().where(table.c.name == row.name))
            return _rule(row)

        return self._db.transact(delete)

    def _check(self, name: str, terms: RuleTerms) -> None:
        if not all(map(MODEL.fullmatch, (name, *(one.model for one in terms.fallbacks)))):
            raise BadRequest(
                "A model must be named by up to 255 ASCII characters without spaces, as openai/gpt-4o-mini"
            )
        if not (terms.fallbacks or terms.upstreams or terms.timeout_seconds is not None):
            raise BadRequest("A rule must have fallbacks, timeout_seconds or upstreams")
        if len(terms.fallbacks) > MAX_FALLBACKS or len(terms.upstreams) > MAX_UPSTREAMS:
            raise BadRequest(f"A rule may have at most {MAX_FALLBACKS} fallbacks, and {MAX_UPSTREAMS} upstreams")
        if not all(one.after for one in terms.fallbacks):
            raise BadRequest(f"A fallback must come after one of {', '.join(Failure)}, or several")
        places = [(one.model, one.upstream) for one in terms.fallbacks]
        if len(set(places)) < len(places) or (name, "") in places:
            raise BadRequest(
                "Fallbacks must differ, from each other and from the model itself unless they name an upstream"
            )
        most = self.max_timeout_seconds
        if terms.timeout_seconds is not None and not 1 <= terms.timeout_seconds <= most:
            raise BadRequest(f"timeout_seconds must be a whole number from 1 to {most} (MAX_TIMEOUT_SECONDS)")
        if terms.choose_by not in get_args(ChooseBy):
            raise BadRequest(f"choose_by must be one of {', '.join(get_args(ChooseBy))}")
        if not all(1 <= weight <= MAX_WEIGHT for weight in terms.upstreams.values()):
            raise BadRequest(f"A weight must be a whole number from 1 to {MAX_WEIGHT}")


def fallback_of(line: str) -> Fallback:
    """A fallback as operators write it: a model, and perhaps `upstream=` and `after=`. Raises BadRequest."""
    model, *rest = line.split() or [""]
    named = dict(part.partition("=")[::2] for part in rest)
    if not model or len(named) < len(rest) or named.keys() - {"upstream", "after"}:
        raise BadRequest(f"fallbacks must be written as {LINE}")
    try:
        after = tuple(map(Failure, named["after"].split(","))) if "after" in named else tuple(Failure)
    except ValueError:
        raise BadRequest(f"fallbacks must have after= with some of {','.join(Failure)}") from None
    return Fallback(model, named.get("upstream", ""), after)


def _check_names(tx: Transaction, terms: RuleTerms) -> None:
    """Raise BadRequest for an upstream that is not there, and for an alias, which nobody would look up."""
    known = {OPENROUTER, *tx.execute(sa.select(upstreams.c.name)).scalars()}
    named = [*terms.upstreams, *(one.upstream for one in terms.fallbacks if one.upstream)]
    if wrong := next((name for name in named if name not in known), None):
        raise BadRequest(f"There is no upstream named {wrong[:64]!r}; there are {', '.join(sorted(known))}")
    aliases = set(tx.execute(sa.select(model_aliases.c.name)).scalars())
    if wrong := next((one.model for one in terms.fallbacks if one.model in aliases), None):
        raise BadRequest(f"{wrong} is an alias; give the model that it leads to")


def _rule(row: Any) -> ModelRule:
    told = json_text.parse(row.terms.encode())
    fallbacks = tuple(
        Fallback(one["model"], one["upstream"] or "", tuple(map(Failure, one["after"]))) for one in told["fallbacks"]
    )
    weights = {one["upstream"]: one["weight"] for one in told["upstreams"]}
    return ModelRule(
        row.name, RuleTerms(fallbacks, told["timeout_seconds"], weights, told["choose_by"]), row.updated_at
    )

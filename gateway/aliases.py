"""Other names for models, which the operator gives: `fast` leads to one model, or by weight to one of several.

An alias is looked up once, before anything is asked of the model: model lists, quotas, prices and the log go by the
model that it led to. Its name has no slash, so that none hides a model of OpenRouter's. A session's calls stay with one
of several models, or it would pay for a new prompt cache at each change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from db import Database, Transaction
from formats.body import CallBody
from foundation import json_text
from foundation.clock import Clock
from foundation.errors import BadRequest, Conflict, NotFound
from gateway.request import ProxyRequest
from replicas.revisions import bump
from tables import model_aliases as table

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MODEL = re.compile(r"[!-~]{1,255}")
MAX_ALIASES, MAX_MODELS, MAX_WEIGHT = 200, 20, 1000


@dataclass(frozen=True)
class Alias:
    """models: by name, each with its weight, from 1."""

    name: str
    models: Mapping[str, int]
    updated_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        models = [{"model": model, "weight": weight} for model, weight in self.models.items()]
        return {"name": self.name, "models": models, "updated_at": self.updated_at.isoformat(timespec="milliseconds")}


class Aliases:
    """The aliases in the database, and this process's copy of them."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._live: dict[str, tuple[list[str], list[int]]] = {}
        """The models of each, and their weights."""

    # ── in memory

    def resolve(self, body: CallBody, request: ProxyRequest) -> CallBody:
        """The call with the model that its alias leads to; itself if it asks for none.

        Raises BadRequest for an alias among the models to fall back to.
        """
        live = self._live
        if not live:
            return body
        if wrong := next((name for name in body.models if name in live), None):
            raise BadRequest(f"{wrong} is an alias, which works as `model` only; list models to fall back to by name")
        if body.model not in live:
            return body
        return body.led_to(request.draw(body, body.model, *live[body.model]))

    def reload(self) -> None:
        """Copy the aliases into memory."""
        self._live = {one.name: (list(one.models), list(one.models.values())) for one in self.rows()}

    # ── in the database

    def rows(self) -> list[Alias]:
        """All of them, by name."""
        with self._db.reading() as tx:
            return [_alias(row) for row in tx.execute(sa.select(table).order_by(table.c.name))]

    def set(self, name: str, models: Mapping[str, int]) -> Alias:
        """Let a name lead to these models, in the place of those before; everywhere within two seconds.

        Raises BadRequest, Conflict.
        """
        _check(name, models)

        def write(tx: Transaction) -> Alias:
            bump(tx, table.name)  # first, so that there is one change at a time
            others = [_alias(row) for row in tx.execute(sa.select(table).where(table.c.name != name))]
            if len(others) >= MAX_ALIASES:
                raise Conflict(f"There may be at most {MAX_ALIASES} aliases")
            _check_chain(name, models, others)
            now = self._clock.now()
            values = {"models": json_text.write(dict(models)).decode(), "updated_at": now}
            if not tx.execute(table.update().where(table.c.name == name).values(values)).rowcount:
                tx.execute(table.insert().values(values | {"name": name}))
            return Alias(name, dict(models), now)

        return self._db.transact(write)

    def remove(self, name: str) -> Alias:
        """Forget an alias; calls that ask for it are for a model of this name from now on. Raises NotFound."""

        def delete(tx: Transaction) -> Alias:
            bump(tx, table.name)
            query = sa.select(table).where(table.c.name == name)
            row = tx.execute(query).one_or_none() if name.isascii() else None
            if row is None:
                raise NotFound("There is no alias of this name")
            tx.execute(table.delete().where(table.c.name == row.name))
            return _alias(row)

        return self._db.transact(delete)


def _check(name: str, models: Mapping[str, int]) -> None:
    if not NAME.fullmatch(name):
        raise BadRequest("An alias must be 1 to 64 characters of a-z 0-9 . _ -, without a slash, as fast")
    if not 1 <= len(models) <= MAX_MODELS or not all(map(MODEL.fullmatch, models)):
        raise BadRequest(
            f"An alias leads to 1 to {MAX_MODELS} models, each up to 255 ASCII characters without spaces, "
            "as openai/gpt-4o-mini"
        )
    if not all(type(weight) is int and 1 <= weight <= MAX_WEIGHT for weight in models.values()):
        raise BadRequest(f"A weight must be a whole number from 1 to {MAX_WEIGHT}")


def _check_chain(name: str, models: Mapping[str, int], others: list[Alias]) -> None:
    """Raise BadRequest for an alias of an alias, which nobody would look up."""
    names = {name, *(one.name for one in others)}
    if wrong := next((model for model in models if model in names), None):
        raise BadRequest(f"{wrong} is an alias itself; give the model that it leads to")
    if before := next((one.name for one in others if name in one.models), None):
        raise BadRequest(f"The alias {before} leads to a model named {name}; give this alias another name")


def _alias(row: Any) -> Alias:
    return Alias(row.name, json_text.parse(row.models.encode()), row.updated_at)

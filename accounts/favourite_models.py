"""Which models people have marked as their favourites, and which one their pages choose at first."""

from __future__ import annotations

import re
from dataclasses import dataclass

import sqlalchemy as sa

from accounts.deleted import IS_THERE, hold_account
from db import Database, Transaction
from foundation.errors import BadRequest, Conflict, NotFound
from tables import favourite_models as table
from tables import users

MAX_PER_USER = 200
MODEL = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True)
class ChosenModels:
    """A user's favourites, by name, and their default model, which need not be one of them."""

    favourites: tuple[str, ...]
    default_model: str | None


class FavouriteModels:
    """Asked for by pages alone, so that no process keeps them in memory. Whether there is such a model is not known
    here: one that OpenRouter has withdrawn stays, until its user removes it."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def of(self, user_id: int) -> ChosenModels:
        """What a user has chosen."""
        with self._db.reading() as tx:
            names = tx.scalars(sa.select(table.c.model).where(table.c.user_id == user_id)).all()
            default = tx.scalar(sa.select(users.c.default_model).where(users.c.id == user_id))
        return ChosenModels(tuple(sorted(names)), default)

    def add(self, user_id: int, model: str) -> None:
        """Mark a model; once more changes nothing. Raises BadRequest; Conflict for more than MAX_PER_USER."""
        _check(model)

        def insert(tx: Transaction) -> None:
            # Or two requests at once could both find one place left.
            hold_account(tx, user_id)
            mine = table.c.user_id == user_id
            if tx.scalar(sa.select(sa.func.count()).select_from(table).where(mine, table.c.model == model)):
                return
            if (tx.scalar(sa.select(sa.func.count()).select_from(table).where(mine)) or 0) >= MAX_PER_USER:
                raise Conflict(f"You have {MAX_PER_USER} favourite models; remove one first")
            tx.execute(table.insert().values(user_id=user_id, model=model))

        self._db.transact(insert)

    def remove(self, user_id: int, model: str) -> None:
        """Raises NotFound if it is none of the user's favourites."""
        one = sa.and_(table.c.user_id == user_id, table.c.model == model)
        if not self._db.transact(lambda tx: tx.execute(table.delete().where(one)).rowcount):
            raise NotFound("This model is none of your favourites")

    def set_default(self, user_id: int, model: str | None) -> None:
        """Choose the model that pages begin with; None for none. Raises BadRequest."""
        if model is not None:
            _check(model)
        change = users.update().where(users.c.id == user_id, IS_THERE).values(default_model=model)
        self._db.transact(lambda tx: tx.execute(change))


def _check(model: str) -> None:
    if not MODEL.fullmatch(model):
        raise BadRequest("A model's name has 1 to 255 printable ASCII characters without spaces")

"""Short names of pool keys: what people see and type. The whole name is the one at OpenRouter, and stays."""

from __future__ import annotations

import sqlalchemy as sa

from db import Database
from foundation.errors import BadRequest, NotFound
from pool.life import WITHOUT_TEXT
from tables import pool_keys

MAX_SHOWN_CHARACTERS = 20  # longer names have a short one
SHORT_PREFIX = "k-"
SUBJECT = "pool/"  # the begin of a pool key's name in the audit log
MOST_TOLD = 5


def short_name(name: str) -> str:
    """`k-70f9` for a long name that ends in 70f9; a name that is short already, as it is."""
    end = name[-4:]
    is_readable = len(name) <= MAX_SHOWN_CHARACTERS or not (end.isascii() and end.isalnum())
    return name if is_readable else SHORT_PREFIX + end


def short_subject(subject: str) -> str:
    """What was changed, as the audit log has it: a pool key by its short name."""
    return f"{SUBJECT}{short_name(subject.removeprefix(SUBJECT))}" if subject.startswith(SUBJECT) else subject


def get_whole_name(db: Database, part: str) -> str:
    """The name of the one pool key that is called so, by its name, its short name or any part of its name.

    Keys that are gone count only where no other one matches. Raises NotFound, and BadRequest if several match.
    """
    with db.reading() as tx:
        if tx.scalar(sa.select(pool_keys.c.id).where(pool_keys.c.name == part)) is not None:
            return part
        is_gone = pool_keys.c.state.in_(WITHOUT_TEXT)
        for wanted in (~is_gone, is_gone):
            query = sa.select(pool_keys.c.name).where(_matches(part), wanted)
            found: list[str] = list(tx.scalars(query.order_by(pool_keys.c.id.desc()).limit(MOST_TOLD + 1)))
            if len(found) == 1:
                return found[0]
            if found:
                more = ["and more"] if len(found) > MOST_TOLD else []
                told = ", ".join(found[:MOST_TOLD] + more)
                raise BadRequest(f"Several pool keys match {part!r}: {told}. Give more of the name")
    raise NotFound(f"There is no pool key named {part!r}")


def _matches(part: str) -> sa.ColumnElement[bool]:
    matches = pool_keys.c.name.contains(part, autoescape=True)
    end = part.removeprefix(SHORT_PREFIX)
    if part != end and len(end) == 4:
        is_long = sa.func.char_length(pool_keys.c.name) > MAX_SHOWN_CHARACTERS
        matches = sa.or_(matches, sa.and_(is_long, pool_keys.c.name.endswith(end, autoescape=True)))
    return matches

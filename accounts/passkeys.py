"""Passkeys (WebAuthn): keys that never leave a device of their owner's, which signs challenges with them.

Each is discoverable and is used with its owner verified by the device (a PIN, a finger). So it opens its account alone,
without a name, and is a second factor beside the password or a provider.

    a challenge (one_time_states.py) -> the device -> relying_party.py verifies -> the row: whose it is

A challenge is good once, within minutes, for the session or the browser that asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from accounts.deleted import hold_account
from accounts.one_time_states import OneTimeState, OneTimeStates
from accounts.refused_log_ins import RefusedLogIns
from accounts.relying_party import Credential, NewCredential, RelyingParty, challenge_of
from accounts.sessions import Origin, hold
from db import Database, Duplicate, Transaction, inserted_id
from foundation.clock import Clock
from foundation.crypto import new_token, same, sha256_hex
from foundation.errors import Conflict, NotFound, Unauthorized
from tables import passkeys as table

NEW, PROOF = "passkey-new", "passkey"  # what a challenge is for, in the place of a provider
LIFE = timedelta(minutes=5)
MAX_PASSKEYS = 10


@dataclass(frozen=True)
class Passkey:
    """One as its owner sees it."""

    id: int
    name: str
    created_at: datetime
    last_used: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        times = ("created_at", "last_used")
        shown = {name: (time := getattr(self, name)) and time.isoformat(timespec="seconds") for name in times}
        return {"id": self.id, "name": self.name} | shown


COLUMNS = [table.c[name] for name in Passkey.__dataclass_fields__]


@dataclass(frozen=True)
class PasskeyProof:
    """What a device has signed. browser: what the browser holds that asked for the challenge."""

    browser: str
    credential: Credential


class Passkeys:
    """The rows, and the ceremonies that make and use them."""

    def __init__(
        self, db: Database, clock: Clock, states: OneTimeStates, party: RelyingParty | None, refused: RefusedLogIns
    ) -> None:
        """party: None where browsers have no passkeys."""
        self._db = db
        self._clock = clock
        self._states = states
        self._found_party = party
        self._refused = refused

    @property
    def are_possible(self) -> bool:
        """Whether this gateway has an address at which browsers have passkeys."""
        return self._found_party is not None

    @property
    def _party(self) -> RelyingParty:
        if self._found_party is None:
            raise NotFound("There are no passkeys here: they need PUBLIC_URL, with https:// and a name, not an address")
        return self._found_party

    # ── making and removing

    def begin(self, user_id: int, session_id: str) -> dict[str, Any]:
        """What a browser makes a passkey from, for `add`. Raises NotFound, Conflict."""
        party, mine = self._party, table.c.user_id == user_id
        with self._db.reading() as tx:
            rows = tx.execute(sa.select(table.c.credential_id, table.c.user_handle).where(mine)).all()
        _check_room(len(rows))
        handle = rows[0].user_handle if rows else new_token()
        noted = OneTimeState({"handle": handle}, user_id, session_id, None)
        challenge = self._states.begin(NEW, session_id, noted, LIFE)
        return party.creation_options(challenge, handle, f"account-{user_id}", [row.credential_id for row in rows])

    def add(self, user_id: int, session_id: str, name: str, credential: Credential) -> Passkey:
        """Keep what a device has made. Raises NotFound, BadRequest, Conflict; Unauthorized if the session has ended."""
        party, challenge = self._party, challenge_of(credential)
        noted = self._states.consume(NEW, session_id, challenge)
        made = party.verify_new(challenge, credential)
        row = self._row(user_id, name, noted.secrets["handle"], made)

        def insert(tx: Transaction) -> int:
            hold_account(tx, user_id)  # one at a time
            hold(tx, session_id, user_id)
            mine = sa.select(sa.func.count()).select_from(table).where(table.c.user_id == user_id)
            _check_room(tx.scalar(mine) or 0)
            return inserted_id(tx.execute(table.insert().values(row)))

        try:
            passkey_id = self._db.transact(insert)
        except Duplicate:
            raise Conflict("This passkey is registered already") from None
        return Passkey(passkey_id, name, self._clock.now(), None)

    def _row(self, user_id: int, name: str, handle: str, made: NewCredential) -> dict[str, object]:
        row: dict[str, object] = {"user_id": user_id, "credential_hash": sha256_hex(made.id), "credential_id": made.id}
        row |= {"public_key": made.public_key, "user_handle": handle, "name": name, "sign_count": made.sign_count}
        return row | {"created_at": self._clock.now()}

    def of(self, user_id: int) -> list[Passkey]:
        """A user's, the oldest first."""
        with self._db.reading() as tx:
            found = tx.execute(sa.select(*COLUMNS).where(table.c.user_id == user_id).order_by(table.c.id))
            return [Passkey(*row) for row in found]

    def holders(self, user_ids: list[int]) -> set[int]:
        """Those of these accounts that have one."""
        with self._db.reading() as tx:
            return set(tx.scalars(sa.select(table.c.user_id).where(table.c.user_id.in_(user_ids))))

    def remove(self, user_id: int, passkey_id: int) -> str:
        """Take one of a user's away; returns its name. Raises NotFound."""
        this = sa.and_(table.c.id == passkey_id, table.c.user_id == user_id)

        def delete(tx: Transaction) -> str:
            name = tx.scalar(sa.select(table.c.name).where(this))
            if name is None or tx.execute(table.delete().where(this)).rowcount != 1:
                raise NotFound("You have no such passkey")
            return str(name)

        return self._db.transact(delete)

    def remove_all(self, user_id: int) -> int:
        """Take all of a user's away; returns how many there were."""
        return self._db.transact(lambda tx: tx.execute(table.delete().where(table.c.user_id == user_id)).rowcount)

    # ── proving

    def begin_proof(self) -> tuple[dict[str, Any], str]:
        """What anybody's browser has signed, and what it is known by when it comes back. Raises NotFound."""
        party, browser = self._party, new_token()
        challenge = self._states.begin(PROOF, browser, OneTimeState({}, None, None, None), LIFE)
        return party.request_options(challenge), browser

    def enter(self, proof: PasskeyProof, origin: Origin) -> int:
        """Whose passkey has signed: the log-in without a name. Raises NotFound, BadRequest, Unauthorized."""
        row, challenge = self._find(proof)
        try:
            return self._check(proof, row, challenge)
        except Unauthorized:
            self._refused.note("passkey_refused", row.user_id if row else None, origin)
            raise

    def check(self, user_id: int, proof: PasskeyProof) -> None:
        """Let only a passkey of this user's pass. Raises NotFound, BadRequest, Unauthorized."""
        row, challenge = self._find(proof)
        self._check(proof, row if row and row.user_id == user_id else None, challenge)

    def _find(self, proof: PasskeyProof) -> tuple[sa.Row[Any] | None, str]:
        """The row that an answer names, and its challenge, which is used up."""
        challenge = challenge_of(proof.credential)
        self._states.consume(PROOF, proof.browser, challenge)
        named = table.c.credential_hash == sha256_hex(proof.credential["id"])
        with self._db.reading() as tx:
            return tx.execute(sa.select(table).where(named)).first(), challenge

    def _check(self, proof: PasskeyProof, row: sa.Row[Any] | None, challenge: str) -> int:
        party, handle = self._party, proof.credential["response"].get("userHandle") or ""
        if row is None or not same(handle.rstrip("="), row.user_handle):
            raise Unauthorized("Invalid credentials")
        count = party.verify(challenge, proof.credential, row.public_key, row.sign_count)
        # The row count decides: of parallel answers with one count, one is let in.
        this = sa.and_(table.c.id == row.id, table.c.sign_count == row.sign_count)
        used = table.update().where(this).values(sign_count=count, last_used=self._clock.now())
        if self._db.transact(lambda tx: tx.execute(used).rowcount) != 1:
            raise Unauthorized("Invalid credentials")
        return int(row.user_id)


def _check_room(there: int) -> None:
    if there >= MAX_PASSKEYS:
        raise Conflict(f"You have {MAX_PASSKEYS} passkeys; remove one that you don't use any more")

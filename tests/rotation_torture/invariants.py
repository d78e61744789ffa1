"""What must hold at every moment, whatever happens: looked at after each pass, and once more at rest.

I1   two passes after an intent's minimum age, every key with our name at OpenRouter has a living row
I2   once the pool was full, it stays full: rows that gateways pick, whose keys OpenRouter accepts
I3   no key is disabled or deleted while a call uses it
I4   every active row decrypts to the text that its hash names
I5   keys of others are never touched
I6   no row goes backwards or vanishes; rows that are over hold no text
I7   no more keys at OpenRouter than the pool, those on their way out, one new one, and what mishaps have left
I8   OpenRouter accepts every active key: no client's call fails for the rotation
I9   a key's text is nowhere in the database
I10  one create for each key to be replaced, deletions of disabled keys only, and no write of a fallen leader
I11  with an old copy of the database: no deletion for 24 hours, and at most three unknown keys disabled in a pass
I12  a user's own key carries that user's calls only; at rest exactly the active users have one, and who keeps theirs
     is never without
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from foundation.crypto import Envelopes, SealBroken, sha256_hex

MIN_AGE = timedelta(minutes=5)
HELD = timedelta(hours=24)
ORDER = {"intent": 0, "stored": 1, "active": 2, "draining": 3, "disabled": 4, "quarantined": 4} | dict.fromkeys(
    ("deleted", "abandoned", "dead"), 5
)
LIVING = {"stored", "active", "draining", "disabled"}
OVER = {"deleted", "abandoned", "dead"}
PASSING = {"intent", "stored", "draining", "disabled", "quarantined"}


@dataclass(frozen=True)
class Sample:
    """One look at everything. rows: by id; remote: our own keys by hash, others: all further keys of the account.

    users: each one's state; nobody where users have no keys of their own.
    """

    now: datetime
    rows: dict[int, Any]
    remote: dict[str, Any]
    others: dict[str, Any]
    users: dict[int, str]

    def usable(self) -> list[Any]:
        """The keys that all share."""
        return self.own(None)

    def own(self, owner_id: int | None) -> list[Any]:
        """A user's own keys."""
        return [row for row in self._usable() if row.owner_id == owner_id]

    def unsettled(self) -> set[int]:
        """Users who have too few keys or too many."""
        wanted = {user_id: int(state == "active") for user_id, state in self.users.items()}
        return {user_id for user_id, count in wanted.items() if len(self.own(user_id)) != count}

    def _usable(self) -> list[Any]:
        active = [row for row in self.rows.values() if row.state == "active" and row.enabled]
        return [row for row in active if not self.remote.get(row.api_key_hash, {"disabled": True})["disabled"]]

    def orphans(self) -> set[str]:
        """Hashes of our keys that no living row has."""
        return set(self.remote) - {row.api_key_hash for row in self.rows.values() if row.state in LIVING}


def born(key: dict[str, Any]) -> datetime:
    """When OpenRouter made a key."""
    return datetime.fromisoformat(key["created_at"])


@dataclass
class Invariants:
    """Remembers what it needs of the past. `violations`: what was broken, in words."""

    envelopes: Envelopes
    pool_size: int
    accepts: Callable[[str], bool]  # whether OpenRouter accepts a key's text
    violations: list[str] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)
    mishaps: list[datetime] = field(default_factory=list)
    full: bool = False
    owned: set[int] = field(default_factory=set)  # users who have had a key of their own
    held_hash: str = ""  # the key of the running call
    held_until: datetime | None = None
    restored_at: datetime | None = None
    unknown: set[str] = field(default_factory=set)  # at the moment of the restoration
    blind: int = 0  # so many complete passes more, what gateways see can't be right yet
    _last: Sample | None = None
    _orphaned: dict[str, int] = field(default_factory=dict)

    def broken(self, which: str, what: str, at: Sample) -> None:
        self.violations.append(f"{which} at {at.now:%d %H:%M:%S}: {what}")

    def look(self, at: Sample, complete: bool) -> None:
        """After a pass. complete: it ran to its end without a fault."""
        if complete:
            self.mishaps = [when for when in self.mishaps if when > at.now - MIN_AGE]
            self.blind = max(self.blind - 1, 0)
        self._texts(at)
        self._keys_of_calls(at)
        self._account(at, complete)
        if self._last:
            self._changes(self._last, at)
        self._last = at

    def forget_the_past(self) -> None:
        """The database is another one now."""
        self._last = None

    def _texts(self, at: Sample) -> None:
        for row in at.rows.values():
            if row.state in OVER and row.api_key is not None:
                self.broken("I6", f"the {row.state} row {row.id} still has its text", at)
            if row.api_key is None:
                continue
            try:
                text = self.envelopes.open("api_keys", "api_key", row.id, row.api_key)
            except SealBroken as error:
                self.broken("I4", f"the {row.state} row {row.id}: {error}", at)
                continue
            self.texts.add(text)
            if sha256_hex(text) != row.api_key_hash:
                self.broken("I4", f"the {row.state} row {row.id} holds another key's text", at)
            if row.state == "active" and not self.blind and not self.accepts(text):
                self.broken("I8", f"OpenRouter refuses the key of active row {row.id}", at)
        for row in at.rows.values():
            if row.state == "active" and row.api_key is None:
                self.broken("I4", f"the active row {row.id} has no text", at)

    def _keys_of_calls(self, at: Sample) -> None:
        usable = len(at.usable())
        self.full = self.full or usable >= self.pool_size
        if self.full and not self.blind and usable < self.pool_size:
            self.broken("I2", f"only {usable} keys are usable", at)
        if self.held_until and at.now < self.held_until:
            held = at.remote.get(self.held_hash)
            if held is None or held["disabled"]:
                self.broken("I3", f"a running call's key was {'disabled' if held else 'deleted'}", at)

    def _account(self, at: Sample, complete: bool) -> None:
        orphans = at.orphans()
        if complete:
            ripe = {found for found in orphans if born(at.remote[found]) <= at.now - MIN_AGE}
            self._orphaned = {found: self._orphaned.get(found, 0) + 1 for found in ripe}
        waits = {row.api_key_hash for row in at.rows.values() if row.state == "quarantined"}
        if not (self.restored_at and at.now < self.restored_at + HELD + MIN_AGE):
            for found, passes in self._orphaned.items():
                if passes > 2 and found in orphans and found not in waits:
                    self.broken("I1", f"the key {at.remote[found]['name']} is nobody's after {passes} passes", at)
        if not self.restored_at:
            going = sum(row.state in {"draining", "disabled"} for row in at.rows.values())
            owners = {row.owner_id for row in at.rows.values() if row.state == "active"} - {None}
            allowed = self.pool_size + len(owners) + going + 1 + len(self.mishaps)
            if len(at.remote) > allowed:
                self.broken("I7", f"{len(at.remote)} keys at OpenRouter, {allowed} would be all right", at)

    def look_at_picks(self, at: Sample, picked: dict[int | None, set[int]]) -> None:
        """What gateways pick, by user; for nobody (None), what they pick of the shared keys."""
        for user_id, row_ids in picked.items():
            if any(at.rows[row_id].owner_id != user_id for row_id in row_ids):
                self.broken("I12", f"calls of {user_id or 'anybody'} get another's key", at)
        self.owned |= {user_id for user_id in at.users if len(at.own(user_id)) == 1}
        for user_id in self.owned & at.users.keys():
            if at.users[user_id] == "active" and not self.blind and not (at.own(user_id) and picked[user_id]):
                self.broken("I12", f"user {user_id} is without their key", at)

    def _changes(self, old: Sample, at: Sample) -> None:
        if at.others != old.others:
            self.broken("I5", "a key of others was changed", at)
        for row_id, row in old.rows.items():
            new = at.rows.get(row_id)
            if new is None:
                self.broken("I6", f"the {row.state} row {row_id} vanished", at)
            elif ORDER[new.state] < ORDER[row.state]:
                self.broken("I6", f"row {row_id} went from {row.state} to {new.state}", at)
        states = {row.api_key_hash: row.state for row in old.rows.values()}
        gone = old.remote.keys() - at.remote.keys()
        for lost in gone:
            if not old.remote[lost]["disabled"] and states.get(lost) in {"active", "draining"}:
                self.broken("I10", f"the key of a row that was {states[lost]} was deleted", at)
        if not self.restored_at:
            return
        if gone and self.unknown and at.now < self.restored_at + HELD:
            self.broken("I11", f"{len(gone)} keys were deleted", at)
        stopped = [key for key in self.unknown & at.remote.keys() if at.remote[key]["disabled"]]
        if len([key for key in stopped if not old.remote[key]["disabled"]]) > 3:
            self.broken("I11", "more than three unknown keys were disabled in one pass", at)

    def look_at_rest(self, at: Sample, everything: bytes, made: int, may_make: int) -> None:
        """At the end. everything: all bytes of the database; made: how many keys were ever created."""
        living = {row.api_key_hash for row in at.rows.values() if row.state in LIVING}
        if at.remote.keys() != living:
            extra, missing = at.remote.keys() - living, living - at.remote.keys()
            self.broken("I1", f"at rest {len(extra)} keys are nobody's and {len(missing)} rows have no key", at)
        if at.unsettled():
            self.broken("I12", f"at rest the users {at.unsettled()} have too few keys or too many", at)
        for text in self.texts:
            if text.removeprefix("sk-or-v1-").encode() in everything:
                self.broken("I9", "the text of a key is in the database", at)
        if made > may_make:
            self.broken("I10", f"{made} keys were created, {may_make} would be all right", at)

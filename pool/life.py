"""The life of a pool key: who brought it, the states that it goes through, and what its row says meanwhile.

    intent ──> stored ──> active ──> draining ──> disabled ──> deleted
       └─> abandoned <─┘    └──> dead            quarantined ──┘

`intent` is written before OpenRouter is asked for the key, so that a crash in between leaves a name to look for;
`stored` has the key's text; only `active` and `enabled` rows are picked; `draining` ones finish what they carry;
`disabled` ones no longer work and wait to be deleted. `abandoned` never worked here, `dead` vanished at OpenRouter.
`quarantined` is a row whose text is damaged, or a key with our name that no row knew. No row is ever removed: its name
and hash are what tells our keys from others', and the ledger names rows by their ids. Only users' connected keys lose
their hash in the end: those are none of ours, and may be connected again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class PoolKeyState(StrEnum):
    """Where a key is in its life."""

    INTENT = "intent"
    STORED = "stored"
    ACTIVE = "active"
    DRAINING = "draining"
    DISABLED = "disabled"
    DELETED = "deleted"
    ABANDONED = "abandoned"
    DEAD = "dead"
    QUARANTINED = "quarantined"


# From where each state is reached; a move that does not start there changes nothing.
BEFORE = {
    PoolKeyState.DISABLED: {PoolKeyState.DRAINING},
    PoolKeyState.DELETED: {PoolKeyState.DISABLED, PoolKeyState.DRAINING, PoolKeyState.QUARANTINED},
    PoolKeyState.ABANDONED: {PoolKeyState.INTENT, PoolKeyState.STORED},
    PoolKeyState.DEAD: {PoolKeyState.STORED, PoolKeyState.ACTIVE},
    PoolKeyState.QUARANTINED: {PoolKeyState.STORED, PoolKeyState.ACTIVE, PoolKeyState.DRAINING},
}
WITHOUT_TEXT = {PoolKeyState.DELETED, PoolKeyState.ABANDONED, PoolKeyState.DEAD}


class PoolKeySource(StrEnum):
    """Who brought a key into the pool.

    Minted ones are disabled and deleted at OpenRouter in the end; so are unknown ones, which bear our name but no row
    knew them. Those that people brought are theirs; a connected one is of its owner's own account, which pays for it.
    """

    MINTED = "minted"
    ENVIRONMENT = "environment"
    OPERATOR = "operator"
    UNKNOWN = "unknown"
    CONNECTED = "connected"


@dataclass(frozen=True)
class PoolKeyRow:
    """A key as operators see it: everything but its text. Money in nano-dollars; None means no limit, or unknown.

    owner_id: the user whose own key this is; None for the keys that all share.
    """

    id: int
    name: str
    state: PoolKeyState
    source: PoolKeySource
    api_key_hash: str | None
    enabled: bool
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    last_used: datetime | None
    use_count: int
    account_id: str | None
    limit_nano: int | None
    remaining_nano: int | None
    usage_nano: int | None
    replaces_id: int | None
    renew_at: datetime | None
    drain_until: datetime | None
    drain_revision: int | None
    owner_id: int | None

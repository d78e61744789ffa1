"""Keys as OpenRouter describes them, read into our own types: to whom a key belongs, what it has spent and has left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from foundation import json_text
from foundation.crypto import sha256_hex
from foundation.deadline import TimeIsUp
from foundation.money import nano
from upstream.connection import UpstreamError
from upstream.http import UpstreamHttp
from upstream.openrouter.small_answers import ANSWER_SECONDS, MAX_ANSWER_BYTES

MAX_LABEL = 190


@dataclass(frozen=True)
class RemoteKey:
    """A key as OpenRouter lists it. Money in nano-dollars; None means no limit, or unknown.

    usage_today_nano: the part of its usage that belongs to the current UTC day. states_limit: as of KeyAccount.
    """

    name: str
    hash: str
    disabled: bool
    created_at: datetime
    limit_nano: int | None
    limit_reset: str | None
    remaining_nano: int | None
    usage_nano: int
    usage_today_nano: int | None = None
    states_limit: bool = False


@dataclass(frozen=True)
class KeyAccount:
    """What a key tells about itself. account_id: a hash that is equal for keys of one account.

    usage_today_nano: the part of its usage that belongs to the current UTC day. label: the key's ends, as OpenRouter
    shows them. budget_nano: what the tightest of its budgets has left. states_limit: False if the answer has no limit
    where we know to look for one, or not in a form that we can read.
    """

    account_id: str | None
    limit_nano: int | None
    remaining_nano: int | None
    usage_nano: int | None = None
    usage_today_nano: int | None = None
    is_management: bool = False
    label: str | None = None
    budget_nano: int | None = None
    states_limit: bool = False

    @property
    def spendable_nano(self) -> int | None:
        """What the key may still spend; None for any amount, or if that is unknown."""
        return min((nano for nano in (self.remaining_nano, self.budget_nano) if nano is not None), default=None)


def ask(upstream: UpstreamHttp, authorization: bytes) -> tuple[int, KeyAccount | None]:
    """What OpenRouter says to a key about itself: the answer's status, 0 for none, and what a 200 tells.

    authorization: the header line with the key.
    """
    try:
        status, body = upstream.get("/key", authorization, ANSWER_SECONDS, MAX_ANSWER_BYTES)
        if status != 200:
            return status, None
        return 200, key_account(described(json_text.parse(body)))
    except (UpstreamError, TimeIsUp, TypeError, ValueError, AttributeError, ArithmeticError):
        return 0, None


def described(answer: Any) -> Any:
    """What an answer about one key says of it: its `data`, or all of it. None if there is none."""
    is_flat = "data" not in answer and {"label", "usage", "limit"} & answer.keys()
    return answer if is_flat else answer.get("data")


def key_account(told: Any) -> KeyAccount:
    """The `data` of GET /key. Raises TypeError, ValueError, AttributeError or ArithmeticError if it is none.

    A 200 accepts the key, however it words the limit: what can't be read of that counts as unknown.
    """
    owner = told.get("organization_id") or told.get("creator_user_id")
    label = told.get("label")
    # Hashed: the id itself would tell whoever reads the database or a log which account it is.
    account_id = sha256_hex(f"openrouter-account {owner}") if owner else None
    return KeyAccount(
        account_id,
        limit_nano=_limit(told, "limit"),
        remaining_nano=_limit(told, "limit_remaining"),
        usage_nano=nano(told.get("usage")),
        usage_today_nano=nano(told.get("usage_daily")),
        is_management=bool(told.get("is_management_key") or told.get("is_provisioning_key")),
        label=label[:MAX_LABEL] if isinstance(label, str) else None,
        budget_nano=_budget(told.get("budgets")),
        states_limit=states_limit(told),
    )


def states_limit(told: Any) -> bool:
    """True if a description of a key says what its limit is; null says that there is none."""
    return isinstance(told, dict) and "limit" in told and (told["limit"] is None or _limit(told, "limit") is not None)


def _limit(told: Any, name: str) -> int | None:
    try:
        return nano(told.get(name))
    except (TypeError, ValueError, ArithmeticError):
        return None


def _budget(budgets: Any) -> int | None:
    left = (
        [_limit(one, "remaining_usd") for one in budgets if isinstance(one, dict)] if isinstance(budgets, list) else []
    )
    return min((nano for nano in left if nano is not None), default=None)


def remote_key(told: Any) -> RemoteKey:
    """An entry of GET /keys. Raises what `key_account` raises, or KeyError, if it is none."""
    created_at = datetime.fromisoformat(told["created_at"])
    return RemoteKey(
        name=str(told["name"]),
        hash=str(told["hash"]),
        disabled=bool(told["disabled"]),
        created_at=created_at if created_at.tzinfo else created_at.replace(tzinfo=UTC),
        limit_nano=_limit(told, "limit"),
        limit_reset=told.get("limit_reset"),
        remaining_nano=_limit(told, "limit_remaining"),
        usage_nano=nano(told.get("usage")) or 0,
        usage_today_nano=nano(told.get("usage_daily")),
        states_limit=states_limit(told),
    )

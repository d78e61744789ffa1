"""Leaving: all that is kept of one as a file, and the end of one's account."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from itertools import chain, count
from typing import Any, Literal

import orjson
from flask import Blueprint, Response

from accounts.caller import Caller
from accounts.step_up import Act
from accounts.users import User
from billing.reports.statistics import UsageFilter
from foundation.logs import event
from services import Services
from web.api import connect, recovery, second_factors
from web.http import answer, audit, check_fresh, services
from web.operation import Shown, Who, operation
from web.usage_query import midnight

routes = Blueprint("own_data_api", __name__, url_prefix="/api/auth")

log = logging.getLogger("accounts")

PAGE_SIZE = 500  # of what is read at once
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2999, 12, 31)
FILE = {"Content-Disposition": 'attachment; filename="my-data.json"', "Cache-Control": "no-store"}


class AccountDeleted(Shown):
    """There is no such account any more."""

    message: Literal["Account deleted"]


@routes.get("/export")
@operation("All that is kept of you", Who.USER, answers={200: ("application/json",)})
def export(caller: Caller) -> Response:
    """One JSON object: your account, how you log in, sessions, keys, favourites, usage, every call, and what happened.

    No secret is in it: keys and tokens are stored as hashes or sealed. An answer that broke off is no valid JSON.
    """
    return own_data(caller)


@routes.delete("/me")
@operation("Delete your account", Who.USER, answers={200: AccountDeleted}, refusals=(409,))
def delete(caller: Caller) -> Response:
    """Sessions, keys and tokens are refused everywhere within two seconds, and it can't be undone. The name is free.

    Takes a session that is not older than 15 minutes; 409 for the only one who may administer. What your calls have
    cost stays in the books, under a number.
    """
    delete_own_account(caller)
    return answer({"message": "Account deleted"})


# ── for the pages too


def own_data(caller: Caller) -> Response:
    """The file, written piece by piece."""
    user_id, found = caller.user_id, services()
    plain = {
        "account": _account(found.users.get(user_id)),
        "second_factor": second_factors.second_factor_shown(user_id),
        "recovery_codes": recovery.codes_shown(user_id),
        "openrouter_account": connect.shown(found.accounts.find(user_id)),
        "models": vars(found.favourite_models.of(user_id)),
    }
    audit(f"user/{user_id}", "data_exported", f"user/{user_id}", user_id)
    return Response(_written(plain, _lists(found, user_id)), headers=FILE, mimetype="application/json")


def delete_own_account(caller: Caller) -> None:
    """Delete the account of who asks. Raises SessionNotFresh, Conflict."""
    check_fresh(Act.DELETE_ACCOUNT)
    services().leaving.delete(caller.user_id, by_owner=True)
    subject = f"user/{caller.user_id}"
    services().audit.record(subject, "account_deleted", subject, caller.user_id)  # without the address
    event(log, "account_deleted", user_id=caller.user_id)


Items = Iterable[Any]


def _account(user: User) -> dict[str, Any]:
    return user.profile() | {"label": user.label}


def _lists(of: Services, user_id: int) -> dict[str, Items]:
    """What is read while it is written, each list in parts."""
    keys = of.watched_key_sync.keys.of_user(user_id)
    usage = UsageFilter(user_id, start=midnight(FIRST_DAY), end=midnight(LAST_DAY))
    return {
        "passkeys": [one.to_dict() for one in of.passkeys.of(user_id)],
        "log_ins_elsewhere": [one.to_dict() for one in of.sign_on.identities.of(user_id)],
        "sessions": (one.to_dict() for one in of.sessions.open_ones(user_id)),
        "client_keys": _client_keys(of, user_id),
        "api_tokens": _all(lambda page: of.api_tokens.page(user_id, page, PAGE_SIZE)[0]),
        "watched_keys": [key.to_dict() for key in keys],
        "watched_key_days": chain.from_iterable(_days(of, key.id) for key in keys),
        "usage_by_day": _all(lambda page: of.usage.days_and_models(usage, page, PAGE_SIZE)[0]),
        "requests": (item.to_dict() for items in of.usage_log.walk(UsageFilter(user_id)) for item in items),
        "events": (entry.to_dict() for entry in of.audit.walk(user_id)),
    }


def _client_keys(of: Services, user_id: int) -> Iterator[Any]:
    for row in _all(lambda page: of.client_keys.page(page, PAGE_SIZE, user_id, with_revoked=True)[0]):
        quota = of.quotas.find(row.quota_subject)
        yield row.to_dict(of.clock.now(), quota.to_dict() if quota else None)


def _days(of: Services, key_id: int) -> Iterator[dict[str, object]]:
    for _, day, cost_nano in of.watched_key_sync.keys.days([key_id], FIRST_DAY, LAST_DAY):
        yield {"watched_key_id": key_id, "date": day, "cost_nano": cost_nano}


def _all(page_of: Callable[[int], list[Any]]) -> Iterator[Any]:
    for page in count(1):
        items = page_of(page)
        yield from items
        if len(items) < PAGE_SIZE:
            return


def _written(plain: dict[str, Any], lists: dict[str, Items]) -> Iterator[bytes]:
    """One JSON object of both. Items are written some at a time: a generator's pieces are each sent by themselves."""
    yield orjson.dumps(plain)[:-1]
    for name, items in lists.items():
        yield b',"' + name.encode() + b'":['
        part, is_first = bytearray(), True
        for item in items:
            part += (b"" if is_first else b",") + orjson.dumps(item)
            is_first = False
            if len(part) >= 64 * 1024:
                yield bytes(part)
                part.clear()
        yield bytes(part) + b"]"
    yield b"}\n"

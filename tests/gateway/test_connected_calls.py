"""What calls do once their user has connected an OpenRouter account: whose key carries them, and who pays."""

# ruff: noqa: F811 - the fixtures of connecting.py are parameters here
from __future__ import annotations

from typing import Any

from tables import pool_keys, usage_ledger
from tests.support.connecting import ADMIN_TOKEN, Person, house, owner, teammate  # noqa: F401 - fixtures
from tests.support.gateway import refusal_of, wait_for

# ── as upstream


def upstream(person: Person, choice: str | None = None) -> Any:
    if choice is None:
        return person.gateway.get("/api/upstream", person.token).json()
    return person.gateway.ask("PUT", "/api/upstream", {"choice": choice}, person.token)


def test_the_choice_is_there_for_who_has_connected_an_account(house, owner, teammate):
    assert upstream(owner, "shared_first").status_code == 409
    assert upstream(owner)["dedicated"]["state"] == "off"
    owner.connect(limit=20)
    told = upstream(owner)
    shown = {name: told["dedicated"][name] for name in ("state", "is_connected", "limit_usd", "limit_reset")}
    assert shown == {"state": "active", "is_connected": True, "limit_usd": 20.0, "limit_reset": None}
    for choice, payer in (
        ("shared_first", house.account),
        ("dedicated_only", owner.own),
        ("dedicated_first", owner.own),
    ):
        assert upstream(owner, choice).status_code == 200
        wait_for(lambda payer=payer: house.payer(owner.token) == payer)
        assert [house.payer(owner.token) for _ in range(3)] == [payer] * 3
    assert upstream(teammate, "dedicated_only").status_code == 409
    assert house.payer(teammate.token) == house.account


def allow_none_but_the_own_key(person: Person) -> None:
    """In force when this returns: another choice was before it."""
    for choice, payer in (("shared_first", person.house.account), ("dedicated_only", person.own)):
        assert upstream(person, choice).status_code == 200
        wait_for(lambda payer=payer: person.house.payer(person.token) == payer)


def test_an_account_that_does_not_pay_lets_the_shared_keys_step_in_or_says_so(house, owner):
    owner.connect()
    allow_none_but_the_own_key(owner)
    assert house.stand_in.control("PATCH", "accounts", id=owner.own, balance=0)
    for _ in range(2):  # at the refusal itself, and while the account rests after it
        refused = house.gateway.chat(owner.token)
        assert refused.status_code == 402
        assert "Your OpenRouter account does not pay" in refusal_of(refused)
    assert upstream(owner, "dedicated_first").status_code == 200
    wait_for(lambda: house.gateway.chat(owner.token).status_code == 200)
    assert house.payer(owner.token) == house.account


def test_a_key_that_is_gone_at_openrouter_says_so_where_no_other_may_step_in(house, owner):
    key = owner.connect()
    allow_none_but_the_own_key(owner)
    for path in ("/chat/completions", "/key"):
        house.stand_in.control("POST", "faults", scenario="401b", path=path, key=key["hash"])
    for _ in range(2):  # at the refusal itself, and while the key rests after it
        refused = house.gateway.chat(owner.token)
        assert refused.status_code == 502
        assert "connect the account again" in refused.json()["message"]
    wait_for(lambda: owner.told()["state"] == "resting")
    assert upstream(owner, "dedicated_first").status_code == 200
    wait_for(lambda: house.gateway.chat(owner.token).status_code == 200)
    assert house.payer(owner.token) == house.account
    house.stand_in.control("DELETE", "faults")


# ── money


def test_what_the_own_account_pays_for_is_in_the_ledger_and_not_in_the_quota(house, owner, teammate):
    def quota() -> Any:
        return house.gateway.get("/api/quota", owner.token).json()

    def limited(person: Person, usd: float) -> None:
        path = f"/admin/quotas/user/{person.id}"
        assert house.gateway.ask("PUT", path, {"limit_usd": usd}, ADMIN_TOKEN).status_code == 200
        wait_for(lambda: house.gateway.chat(person.token).status_code == (402 if usd < 0.001 else 200))

    limited(owner, 0.0000001)
    key = owner.new_key()
    assert owner.post("/auth/validate-key", {"api_key": key["key"]}).status_code == 200
    wait_for(lambda: house.gateway.chat(owner.token).status_code == 200)
    assert house.payer(owner.token) == owner.own
    [own] = house.rows(pool_keys, owner_id=owner.id)
    costs = wait_for(lambda: house.rows(usage_ledger, user_id=owner.id, pool_key_id=own.id, state="settled")[1:])
    spent = house.stand_in.spent(key["hash"])
    wait_for(lambda: sum(row.cost_nano for row in house.rows(usage_ledger, pool_key_id=own.id)) == spent > 0)
    assert {(row.user_quota_id, row.reserved_nano) for row in costs} == {(None, 0)}

    def of_shared_keys() -> float:
        rows = house.rows(usage_ledger, user_id=owner.id, state="settled")
        return sum(row.cost_nano for row in rows if row.pool_key_id != own.id) / 10**9

    wait_for(lambda: quota()["spent_usd"] == of_shared_keys())
    before = quota()["spent_usd"]
    # A quota that begins anew begins without these costs, too; what is used is told with them.
    path = f"/admin/quotas/user/{owner.id}"
    assert house.gateway.ask("PUT", path, {"limit_usd": 5, "period": "week"}, ADMIN_TOKEN).status_code == 200
    assert quota()["spent_usd"] == before
    limited(teammate, 0.0000001)  # who has no account of their own is refused as ever
    assert owner.post("/logout").status_code == 200
    wait_for(lambda: house.payer(owner.token) == house.account)
    wait_for(lambda: quota()["spent_usd"] == of_shared_keys() > before)


def test_shared_keys_that_step_in_are_paid_by_the_quota(house, owner):
    owner.connect()
    path = f"/admin/quotas/user/{owner.id}"
    assert house.gateway.ask("PUT", path, {"limit_usd": 0.0000001}, ADMIN_TOKEN).status_code == 200
    assert upstream(owner, "shared_first").status_code == 200
    wait_for(lambda: house.gateway.chat(owner.token).status_code == 402)
    assert upstream(owner, "dedicated_first").status_code == 200
    wait_for(lambda: house.gateway.chat(owner.token).status_code == 200)

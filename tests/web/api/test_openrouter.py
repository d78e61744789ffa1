"""What clients read beside calling models: their own alone, in the form that OpenRouter's and OpenAI's SDKs expect."""

from __future__ import annotations

import pytest
import requests
from openrouter import OpenRouter

from billing.quotas.rows import Quotas
from config.settings import Config
from foundation.clock import Clock
from foundation.money import NANO
from tests.support.billing import Billing, user_of
from tests.support.gateway import Gateway, refusal_of, wait_for
from tests.support.lazily import Lazily
from tests.support.reads import data_of

openai = Lazily("openai")

ALIASES = ["/v1", "/api/v1"]
MODEL = "openai/gpt-4o-mini"


@pytest.fixture(scope="module")
def billing(billing_of_each_kind: Billing) -> Billing:
    return billing_of_each_kind


PATHS = ["/models", "/models/openai/gpt-4o", "/model/openai/gpt-4o", "/generation?id=gen-1", "/key", "/credits"]


@pytest.mark.parametrize("path", [alias + path for alias in ALIASES for path in PATHS] + ["/api/v1/auth/key"])
def test_a_stranger_learns_nothing(served, path):
    for token in (None, "not-a-token"):
        answer = served.get(path, token)
        assert answer.status_code == 401
        assert "Authorization" in refusal_of(answer)
    posted = served.post(path, {}, served.new_user())
    assert posted.status_code == 405


@pytest.mark.parametrize("path", [alias + path for alias in ALIASES for path in ("/models?limit=1000", "/key")])
def test_the_key_may_come_as_anthropics_clients_send_it(served, path):
    """Claude Code asks for the models with the header that it sends to /v1/messages."""
    someone, other = served.new_user(), served.new_user()

    def ask(**headers: str) -> int:
        return requests.get(served.url + path, headers=headers, timeout=30).status_code

    assert ask(**{"x-api-key": someone, "anthropic-version": "2023-06-01"}) == 200
    assert ask(**{"x-api-key": "", "Authorization": f"Bearer {someone}"}) == 200
    assert ask(**{"x-api-key": someone, "Authorization": ""}) == 200
    assert ask(**{"x-api-key": other, "Authorization": f"Bearer {someone}"}) == 400
    assert ask(**{"x-api-key": "not-a-token"}) == 401


# ── a call's record


def known_to_the_ledger(billing: Billing, generation_id: str) -> bool:
    return any(row.generation_id == generation_id for row in billing.rows())


@pytest.fixture(scope="module")
def owner(served: Gateway) -> str:
    return served.new_user()


@pytest.fixture(scope="module")
def made(served: Gateway, billing: Billing, owner: str) -> str:
    """A generation of the owner's, which the ledger knows."""
    generation_id: str = served.chat(owner).json()["id"]
    wait_for(lambda: known_to_the_ledger(billing, generation_id))
    return generation_id


@pytest.mark.parametrize("alias", ALIASES)
def test_the_owner_sees_the_record_without_our_account(served, billing, owner, made, alias):
    theirs = billing.stand_in.call("GET", "/generation", billing.keys[0]["key"], params={"id": made}).json()["data"]
    assert theirs["workspace_id"]
    answer = served.get(f"{alias}/generation?id={made}", owner)
    assert answer.json()["data"] == theirs | {"workspace_id": None}


def test_what_is_somebody_elses_looks_like_what_never_was(served, owner, made):
    other = served.new_user()
    refused = [served.get(f"/v1/generation?id={asked}", other) for asked in (made, "gen-1-none", "'OR'1'='1")]
    refused.append(served.get("/v1/generation?id=gen-1-none", owner))
    assert {answer.status_code for answer in refused} == {404}
    assert len({answer.content for answer in refused}) == 1
    assert "no such generation of yours" in refusal_of(refused[0])


def test_too_early_is_the_same_404_and_openrouters_absence_is_not(served, billing, owner, made):
    unknown = served.get("/v1/generation?id=gen-1-none", owner)
    stand_in, account = billing.stand_in, billing.account
    stand_in.control("POST", "faults", row="404-generation", path="/generation", account=account, times=2)
    early = served.get(f"/v1/generation?id={made}", owner)
    assert (early.status_code, early.content) == (404, unknown.content)
    stand_in.control("POST", "faults", row="502", path="/generation", account=account, times=1)
    assert served.get(f"/v1/generation?id={made}", owner).status_code == 502
    stand_in.control("POST", "faults", row="401b", path="/generation", account=account, times=2)
    refused = served.get(f"/v1/generation?id={made}", owner)
    assert refused.status_code == 503
    assert "User not found" not in refusal_of(refused)
    stand_in.control("DELETE", "faults")
    assert served.get(f"/v1/generation?id={made}", owner).status_code == 200


@pytest.mark.parametrize(
    "query", ["", "?id=", "?id=a&id=b", "?id=a&key=b", "?id=ü", "?id=a%20b", "?id=a%0A", "?id=" + "x" * 201]
)
def test_a_record_needs_one_id(served, owner, query):
    answer = served.get(f"/v1/generation{query}", owner)
    assert answer.status_code == 400
    assert "id" in refusal_of(answer) or "key" in refusal_of(answer)


def test_asking_for_records_counts_as_a_request(billing):
    limited = billing.gateway(RATE_LIMIT_USER_RPM=2)
    token = limited.new_user()
    assert [limited.get("/v1/generation?id=gen-1", token).status_code for _ in range(3)] == [404, 404, 429]
    assert limited.get("/v1/models", token).status_code == 200
    limited.stop()


# ── limits


@pytest.mark.parametrize("path", ["/v1/key", "/api/v1/key", "/api/v1/auth/key"])
def test_without_a_quota_there_is_no_limit(served, path):
    token = served.new_user()
    shown = data_of(served, path, token)
    assert shown["label"] == f"user/{user_of(token)}"
    assert (shown["limit"], shown["limit_remaining"], shown["limit_reset"]) == (None, None, None)
    assert (shown["usage"], shown["budgets"], shown["effective_budget"]) == (0, [], None)
    assert shown["is_free_tier"] is shown["is_management_key"] is False


def test_limits_and_usage_are_the_callers_own(served, billing):
    token, other = served.new_user(), served.new_user()
    billing.set_quota(user_of(token), 2 * NANO)
    Quotas(billing.db, Clock(), Config()).set(f"user/{user_of(other)}", 7 * NANO, None, "day", "reset")
    cost = served.chat(token).json()["usage"]["cost"]
    # An answer reads the quota first: the one that first shows the usage may show the quota of the moment before.
    wait_for(lambda: data_of(served, "/v1/key", token)["usage"])
    shown = data_of(served, "/v1/key", token)
    assert shown["usage"] == shown["usage_daily"] == shown["usage_weekly"] == shown["usage_monthly"] == cost
    assert (shown["limit"], shown["limit_reset"]) == (2, "monthly")
    # What a process holds for the next call counts as reserved.
    assert 0 <= shown["limit_remaining"] <= 2 - cost
    [budget] = shown["budgets"]
    assert budget == shown["effective_budget"]
    assert (budget["scope"], budget["limit_usd"], budget["reset_interval"]) == ("member", 2, "monthly")
    theirs = data_of(served, "/v1/key", other)
    assert (theirs["limit"], theirs["limit_remaining"], theirs["usage"]) == (7, 7, 0)
    assert theirs["limit_reset"] == "daily"
    assert billing.account not in str(shown)


def test_our_own_statistics_keep_their_paths(served):
    token = served.new_user()
    for path in ("/api/v1/stats", "/api/v1/usage", "/api/v1/keys"):
        assert served.get(path, token).status_code == 200


# OpenRouter's client warns of its own class for the obsolete `rate_limit` field, which OpenRouter still sends.
@pytest.mark.filterwarnings("ignore:warning. .. DEPRECATED:DeprecationWarning")
@pytest.mark.parametrize("alias", ALIASES)
def test_openrouters_client_reads_it_all(served, made, owner, alias):
    with OpenRouter(api_key=owner, server_url=served.url + alias) as client:
        assert MODEL in str(client.models.list())
        assert client.generations.get_generation(id=made).data.id == made
        assert client.api_keys.get_current_key_metadata().data.usage > 0


# ── credits


def test_credits_are_the_callers_own_quota(served, billing):
    """What is left is the tightest quota's; the pool's own account is nobody's."""
    token, other = served.new_user(), served.new_user()
    billing.set_quota(user_of(token), 2 * NANO)
    cost = served.chat(token).json()["usage"]["cost"]
    wait_for(lambda: data_of(served, "/v1/credits", token)["total_usage"])
    shown = data_of(served, "/api/v1/credits", token)
    assert shown["total_usage"] == cost
    assert cost <= shown["total_credits"] <= 2  # what a process holds for the next call counts as reserved
    assert data_of(served, "/v1/credits", other) == {"total_credits": 1_000_000, "total_usage": 0}
    # A client key's own limit holds too, and only its own calls are its usage.
    made = served.post("/api/api-keys", {"name": "k", "budget": {"limit_usd": 0.5, "period": "month"}}, token).json()
    assert data_of(served, "/v1/credits", made["key"]) == {"total_credits": 0.5, "total_usage": 0}
    assert served.get("/v1/credits").status_code == 401

"""Gateways that start while their database is away: they wait for it, or serve from the environment what may be spent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from cryptography.fernet import Fernet

from accounts.key_derivation import KeyDeriver
from accounts.users import Users
from config.settings import Config
from db import Database, NotAnswering, database_url
from foundation.clock import Clock
from foundation.crypto import DerivedKeyHasher
from services import build
from start_up import SHARED_DOMAIN
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.sandbox.conftest import Running
from tests.support.billing import Billing, user_of
from tests.support.gateway import Gateway, environment, new_derived_key, refusal_of, run, wait_for
from tests.support.mariadb import DatabaseServer
from tests.support.scripted_upstream import ScriptedUpstream, json_answer


def domain_of(url: str, **settings: object) -> str:
    """What a process that starts on this database tells clients to derive keys with."""
    services = build(Config(database_url=url, encryption_key=ENCRYPTION_KEY, secret_key=SECRET_KEY, **settings))
    try:
        return services.key_derivation.parameters["domain"]
    finally:
        services.db.close()


def test_each_database_has_a_domain_of_its_own_and_keeps_it(migrated_database_url, tmp_path):
    mine, other = domain_of(migrated_database_url), domain_of(f"sqlite:///{tmp_path}/other.db")
    assert mine.startswith("openrouter-proxy-")
    assert len({mine, other, SHARED_DOMAIN}) == 3
    database = Database(database_url(Config(database_url=migrated_database_url)))
    Users(database, b"k" * 32, Clock()).create("owner", "x")
    database.close()
    assert domain_of(migrated_database_url) == mine
    assert domain_of(migrated_database_url, kdf_domain="given") == "given"
    assert domain_of(migrated_database_url) == mine


def test_accounts_from_before_keep_the_domain_that_their_keys_were_derived_with(migrated_database_url):
    database = Database(database_url(Config(database_url=migrated_database_url)))
    Users(database, b"k" * 32, Clock()).create("owner", "x")
    database.close()
    assert [domain_of(migrated_database_url) for _ in range(2)] == [SHARED_DOMAIN] * 2


def test_nobody_is_told_a_domain_before_the_database_has_answered():
    derivation = KeyDeriver(DerivedKeyHasher(1, 1), None)
    with pytest.raises(NotAnswering):
        derivation.derive("ann", "pass")
    derivation.know_domain("mine")
    assert derivation.parameters["domain"] == "mine"


ADMIN_TOKEN = "Qd81-operators-own-Zx7Kp3Vt0Lm9Rw2Yc"
CREDIT_NANO = 350_000  # ten times what is reserved for a call; about
CREDIT_USD = CREDIT_NANO / 10**9


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    """A database server that the tests stop and start."""
    server = DatabaseServer(tmp_path_factory.mktemp("away"))
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def billing(
    server: DatabaseServer, start: Callable[..., Gateway], stand_in: Running, tmp_path: Path
) -> Iterator[Billing]:
    if server.process.poll() is not None:
        server.start()
    billing = Billing(start, stand_in, server.empty_database(), tmp_path)
    yield billing
    billing.close()


def ask(gateway: Gateway, token: str, upstream: str = "", stream: bool = False) -> requests.Response:
    body = {"model": "openai/gpt-4o-mini", "max_tokens": 40, "stream": stream}
    body["messages"] = [{"role": "user", "content": "Hi"}]
    return gateway.post("/v1/chat/completions", body, token, headers={"X-Upstream": upstream} if upstream else {})


def health(gateway: Gateway) -> tuple[int, str, str]:
    answer = gateway.get("/api/health")
    return answer.status_code, answer.json()["status"], answer.json()["database"]["status"]


def refused_for_now(answer: requests.Response) -> str:
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"]
    return refusal_of(answer)


@pytest.mark.parametrize("wsgi_server", ["granian", "gunicorn"])
def test_a_gateway_waits_for_its_database_and_serves_nobody_meanwhile(billing, server, wsgi_server):
    before = billing.gateway(ADMIN_TOKEN=ADMIN_TOKEN)
    token = before.new_user()
    made = before.ask("POST", "/api/api-keys", {"name": "one"}, token)
    client_key = made.json()["key"]
    ended = before.new_user()
    assert before.stop() == 0
    server.stop()
    gateway = billing.gateway(SERVER=wsgi_server, ADMIN_TOKEN=ADMIN_TOKEN)
    assert health(gateway) == (503, "unavailable", "unreachable")
    # A key that is right, and one that never was: nobody can tell them apart now, so neither is called wrong.
    for credential in (token, client_key, f"{client_key[:-4]}AAAA", ended):
        refused_for_now(ask(gateway, credential))
        refused_for_now(gateway.get("/api/usage/logs", credential))
    account = {"username": "somebody@example.com", "derived_key": new_derived_key()}
    refused_for_now(gateway.post("/register", account))
    refused_for_now(gateway.post("/login", account))
    refused_for_now(gateway.get("/admin/keys", ADMIN_TOKEN))
    assert billing.calls().total() == 0
    server.start()
    wait_for(lambda: health(gateway) == (200, "ok", "ok"))
    assert [ask(gateway, credential).status_code for credential in (token, client_key)] == [200, 200]
    assert ask(gateway, f"{client_key[:-4]}AAAA").status_code == 401
    assert gateway.post("/register", account).status_code == 201
    assert gateway.log().count("database_unreachable") == 1  # it was away for less than a minute
    billing.check(2)
    assert gateway.stop() == 0
    billing.check(2, nothing_reserved=True)


@pytest.fixture
def other() -> Iterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    usage = b'"usage":{"prompt_tokens":1000,"completion_tokens":500}'
    scripted.play("openai/gpt-4o-mini", json_answer("200 OK", b'{"id":"c","choices":[],' + usage + b"}"))
    yield scripted
    scripted.close()


def test_with_credit_a_gateway_serves_from_the_environment_until_its_database_is_there(billing, server, other):
    listed = [{"name": "priced", "base_url": other.url, "prices": {"*": {"prompt": 0.001, "completion": 0.002}}}]
    settings = {"ALLOW_PRIVATE_UPSTREAMS": "true", "UPSTREAMS": json.dumps(listed), "ADMIN_TOKEN": ADMIN_TOKEN}
    before = billing.gateway(**settings)
    one, another, spent = (before.new_user() for _ in range(3))
    client_key = before.ask("POST", "/api/api-keys", {"name": "one"}, one).json()["key"]
    billing.set_quota(user_of(spent), 0)
    assert before.post("/api/auth/logout", {}, another).status_code == 200
    assert before.stop() == 0
    server.stop()
    gateway = billing.gateway(CREDIT_WITHOUT_DATABASE_USD=CREDIT_USD, **settings)
    assert health(gateway) == (200, "degraded", "unreachable")
    assert ask(gateway, one).status_code == 200
    assert ask(gateway, one, stream=True).text.endswith("data: [DONE]\n\n")
    assert ask(gateway, one, upstream="priced").json()["id"] == "c"
    # What a signature does not say is not known: ends of sessions and quotas. So the credit has to be small.
    assert ask(gateway, another).status_code == 200
    calls = 0
    while (answer := ask(gateway, spent)).status_code == 200:
        calls += 1
    assert "you may spend meanwhile" in refused_for_now(answer)
    assert calls >= 10  # each gives back what it did not use
    assert ask(gateway, one).status_code == 200  # the credit is each user's own
    refused_for_now(ask(gateway, client_key))
    assert ask(gateway, f"{one[:-8]}AAAAAAAA").status_code == 401
    for path in ("/api/usage/logs", "/api/quota", "/v1/key"):
        refused_for_now(gateway.get(path, one))
    server.start()
    wait_for(lambda: health(gateway) == (200, "ok", "ok"))
    assert ask(gateway, one).status_code == 200
    assert ask(gateway, client_key).status_code == 200
    assert ask(gateway, another).status_code == 401
    wait_for(lambda: ask(gateway, spent).status_code == 402)  # within seconds, once the process has reported
    assert gateway.log().count("database_unreachable") == 1
    # Every call is billed to whom it was for, also those that were made before anything had an id.
    made = 6 + 1 + calls
    billing.at_rest(made + 1)
    settled = [row for row in billing.rows() if row.state == "settled"]
    assert len(settled) == made
    priced = [row for row in settled if row.source == "priced"]
    assert [row.cost_nano for row in priced] == [2000]
    assert sum(row.cost_nano for row in settled) - 2000 == billing.bill()
    overspent = sum(row.cost_nano for row in settled if row.user_id == user_of(spent))
    assert overspent == billing.quota(user_of(spent)).spent_nano <= CREDIT_NANO
    assert {(row.pool_key_id is None, row.upstream_id) for row in settled} == {(True, None), (False, None)}
    assert gateway.stop() == 0


def test_an_empty_database_that_comes_later_is_filled_from_the_environment(billing, server, other):
    server.stop()
    listed = [{"name": "later", "base_url": other.url}]
    settings = {"ALLOW_PRIVATE_UPSTREAMS": "true", "UPSTREAMS": json.dumps(listed)}
    gateway = billing.gateway(**settings)
    server.start()
    wait_for(lambda: health(gateway) == (200, "ok", "ok"))
    token = gateway.new_user()
    assert ask(gateway, token).status_code == 200
    assert ask(gateway, token, upstream="later").json()["id"] == "c"
    assert "upstreams_imported" in gateway.log()
    assert gateway.log().count("pool_key_imported") == len(billing.keys)


def test_with_another_encryption_key_a_gateway_that_waited_touches_nothing(billing, server):
    before = billing.gateway()
    token = before.new_user()
    assert before.stop() == 0
    database = billing._url.rpartition("/")[2]
    keys = server.execute("SELECT name, updated_at FROM api_keys ORDER BY id", database)
    sealed = server.execute("SELECT * FROM sealed_secrets", database)
    server.stop()
    gateway = billing.gateway(ENCRYPTION_KEY=Fernet.generate_key().decode(), CREDIT_WITHOUT_DATABASE_USD=CREDIT_USD)
    assert ask(gateway, token).status_code == 200
    server.start()
    wait_for(lambda: "database_refused" in gateway.log())
    assert "does not open with ENCRYPTION_KEY" in gateway.log()
    refused_for_now(gateway.post("/login", {"username": "a@example.com", "derived_key": new_derived_key()}))
    assert gateway.stop() == 0
    assert server.execute("SELECT name, updated_at FROM api_keys ORDER BY id", database) == keys
    assert server.execute("SELECT * FROM sealed_secrets", database) == sealed
    assert server.execute("SELECT * FROM usage_ledger", database) == ()
    assert list((billing.folder / "data-2" / "journal").glob("*.jsonl"))  # what was called waits for the right key


@pytest.mark.parametrize(
    "command",
    [["key_rotation.py", "--status"], ["-m", "flask", "--app", "app", "users", "list"]],
    ids=["rotation", "users"],
)
def test_commands_say_in_one_line_that_the_database_is_away(billing, server, command):
    gateway = billing.gateway()
    settings = {name: value for name, value in gateway.settings.items() if name not in environment()}
    assert gateway.stop() == 0
    server.stop()
    ended = run(*command, **settings)
    assert ended.returncode == 1
    assert "database does not answer" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_listed_upstream_that_can_not_be_used_is_refused_without_the_database_too(billing, server):
    server.stop()
    settings = {"DATABASE_URL": billing._url, "UPSTREAMS": '[{"name":"one","base_url":"https://127.0.0.1"}]'}
    ended = run("app.py", DATA_DIR=billing.folder, **billing._secrets, **settings)
    assert ended.returncode == 1
    assert "UPSTREAMS, item 1: base_url can't be used" in ended.stderr

"""GET /metrics on real gateways: closed unless it is opened, true over all workers, and nobody's name in it."""

from __future__ import annotations

import re
import signal
from contextlib import suppress

import psutil
import pytest
import requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from tests.metrics.conftest import TOKEN
from tests.support.gateway import check_headers, new_derived_key, refusal_of, wait_for


def samples(gateway, **headers):
    answer = requests.get(f"{gateway.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}", **headers}, timeout=30)
    assert answer.status_code == 200, answer.text
    parse = openmetrics if answer.headers["Content-Type"].startswith("application/openmetrics-text") else plain
    return {
        (one.name.removeprefix("openrouter_proxy_"), *(one.labels[name] for name in sorted(one.labels))): one.value
        for family in parse(answer.text)
        for one in family.samples
    }


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def served(request, start, stand_in, pool_keys):
    return start(
        SERVER=request.param,
        SERVER_WORKERS=2,
        SERVER_THREADS=32,
        METRICS_TOKEN=TOKEN,
        OPENROUTER_API_URL=stand_in.address,
        OPENROUTER_API_KEYS=pool_keys[0]["key"],
    )


def test_calls_of_all_workers_are_counted_with_their_times_tokens_and_cost(served):
    person, teammate = served.new_user(), served.new_user()
    before = samples(served)
    for token in (person, teammate) * 5:
        assert served.chat(token).status_code == 200
    assert served.chat(person, "nobody/made-this-up").status_code >= 400
    served.open_chat(teammate, "openai/gpt-4o-mini").close()

    model, now = "openai/gpt-4o-mini", {}

    def grown(*key):
        now.update(samples(served))
        return now.get(key, 0) - before.get(key, 0)

    wait_for(lambda: grown("calls_total", model, "complete") >= 10)
    wait_for(lambda: grown("calls_total", "other", "refused") + grown("calls_total", "other", "failed") >= 1)
    assert grown("call_seconds_count", model) >= 10
    assert grown("first_byte_seconds_count", model) >= 10
    assert grown("tokens_total", "prompt", model) > 0 < grown("tokens_total", "completion", model)
    assert grown("cost_usd_total", model) > 0
    assert not [key for key in now if "made-this-up" in str(key)]
    assert now["processes",] == 2
    assert now["requests_limit", "calls"] == 64
    assert now["pool_keys", "usable"] == 1
    assert now["database_seconds_count", "write"] > 0


def test_refusals_at_the_door_and_log_ins_are_counted(served):
    account = served.new_account()
    person = served.post("/login", account).json()["token"]
    before = samples(served)
    assert served.post("/login", account | {"derived_key": new_derived_key()}).status_code == 401
    assert served.post("/login", account).status_code == 200
    assert served.chat("not-a-token").status_code == 401
    assert served.post("/v1/chat/completions", {"no": "model"}, person).status_code == 400

    def grew(*key):
        return lambda: samples(served).get(key, 0) - before.get(key, 0) >= 1

    wait_for(grew("log_ins_total", "key", "login_failed"))
    wait_for(grew("log_ins_total", "key", "succeeded"))
    wait_for(grew("errors_total", "authentication_error"))
    wait_for(grew("errors_total", "invalid_request"))


def test_what_was_told_once_outlives_a_killed_worker(start, stand_in, pool_keys):
    more = {"OPENROUTER_API_URL": stand_in.address, "OPENROUTER_API_KEYS": pool_keys[0]["key"]}
    gateway = start(SERVER_WORKERS=2, SERVER_THREADS=32, METRICS_TOKEN=TOKEN, **more)
    person, teammate = gateway.new_user(), gateway.new_user()

    def answered():
        return samples(gateway).get(("calls_total", "openai/gpt-4o-mini", "complete"), 0)

    for token in (person, teammate) * 5:
        assert gateway.chat(token).status_code == 200
    wait_for(lambda: answered() == 10)
    assert {answered() for _ in range(10)} == {10}, "whichever worker is asked"
    worker = max(psutil.Process(gateway.process.pid).children(recursive=True), key=lambda one: one.pid)
    worker.send_signal(signal.SIGKILL)
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)

    def both_serve():
        with suppress(requests.ConnectionError):  # of those that waited for the dead one
            return samples(gateway)["processes",] == 2
        return False

    wait_for(both_serve)
    assert answered() == 10
    assert gateway.chat(teammate).status_code == 200
    wait_for(lambda: answered() == 11)


def test_both_formats_and_nobodys_name(served):
    person = served.new_account()
    token = served.post("/login", person).json()["token"]
    assert served.chat(token).status_code == 200
    assert samples(served, Accept="application/openmetrics-text;version=1.0.0").keys() >= {("processes",)}
    answer = served.get("/metrics", TOKEN)
    check_headers(answer)
    for secret in (person["username"], token, "sk-or-", "env/", "127.0.0.1"):
        assert secret not in answer.text
    assert not re.search(r"[0-9a-f]{32}", answer.text)


def test_nobody_else_reads_them(served):
    person = served.new_user()
    for token in (None, person, "", TOKEN[:-1], TOKEN + "x", "or_op_" + "a" * 40):
        answer = served.get("/metrics", token)
        assert answer.status_code == 401, token
        assert "METRICS_TOKEN" in refusal_of(answer)
        assert "openrouter_proxy" not in answer.text
    assert served.post("/metrics", {}, TOKEN).status_code == 405
    assert served.get("/metrics?name=x", TOKEN).status_code == 400
    assert served.get("/admin/users", TOKEN).status_code == 401, "it opens nothing else"


def test_without_a_token_there_are_none_and_an_empty_one_is_none(start, stand_in):
    for more in ({}, {"METRICS_TOKEN": ""}):
        gateway = start(OPENROUTER_API_URL=stand_in.address, **more)
        for token in (None, "", TOKEN):
            answer = gateway.get("/metrics", token)
            assert answer.status_code == 404
            assert "METRICS_TOKEN is not set" in refusal_of(answer)

"""Videos from the start of a job to its film and its bill, through real gateways, on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests
import sqlalchemy as sa

from formats.videos import MAX_FILMS
from foundation.clock import Clock
from foundation.money import NANO
from tables import usage_ledger, video_jobs
from tests.sandbox.conftest import Running
from tests.support.billing import Billing, user_of
from tests.support.gateway import Gateway, refusal_of, shown, wait_for

MODEL = "google/veo-3.1"
ASKED = {"model": MODEL, "prompt": "A serene mountain landscape at sunset", "duration": 8}
COST_NANO = 8 * NANO // 20  # 0.05 $ a second, at the stand-in
FOR_EVER_MS = 10**9


@pytest.fixture(scope="module")
def billing(billing_of_each_kind: Billing) -> Billing:
    return billing_of_each_kind


@pytest.fixture(scope="module")
def gateway(billing: Billing) -> Gateway:
    return billing.gateway(PUBLIC_URL="https://gateway.example")


@pytest.fixture(autouse=True)
def _with_patient_jobs(stand_in: Running) -> Iterator[None]:
    stand_in.control("POST", "settings", video_ms=FOR_EVER_MS)
    yield
    stand_in.control("DELETE", "faults")
    stand_in.control("POST", "videos")
    stand_in.control("POST", "settings", video_ms=3000, video_bytes=65_536, generation_same_key_only=False)


def begin(gateway: Gateway, token: str, **fields: Any) -> Any:
    answer = gateway.post("/v1/videos", ASKED | fields, token)
    assert answer.status_code == 202, answer.text
    return answer.json()


def end(stand_in: Running, job_id: str, status: str = "completed", **more: Any) -> None:
    stand_in.control("POST", "videos", id=job_id, status=status, **more)


def job_of(gateway: Gateway, token: str, job_id: str) -> Any:
    return shown(gateway.get(f"/v1/videos/{job_id}", token))


def row_of(billing: Billing, job_id: str) -> Any:
    """The ledger's row of a job's call."""
    with billing.db.reading() as tx:
        found = tx.execute(sa.select(video_jobs).where(video_jobs.c.id == job_id)).one()
    return next(row for row in billing.rows() if (row.request_id, row.attempt) == (found.request_id, found.attempt))


def settled(billing: Billing, job_id: str) -> Any:
    return wait_for(lambda: (row := row_of(billing, job_id)).state != "pending" and row)


def limit(billing: Billing, gateway: Gateway, token: str, nano: int) -> None:
    """Set a user's quota, and wait until the gateway goes by it."""
    billing.set_quota(user_of(token), nano)
    wait_for(lambda: gateway.post("/v1/videos", {}, token).headers.get("X-Quota-Limit"))


def kill(gateway: Gateway) -> None:
    """All of its processes at once."""
    for process in (gateway.process, *psutil.Process(gateway.process.pid).children(recursive=True)):
        process.kill()


def test_a_job_is_started_asked_for_and_fetched_by_whom_it_belongs_to_alone(billing, gateway, stand_in):
    owner, other = gateway.new_user(), gateway.new_user()
    job = begin(gateway, owner)
    path = f"/api/v1/videos/{job['id']}"
    assert job == {"id": job["id"], "polling_url": path, "status": "pending"}
    for token in (owner, other):
        assert gateway.get(path, token).status_code == (200 if token is owner else 404)
    early = gateway.get(path + "/content", owner)
    assert (early.status_code, "must be completed" in refusal_of(early)) == (400, True)
    end(stand_in, job["id"])
    done = job_of(gateway, owner, job["id"])
    assert done["status"] == "completed"
    assert done["unsigned_urls"] == [f"https://gateway.example{path}/content?index=0"]
    assert done["usage"] == {"cost": COST_NANO / NANO, "is_byok": False}
    film = gateway.get(path + "/content?index=0", owner)
    assert (film.status_code, film.headers["Content-Type"], len(film.content)) == (200, "video/mp4", 65_536)
    assert film.content[4:12] == b"ftypmp42"
    for what in ("", "/content"):
        refused = gateway.get(path + what, other)
        assert (refused.status_code, refusal_of(refused)) == (404, "There is no such video of yours")
    assert shown(gateway.get(f"/v1/generation?id={done['generation_id']}", owner))["data"]["api_type"] == "videos"
    billing.at_rest()


def test_the_reservation_is_held_until_the_cost_is_known_and_it_is_billed_once(billing, gateway, stand_in):
    owner, other = gateway.new_user(), gateway.new_user()
    for token in (owner, other):
        limit(billing, gateway, token, NANO)
    job = begin(gateway, owner)
    row = row_of(billing, job["id"])
    assert (row.state, row.reserved_nano, row.http_status, row.outcome) == ("pending", COST_NANO, 202, "complete")
    assert billing.quota(user_of(owner)).reserved_nano >= COST_NANO
    # What is held can't be spent a second time.
    begin(gateway, owner)
    third = gateway.post("/v1/videos", ASKED, owner)
    assert third.status_code == 402
    end(stand_in, job["id"], cost=0.3)
    for _ in range(3):
        assert job_of(gateway, owner, job["id"])["usage"]["cost"] == 0.3
    row = row_of(billing, job["id"])
    assert (row.state, row.source, row.cost_nano) == ("settled", "job", 3 * NANO // 10)
    assert billing.quota(user_of(owner)).spent_nano == 3 * NANO // 10
    begin(gateway, other)


def test_a_job_that_nobody_asks_for_is_billed_too(billing, gateway, stand_in):
    owner = gateway.new_user()
    job = begin(gateway, owner)
    end(stand_in, job["id"])
    row = settled(billing, job["id"])
    assert (row.state, row.source, row.cost_nano) == ("settled", "job", COST_NANO)


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
def test_a_job_that_fails_costs_nothing_and_gives_the_reservation_back(billing, gateway, stand_in, status):
    owner = gateway.new_user()
    limit(billing, gateway, owner, COST_NANO)
    job = begin(gateway, owner)
    end(stand_in, job["id"], status)
    told = job_of(gateway, owner, job["id"])
    assert (told["status"], "could not be made" in told["error"], "usage" in told) == (status, True, False)
    assert row_of(billing, job["id"]).state == "void"
    assert billing.quota(user_of(owner)).spent_nano == 0
    wait_for(lambda: gateway.post("/v1/videos", ASKED, owner).status_code == 202)


def test_a_killed_gateway_loses_no_job_and_bills_none_twice(billing, gateway, stand_in):
    first = billing.gateway()
    owner, other = first.new_user(), first.new_user()
    jobs = [begin(first, owner) for _ in range(3)]
    kill(first)
    # Another gateway knows them at once, and adopts the dead one's journal over the same rows.
    assert [job_of(gateway, owner, job["id"])["status"] for job in jobs] == ["pending"] * 3
    end(stand_in, jobs[0]["id"])
    end(stand_in, jobs[1]["id"], "failed")
    assert job_of(gateway, owner, jobs[0]["id"])["status"] == "completed"
    assert settled(billing, jobs[1]["id"]).state == "void"
    second = billing.gateway(folder=billing.folder / f"data-{billing._begun}")
    wait_for(lambda: "journal_adopted" in second.log() or "journal_adopted" in gateway.log())
    assert row_of(billing, jobs[2]["id"]).state == "pending"
    end(stand_in, jobs[2]["id"])
    assert [settled(billing, job["id"]).state for job in jobs] == ["settled", "void", "settled"]
    mine = [row for row in billing.rows() if row.user_id == user_of(owner)]
    assert sum(row.cost_nano or 0 for row in mine) == 2 * COST_NANO == billing.quota(user_of(owner)).spent_nano
    assert second.chat(other).status_code == 200


def test_a_client_key_has_its_own_jobs_scope_and_models(billing, gateway, stand_in):
    owner = gateway.new_user()

    def key(**fields: Any) -> str:
        made: str = shown(gateway.post("/api/api-keys", {"name": "k"} | fields, owner), 201)["key"]
        return made

    films, others, chats = key(scopes=["videos"]), key(), key(scopes=["chat"])
    other_model = key(models=["openai/gpt-4o"])
    job = begin(gateway, films)
    path = f"/v1/videos/{job['id']}"
    assert [gateway.get(path, token).status_code for token in (films, owner, others)] == [200, 200, 404]
    for answer in (
        gateway.post("/v1/videos", ASKED, chats),
        gateway.get(path, chats),
        gateway.get(path + "/content", chats),
    ):
        assert (answer.status_code, "videos" in refusal_of(answer)) == (403, True)
    assert gateway.post("/v1/videos", ASKED, other_model).status_code == 403
    models = [one["id"] for one in shown(gateway.get("/v1/videos/models", films))["data"]]
    assert (models, shown(gateway.get("/v1/videos/models", other_model))["data"]) == ([MODEL], [])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "`model` is missing"),
    ({"model": 5}, "`model` must be a string"),
    ({"prompt": ""}, "`prompt` must be a text"),
    ({"prompt": ["a"]}, "`prompt` must be a text"),
    ({"prompt": None}, "`prompt` must be a text"),
    ({"duration": 0}, "`duration` must be a whole number"),
    ({"duration": "8"}, "`duration` must be a whole number"),
    ({"duration": 1e9}, "`duration` must be a whole number"),
    ({"frame_images": []}, "`frame_images` must be a non-empty list"),
    ({"frame_images": "x"}, "`frame_images` must be a non-empty list"),
    ({"input_references": [1]}, "`input_references` must be a non-empty list"),
    ({"stream": True}, "not streamed"),
    ({"callback_url": "https://example.com/hook"}, "`callback_url` does not work here"),
]


def test_bad_input_is_a_400_and_nothing_goes_up(billing, gateway, stand_in):
    owner = gateway.new_user()
    stand_in.control("DELETE", "log")
    for fields, reason in BAD:
        answer = gateway.post("/v1/videos", {k: v for k, v in (ASKED | fields).items() if v is not None}, owner)
        assert (answer.status_code, reason in refusal_of(answer)) == (400, True), (fields, answer.text)
    for query in (f"index={MAX_FILMS}", "index=-1", "index=x", "index=0&index=1", "other=1"):
        assert gateway.get(f"/v1/videos/job-1/content?{query}", owner).status_code == 400, query
    for job_id in ("none", "..%2Fkeys", "%00", "a" * 200, "job%20x"):
        assert gateway.get(f"/v1/videos/{job_id}", owner).status_code == 404, job_id
    logged = [one["path"] for one in stand_in.control("GET", "log")["requests"] if one["method"] == "POST"]
    assert [path for path in logged if "/videos" in path] == []
    rows = wait_for(
        lambda: len(found := [r for r in billing.rows() if r.user_id == user_of(owner)]) == len(BAD) and found
    )
    assert {(row.state, row.reserved_nano, row.http_status) for row in rows} == {("void", 0, 400)}


def test_pictures_alone_start_a_job_too(gateway):
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}, "frame_type": "first_frame"}
    asked = {"model": MODEL, "frame_images": [picture]}
    assert gateway.post("/v1/videos", asked, gateway.new_user()).status_code == 202


def test_what_may_have_begun_is_not_started_again(billing, gateway, stand_in):
    owner, other = gateway.new_user(), gateway.new_user()
    for scenario in ("502", "drop"):
        stand_in.control("DELETE", "log")
        stand_in.control("POST", "faults", scenario=scenario, path="/videos", method="POST", account=billing.account)
        assert gateway.post("/v1/videos", ASKED, owner).status_code == 502
        stand_in.control("DELETE", "faults")
        tries = [one for one in stand_in.control("GET", "log")["requests"] if one["path"].endswith("/videos")]
        assert len(tries) == 1, scenario
    begin(gateway, other)


def test_a_refused_key_is_followed_by_another_one(billing, gateway, stand_in):
    owner = gateway.new_user()
    stand_in.control("POST", "faults", scenario="401b", path="/videos", method="POST", account=billing.account, times=1)
    job = begin(gateway, owner)
    assert row_of(billing, job["id"]).attempt == 2


def test_it_is_asked_with_the_key_that_started_it(billing, gateway, stand_in):
    stand_in.control("POST", "settings", generation_same_key_only=True)
    owner = gateway.new_user()
    jobs = [begin(gateway, owner) for _ in range(4)]
    assert [job_of(gateway, owner, job["id"])["status"] for job in jobs] == ["pending"] * 4


def test_a_film_passes_as_it_comes(billing, gateway, stand_in):
    owner = gateway.new_user()
    stand_in.control("POST", "settings", video_bytes=30_000_000)
    job = begin(gateway, owner)
    end(stand_in, job["id"])
    url = f"{gateway.url}/v1/videos/{job['id']}/content"
    head = requests.head(url, headers={"Authorization": f"Bearer {owner}"}, timeout=30)
    assert (head.status_code, head.headers["Content-Length"]) == (200, "30000000")
    whole = gateway.get(f"/v1/videos/{job['id']}/content", owner)
    assert len(whole.content) == 30_000_000


def test_another_upstream_makes_no_videos(gateway):
    owner = gateway.new_user()
    answer = requests.post(
        f"{gateway.url}/v1/videos",
        json=ASKED,
        headers={"Authorization": f"Bearer {owner}", "X-Upstream": "nowhere"},
        timeout=30,
    )
    assert answer.status_code == 400


def test_everything_that_was_billed_is_in_the_ledger(billing, gateway, stand_in):
    """After all the tests above, whatever they broke."""
    stand_in.control("POST", "videos")
    due = sa.update(usage_ledger).where(usage_ledger.c.state == "pending").values(next_check_at=Clock().now())
    billing.db.transact(lambda tx: tx.execute(due))  # or it would be minutes for those that were asked for often
    rows = billing.at_rest()
    unknown = [row for row in rows if row.state == "unknown"]
    assert len(unknown) == 1  # of the answer that was dropped
    assert sum(row.cost_nano or 0 for row in rows) + COST_NANO == billing.bill()

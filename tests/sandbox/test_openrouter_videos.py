"""The stand-in's videos: jobs that take their time, belong to an account, and are billed when they are over."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.conftest import Running
from tests.support.gateway import wait_for

ASKED = {"model": "google/veo-3.1", "prompt": "a mountain", "duration": 8}


@pytest.fixture
def key(stand_in: Running) -> Any:
    yield stand_in.new_key()
    stand_in.control("POST", "videos")
    stand_in.control("POST", "settings", video_ms=3000, generation_same_key_only=False)


def start(stand_in: Running, key: Any) -> str:
    answer = stand_in.call("POST", "/videos", key["key"], json=ASKED)
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    found: str = answer.json()["id"]
    return found


def test_a_job_comes_to_its_end_by_itself_and_is_billed_then(stand_in, key):
    stand_in.control("POST", "settings", video_ms=50)
    job_id = start(stand_in, key)
    done = wait_for(
        lambda: (job := stand_in.call("GET", f"/videos/{job_id}", key["key"]).json())["status"] == "completed" and job
    )
    assert done["usage"] == {"cost": 0.4, "is_byok": False}
    film = stand_in.call("GET", f"/videos/{job_id}/content?index=0", key["key"])
    assert (film.headers["content-type"], film.content[4:12]) == ("video/mp4", b"ftypmp42")
    bill = stand_in.control("GET", "bill")["accounts"][key["account"]]
    assert (bill["nano"], bill["reserved_nano"]) == (400_000_000, 0)


def test_a_job_ends_as_it_is_told(stand_in, key):
    stand_in.control("POST", "settings", video_ms=10**9)
    job_id = start(stand_in, key)
    assert stand_in.call("GET", f"/videos/{job_id}/content", key["key"]).status_code == 400
    assert stand_in.control("GET", "bill")["accounts"][key["account"]]["reserved_nano"] == 400_000_000
    stand_in.control("POST", "videos", id=job_id, status="failed")
    assert stand_in.call("GET", f"/videos/{job_id}", key["key"]).json()["error"]
    bill = stand_in.control("GET", "bill")["accounts"][key["account"]]
    assert (bill["nano"], bill["reserved_nano"]) == (0, 0)


def test_a_job_is_its_accounts(stand_in, key):
    job_id = start(stand_in, key)
    same, other = stand_in.new_key(account=key["account"]), stand_in.new_key()
    assert [stand_in.call("GET", f"/videos/{job_id}", k["key"]).status_code for k in (same, other)] == [200, 404]
    stand_in.control("POST", "settings", generation_same_key_only=True)
    assert [stand_in.call("GET", f"/videos/{job_id}", k["key"]).status_code for k in (same, key)] == [404, 200]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"model": "openai/gpt-4o"}, 400),
        ({"duration": 0}, 400),
        ({"prompt": None}, 400),
        ({"model": "sandbox/402d"}, 402),
    ],
)
def test_refusals(stand_in, key, fields, status):
    asked = {name: value for name, value in (ASKED | fields).items() if value is not None}
    assert stand_in.call("POST", "/videos", key["key"], json=asked).status_code == status

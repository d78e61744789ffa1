"""A job is shown by a list, with addresses that lead back here; names that no path can hold are none."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from formats.videos import MAX_FILMS, generation_id_in, job_id_in, shown

HERE = "/api/v1/videos/job-1"


@pytest.mark.parametrize("name", ["job-1", "a", "A.b_c~d:e", "x" * 128])
def test_names(name):
    assert job_id_in({"id": name, "status": "pending"}) == name


@pytest.mark.parametrize("name", [None, 5, "", ".", "..", "../keys", "a/b", "a?b", "a b", "ü", "x" * 129, "a\n"])
def test_no_names(name):
    assert job_id_in({"id": name, "status": "pending"}) is None
    assert job_id_in({"id": "job-1"}) is None


@pytest.mark.parametrize(
    ("told", "name"), [("gen-1", "gen-1"), (None, None), ("", None), ("ü", None), ("x" * 65, None)]
)
def test_generations(told, name):
    assert generation_id_in({"generation_id": told}) == name


def test_what_is_of_the_account_is_not_shown():
    job = {
        "id": "job-1",
        "polling_url": "https://openrouter.ai/api/v1/videos/job-1",
        "status": "completed",
        "generation_id": "gen-1",
        "unsigned_urls": ["https://storage.example/1.mp4", "https://storage.example/2.mp4"],
        "urls": ["https://storage.example/signed"],
        "usage": {"cost": Decimal("0.25"), "is_byok": False, "account": "user_1"},
        "user_id": "user_2dHFtVWx2n56w6HkM0000000000",
        "workspace_id": "0df9e665-d932-5740-b2c7-b52af166bc11",
    }
    assert json.loads(shown(job, "job-1", "https://here.example")) == {
        "id": "job-1",
        "polling_url": HERE,
        "status": "completed",
        "generation_id": "gen-1",
        "unsigned_urls": [f"https://here.example{HERE}/content?index={at}" for at in (0, 1)],
        "usage": {"cost": 0.25, "is_byok": False},
    }


def test_what_is_null_or_odd_is_left_out():
    odd = {"status": "pending", "generation_id": None, "unsigned_urls": None, "usage": None, "error": None}
    assert json.loads(shown(odd, "job-1")) == {"id": "job-1", "polling_url": HERE, "status": "pending"}
    for cost in (None, True, "1", Decimal("1e999"), 10**400, -1, Decimal("-0.1")):
        assert json.loads(shown({"status": "completed", "usage": {"cost": cost}}, "job-1"))["usage"] == {
            "cost": None,
            "is_byok": False,
        }
    many = json.loads(shown({"status": "completed", "unsigned_urls": ["x"] * 1000}, "job-1"))
    assert len(many["unsigned_urls"]) == MAX_FILMS


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("it was refused", "it was refused"),
        ({"message": "it was refused", "code": 400}, "it was refused"),
        ({"code": 400}, "The job failed"),
        ("of user_2dHFtVWx2n56w6HkM0000000000 with sk-or-v1-" + "a" * 64, None),
    ],
)
def test_errors_are_texts_without_what_is_of_the_account(error, words):
    told = json.loads(shown({"status": "failed", "error": error}, "job-1"))["error"]
    assert told == words if words else not ("user_2d" in told or "aaaa" in told)

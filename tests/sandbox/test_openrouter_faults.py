"""Every row of the fault table gives its status and body, and only what is meant to be filled in is filled in."""

import json

import pytest

from sandbox.openrouter_faults import ROWS, FaultRow

DOCUMENTED = (
    *("400", "401a", "401b", "401c", "402a", "402b", "402c", "402d", "404a", "404b", "408", "412", "413", "422"),
    *("403a", "403b", "403c", "403d", "403e", "403f", "403g", "429a", "429b", "429c", "429d", "499", "500", "502"),
    *("503", "503-routing", "504", "520", "521", "522", "523", "524", "529"),
)


@pytest.fixture(scope="module")
def key(stand_in):
    return stand_in.new_key()


@pytest.mark.parametrize("label", sorted({*ROWS, *DOCUMENTED}))
@pytest.mark.parametrize("stream", [False, True])
def test_every_row_is_answered_by_the_name_of_its_model(stand_in, key, label, stream):
    row = ROWS[label]
    answer = stand_in.chat(key["key"], f"sandbox/{label}", stream=stream)
    assert answer.status_code == row.status
    assert "$" not in answer.text.replace("$500.00", "")
    if row.html:
        assert answer.headers["content-type"].startswith("text/html")
    elif row.status >= 400:
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"]["code"] == (row.document["error"]["code"] if row.document else row.status)
        assert answer.json()["error"]["message"]
        assert ("user_id" in answer.json()) == row.names_account


def test_rows_hold_what_must_not_leak(stand_in, key):
    assert stand_in.chat(key["key"], "sandbox/402c").json()["user_id"] == key["account"]
    assert key["key"] in stand_in.chat(key["key"], "sandbox/500").text
    moderated = stand_in.chat(key["key"], "sandbox/403a").json()["error"]["metadata"]
    assert moderated["flagged_input"] == "Hello"
    assert moderated["model_slug"] == "sandbox/403a"
    shared = stand_in.chat(key["key"], "sandbox/429c").json()["error"]["metadata"]
    assert shared["raw"].startswith("sandbox/429c is temporarily rate-limited upstream.")
    assert shared["remedy_hint"]


@pytest.mark.parametrize("label", ["402a", "429c", "503"])
def test_the_wait_is_named_in_headers_and_body(stand_in, key, label):
    answer = stand_in.chat(key["key"], f"sandbox/{label}?retry_after=37")
    assert answer.headers["retry-after"] == "37"
    if label == "429c":
        assert answer.json()["error"]["metadata"]["retry_after_seconds"] == 37


def test_a_redirect_shows_what_was_sent_after_it(stand_in, key):
    answer = stand_in.chat(key["key"], "sandbox/307")
    assert (answer.status_code, answer.headers["location"]) == (307, "/sandbox/redirected")


def test_values_are_not_filled_in_twice():
    row = FaultRow(400, "$PROMPT and $KEY")
    body = json.loads(row.reply({"PROMPT": '"$KEY"\n', "KEY": "secret"}).body)
    assert body["error"]["message"] == '"$KEY"\n and secret'

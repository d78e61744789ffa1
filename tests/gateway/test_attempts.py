"""What is tried again before the first content, with which key, how often; and what never is."""

import json
import logging
import threading
from datetime import UTC, datetime

import pytest

from accounts.users import UpstreamChoice
from api_key_manager import ApiKeyManager
from foundation.errors import AppError, PaymentRequired, UpstreamFailed, UpstreamTimeout
from gateway import attempts
from gateway.attempts import MAX_PAUSE_SECONDS, MAX_TRIES, PAUSE_SECONDS
from tests.gateway.test_attempt import COMMENT, ERROR, HTML, ROLE
from tests.support.data_plane import DONE, EVENT, KEEPALIVE, WHOLE, finished, last_event, request, whole
from tests.support.scripted_upstream import CLOSE, JSON_CHUNKED, RESET, SSE, chunked, json_answer
from upstream.refusals import Other


def refusal(status, message="x", **metadata):
    return json.dumps({"error": {"code": status, "message": message, "metadata": metadata}}).encode()


GOOD_STREAM = (SSE, chunked(COMMENT, ROLE, EVENT, DONE))
GOOD_PLAIN = (json_answer("200 OK", WHOLE),)
# What an answer can be before it has content, streamed or not, that another try may do better.
BOTH = {
    "closed without an answer": (CLOSE,),
    "reset": (RESET,),
    "page": (HTML,),
    "500": (json_answer("500 Internal Server Error", refusal(500)),),
    "edge's 502": (json_answer("502 Bad Gateway", b"<html>"),),
    "key refused": (json_answer("401 Unauthorized", refusal(401, "User not found.")),),
    "limited": (json_answer("429 Too Many Requests", refusal(429)),),
    "200 with an error body": (json_answer("200 OK", refusal(502)),),
    "200 with white space and an error": (JSON_CHUNKED, chunked(b"\n   \n", end=False), 0.05, chunked(refusal(502))),
    "empty body": (json_answer("200 OK", b""),),
    "white space, then cut": (JSON_CHUNKED, chunked(b"\n   \n", end=False), 0.05, CLOSE),
}
STREAMED = {
    "error first": (SSE, chunked(ERROR)),
    "error after comments and a role": (SSE, chunked(COMMENT, ROLE, end=False), 0.05, chunked(ERROR, DONE)),
    "empty stream": (SSE, chunked()),
    "nothing but comments": (SSE, chunked(COMMENT, COMMENT)),
    "nothing but a role and done": (SSE, chunked(ROLE, DONE)),
    "cut before content": (SSE, chunked(COMMENT, ROLE, end=False), 0.05, RESET),
    "cut within the first event": (SSE, chunked(EVENT[:30], end=False), 0.05, CLOSE),
}


@pytest.mark.parametrize("name", [*BOTH, *STREAMED])
def test_a_stream_is_tried_again_until_its_first_content(make_proxy, upstream, name):
    upstream.play_in_turn("m", (BOTH | STREAMED)[name], GOOD_STREAM)
    proxy = make_proxy(keepalive_seconds=5)
    answer = proxy.forward(request(stream=True))
    assert (answer.status, dict(answer.headers)["Content-Type"]) == (200, "text/event-stream")
    assert whole(answer) == COMMENT + ROLE + EVENT + DONE
    assert len(upstream.received) == 2
    assert len({received.headers()["authorization"] for received in upstream.received}) == 2
    assert proxy.destinations.openrouter.keys.told[-2:] == [
        ("succeeded", proxy.destinations.openrouter.keys.told[-1][1]),
        ("released", proxy.destinations.openrouter.keys.told[-1][1]),
    ]


@pytest.mark.parametrize("name", BOTH)
def test_a_plain_call_is_tried_again_until_its_first_content(make_proxy, upstream, name):
    upstream.play_in_turn("m", BOTH[name], GOOD_PLAIN)
    answer = make_proxy(keepalive_seconds=5).forward(request())
    assert (answer.status, whole(answer)) == (200, WHOLE)
    assert len(upstream.received) == 2


NEVER = {
    "bad request": (json_answer("400 Bad Request", refusal(400)),),
    "moderation": (json_answer("403 Forbidden", refusal(403, reasons=["x"])),),
    "provider pool": (
        json_answer("429 Too Many Requests", refusal(429, limit_source="upstream_provider_shared_pool")),
    ),
    "bad request under 200": (json_answer("200 OK", refusal(400)),),
}
NEVER_STREAMED = {
    "content, then an error": (SSE, chunked(ROLE, EVENT, ERROR)),
    "content, then cut": (SSE, chunked(EVENT, end=False), CLOSE),
    "an end without text": (SSE, chunked(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'), CLOSE),
    "a bill without text": (SSE, chunked(b'data: {"choices":[],"usage":{"cost":0.1}}\n\n', DONE)),
    "what nobody can read": (SSE, chunked(b"data: ???\n\n", end=False), CLOSE),
    "credit as an event": (SSE, chunked(b"data: " + refusal(402, "Insufficient credits. Add more") + b"\n\n")),
    "a limit as an event": (SSE, chunked(b"data: " + refusal(429) + b"\n\n")),
    "moderation as an event": (SSE, chunked(b"data: " + refusal(403, reasons=["x"]) + b"\n\n")),
}
NEVER_PLAIN = {
    "cut within the JSON": (JSON_CHUNKED, chunked(b" \n{", end=False), 0.05, CLOSE),
    "damaged JSON": (json_answer("200 OK", b'{"choices":'),),
    "gzip": (json_answer("200 OK", b"\x1f\x8b", "Content-Encoding: gzip\r\n"),),
}


@pytest.mark.parametrize(
    ("name", "stream"),
    [(name, True) for name in [*NEVER, *NEVER_STREAMED]] + [(name, False) for name in [*NEVER, *NEVER_PLAIN]],
)
def test_after_content_and_for_the_clients_own_faults_nothing_is_tried_again(make_proxy, upstream, name, stream):
    upstream.play("m", *(NEVER | NEVER_STREAMED | NEVER_PLAIN)[name])
    try:
        whole(make_proxy().forward(request(stream=stream)))
    except AppError:
        pass
    assert len(upstream.received) == 1


def test_what_fails_each_time_is_tried_three_times_and_then_told_as_it_came(make_proxy, upstream):
    upstream.play("m", SSE, chunked(COMMENT, ROLE, ERROR))
    answer = make_proxy(keepalive_seconds=5).forward(request(stream=True))
    assert (answer.status, whole(answer)) == (200, COMMENT + ROLE + ERROR)
    assert len(upstream.received) == MAX_TRIES == 3
    upstream.play("m", SSE, chunked(COMMENT))
    with pytest.raises(UpstreamFailed):
        make_proxy(keepalive_seconds=5).forward(request(stream=True))
    assert len(upstream.received) == 2 * MAX_TRIES


def test_a_request_that_was_sent_and_never_answered_is_sent_once_more_only(make_proxy, upstream):
    upstream.play("m", RESET)
    with pytest.raises(UpstreamFailed, match="reached"):
        make_proxy().forward(request())
    assert len(upstream.received) == 2


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_a_connection_that_was_closed_while_idle_is_no_try(make_proxy, upstream, caplog, end):
    upstream.play("m", *GOOD_PLAIN)
    proxy = make_proxy()
    whole(proxy.forward(request()))
    upstream.play_in_turn("m", (end,), GOOD_PLAIN)
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert whole(proxy.forward(request(user_id=2))) == WHOLE
    assert [one["kind"] for one in finished(caplog)["tries"]] == ["answered"]
    assert len(upstream.received) == 3


def test_a_connection_that_cant_be_made_is_tried_three_times(make_proxy, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(UpstreamFailed, match="reached"):
        make_proxy(openrouter_api_url="http://127.0.0.1:1/api/v1").forward(request())
    assert [one["kind"] for one in finished(caplog)["tries"]] == ["unreachable"] * 3


def test_the_same_key_is_taken_again_only_where_it_was_not_at_fault(make_proxy, upstream):
    upstream.play_in_turn("m", BOTH["500"], GOOD_PLAIN)
    assert whole(make_proxy(keys=1).forward(request())) == WHOLE
    upstream.play_in_turn("m", STREAMED["empty stream"], GOOD_STREAM)
    assert whole(make_proxy(keys=1).forward(request(stream=True))).endswith(DONE)
    upstream.play_in_turn("m", BOTH["key refused"], GOOD_PLAIN)
    with pytest.raises(UpstreamFailed):
        make_proxy(keys=1).forward(request())
    assert len(upstream.received) == 5
    policy = json_answer("404 Not Found", refusal(404, "No endpoints found matching your data policy"))
    upstream.play_in_turn("m", (policy,), GOOD_PLAIN)  # after this the key does not even rest
    assert make_proxy(keys=1).forward(request()).status == 404
    assert len(upstream.received) == 6


def test_no_try_is_waited_for_that_would_begin_after_the_time_for_the_first_content(make_proxy, upstream, monkeypatch):
    monkeypatch.setattr(attempts, "_pause_seconds", lambda _tries: 6.0)
    upstream.play("m", *BOTH["500"])
    answer = make_proxy(upstream_first_byte_timeout_seconds=5, keepalive_seconds=5).forward(request())
    assert answer.status == 500  # what is known, at once, and not that time ran out
    assert len(upstream.received) == 1


def test_all_tries_together_get_the_time_for_the_first_content(make_proxy, upstream):
    upstream.play("m", SSE, chunked(COMMENT, end=False), 2.5, CLOSE)
    body = whole(make_proxy(upstream_first_byte_timeout_seconds=4.5).forward(request(stream=True)))
    assert last_event(body)["error"]["code"] == 504
    assert len(upstream.received) <= 2


def test_nothing_is_tried_again_for_a_client_that_has_gone(make_proxy, upstream):
    upstream.play("m", *BOTH["500"])
    whole(make_proxy().forward(request(client_is_gone=lambda: True)))
    assert len(upstream.received) == 1


# ── which key


def test_the_pool_is_asked_for_what_may_do_better(make_proxy, upstream):
    upstream.play_in_turn("a/b:free", BOTH["key refused"], BOTH["page"], GOOD_PLAIN)
    proxy = make_proxy(sticky_keys="user")
    whole(proxy.forward(request(model="a/b:free", user_id=7)))
    first, second, third = proxy.destinations.openrouter.keys.asked
    assert first == {"tried": (), "other": Other.KEY, "free": True, "sticky": "7", "owner": 7, "choice": None}
    assert [len(one["tried"]) for one in (second, third)] == [1, 2]
    assert second["other"] is Other.KEY
    assert third["sticky"] == "7"
    upstream.play("m", *GOOD_PLAIN)
    whole(proxy.forward(request()))
    assert proxy.destinations.openrouter.keys.asked[-1]["free"] is False


def test_a_full_account_is_left_for_another_one(make_proxy, upstream):
    full = refusal(402, "In flight", limit_source="openrouter_in_flight_budget")
    upstream.play_in_turn("m", (json_answer("402 Payment Required", full),), GOOD_PLAIN)
    proxy = make_proxy()
    assert whole(proxy.forward(request())) == WHOLE
    assert proxy.destinations.openrouter.keys.asked[-1]["other"] is Other.ACCOUNT


@pytest.mark.parametrize(("rule", "expected"), [("off", None), ("session", "1/s"), ("user", "1")])
def test_calls_keep_to_a_key_by_the_rule_of_the_setting(make_proxy, upstream, rule, expected):
    upstream.play("m", *GOOD_PLAIN)
    proxy = make_proxy(sticky_keys=rule)
    whole(proxy.forward(request(headers=b"X-Session-Id: s\r\n")))
    assert proxy.destinations.openrouter.keys.asked[0]["sticky"] == expected


def test_the_pool_learns_of_each_try_once(make_proxy, upstream):
    upstream.play_in_turn("m", STREAMED["error first"], STREAMED["empty stream"], GOOD_STREAM)
    proxy = make_proxy()
    whole(proxy.forward(request(stream=True)))
    assert [what for what, _ in proxy.destinations.openrouter.keys.told] == [
        # After a 200 an error, too, says that the key was taken; the next is picked before it is given back.
        *("picked", "succeeded", "picked", "released"),
        *("picked", "released", "succeeded", "released"),
    ]


@pytest.mark.parametrize("steps", [(SSE, chunked(ROLE, end=False), 20.0), (20.0,), GOOD_STREAM])
def test_a_key_is_given_back_when_the_client_leaves(make_proxy, upstream, steps):
    upstream.play("m", *steps)
    proxy = make_proxy()
    answer = proxy.forward(request(stream=True))
    next(iter(answer.body))
    answer.body.close()
    assert proxy.destinations.openrouter.keys.told[-1][0] == "released"


def test_an_error_after_content_is_not_told_to_the_pool(make_proxy, upstream):
    upstream.play("m", SSE, chunked(EVENT, b"data: " + refusal(402, "Insufficient credits") + b"\n\n"))
    proxy = make_proxy()
    whole(proxy.forward(request(stream=True)))
    assert [what for what, _ in proxy.destinations.openrouter.keys.told] == ["picked", "succeeded", "released"]


# ── in the open: late answers


def late(make_proxy, upstream, *scripts, stream=True, **settings):
    """The pieces of an answer that had to begin before it was known, and an event that lets the first try fail."""
    gate = threading.Event()
    first, *others = scripts
    upstream.play_in_turn("m", (*first[:-1], gate, first[-1]), *others)
    answer = make_proxy(**settings).forward(request(stream=stream))
    pieces = iter(answer.body)
    begin = next(pieces)
    gate.set()
    return answer, begin, b"".join(pieces)


def test_an_answer_that_has_begun_with_comments_is_still_tried_again(make_proxy, upstream):
    head = SSE.replace(b"\r\n\r\n", b"\r\nX-Generation-Id: gen-1\r\n\r\n")
    answer, begin, rest = late(make_proxy, upstream, (head, chunked(COMMENT, ROLE, end=False), CLOSE), GOOD_STREAM)
    assert begin == COMMENT
    assert rest.replace(KEEPALIVE, b"") == COMMENT + ROLE + EVENT + DONE  # of the first try no data
    assert "X-Generation-Id" not in dict(answer.headers)
    answer.body.close()
    assert len(upstream.received) == 2


def test_an_answer_that_begins_in_time_names_its_generation(make_proxy, upstream):
    head = SSE.replace(b"\r\n\r\n", b"\r\nX-Generation-Id: gen-1\r\n\r\n")
    upstream.play("m", head, chunked(COMMENT, EVENT, DONE))
    answer = make_proxy(keepalive_seconds=5).forward(request(stream=True))
    assert dict(answer.headers)["X-Generation-Id"] == "gen-1"
    assert whole(answer) == COMMENT + EVENT + DONE


def test_keep_alives_go_on_through_a_held_beginning_and_through_pauses(make_proxy, upstream, monkeypatch):
    monkeypatch.setattr(attempts, "_pause_seconds", lambda _tries: 1.8)
    held = threading.Event()
    upstream.play_in_turn("m", BOTH["500"], (SSE, chunked(ROLE, end=False), held, chunked(EVENT, DONE)))
    answer = make_proxy().forward(request(stream=True))
    body, in_pause = b"", None
    for piece in answer.body:
        body += piece
        if in_pause is None and len(upstream.received) == 2:
            in_pause = body.count(KEEPALIVE)
        if in_pause is not None and body.count(KEEPALIVE) >= in_pause + 2:
            held.set()
    answer.body.close()
    assert in_pause >= 2
    assert body.replace(KEEPALIVE, b"") == ROLE + EVENT + DONE


def test_a_plain_answer_that_has_begun_with_white_space_is_still_tried_again(make_proxy, upstream):
    script = (JSON_CHUNKED, chunked(b"\n   \n", end=False), CLOSE)
    answer, begin, rest = late(make_proxy, upstream, script, GOOD_PLAIN, stream=False)
    assert (answer.status, begin, rest) == (200, b"\n   \n", WHOLE)
    assert [name for name, _ in answer.headers] == ["Content-Type"]
    answer.body.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("steps", "code"),
    [
        (NEVER["bad request"], 400),
        (NEVER["bad request under 200"], 400),
        (BOTH["key refused"], 502),
        (BOTH["page"], 502),
        (NEVER_PLAIN["gzip"], 502),
    ],
)
def test_what_is_known_only_after_the_answer_began_is_said_in_it(make_proxy, upstream, steps, code, stream):
    begin = (SSE, CLOSE) if stream else (JSON_CHUNKED, chunked(b" ", end=False), CLOSE)
    answer, _, rest = late(make_proxy, upstream, begin, steps, stream=stream, keys=2)
    assert (last_event(rest) if stream else json.loads(rest))["error"]["code"] == code
    assert b"User not found" not in rest
    answer.body.close()


def test_an_answer_of_the_other_kind_is_put_into_one_that_has_begun(make_proxy, upstream):
    answer, _, rest = late(make_proxy, upstream, (SSE, CLOSE), GOOD_PLAIN)
    assert rest.endswith(DONE)
    told = json.loads(rest.removesuffix(DONE).rpartition(b"data: ")[2])
    assert told == json.loads(WHOLE) | {"object": "chat.completion.chunk"}
    answer.body.close()
    script = (JSON_CHUNKED, chunked(b" ", end=False), CLOSE)
    answer, _, rest = late(make_proxy, upstream, script, GOOD_STREAM, stream=False)
    assert rest.endswith(EVENT + DONE)
    answer.body.close()


def test_white_space_of_a_plain_answer_never_gets_into_a_stream(make_proxy, upstream):
    answer, begin, rest = late(
        make_proxy, upstream, (JSON_CHUNKED, chunked(b"\n   \n", end=False), chunked(refusal(400)))
    )
    assert begin == KEEPALIVE
    assert b"   " not in rest
    answer.body.close()


# ── pauses, and what is logged


def test_pauses_are_short_random_and_bounded():
    for tries, longest in ((1, PAUSE_SECONDS), (2, 2 * PAUSE_SECONDS), (9, MAX_PAUSE_SECONDS)):
        pauses = [attempts._pause_seconds(tries) for _ in range(300)]
        assert 0 <= min(pauses) < longest / 3
        assert longest * 2 / 3 < max(pauses) <= longest


def test_only_failing_servers_are_given_a_pause(make_proxy, upstream, monkeypatch):
    asked = []
    monkeypatch.setattr(attempts, "_pause_seconds", lambda tries: asked.append(tries) or 0.0)
    for name in ("500", "reset", "limited", "200 with an error body"):
        upstream.play_in_turn("m", BOTH[name], GOOD_PLAIN)
        whole(make_proxy(keepalive_seconds=5).forward(request()))
    assert asked == [1, 1, 1, 1]
    upstream.play_in_turn("m", BOTH["key refused"], GOOD_PLAIN)
    whole(make_proxy().forward(request()))
    assert len(asked) == 4


def test_the_log_says_how_each_try_went(make_proxy, upstream, caplog):
    caplog.set_level(logging.INFO)
    upstream.play_in_turn("m", BOTH["key refused"], STREAMED["error first"], GOOD_STREAM)
    whole(make_proxy().forward(request(stream=True)))
    line = finished(caplog)
    tries = line["tries"]
    assert [(one["status"], one["kind"]) for one in tries] == [
        (401, "key-refused"),
        (200, "provider-failed"),
        (200, "answered"),
    ]
    assert line["key"] == tries[-1]["key"]
    assert len({one["key"] for one in tries}) == 3
    assert all(0 <= one["ms"] < 5000 for one in tries)


@pytest.mark.parametrize(
    ("steps", "kind"),
    [((20.0,), "timeout"), ((SSE, chunked(COMMENT, end=False), 20.0), "timeout"), (NEVER_PLAIN["gzip"], "answered")],
)
def test_the_log_says_how_the_only_try_went(make_proxy, upstream, caplog, steps, kind):
    caplog.set_level(logging.INFO)
    upstream.play("m", *steps)
    try:
        whole(make_proxy(upstream_first_byte_timeout_seconds=0.5).forward(request()))
    except UpstreamTimeout:
        pass
    assert [one["kind"] for one in finished(caplog)["tries"]] == [kind]


def test_the_pool_that_is_watched_here_is_the_real_one(make_proxy):
    assert isinstance(make_proxy().destinations.openrouter.keys, ApiKeyManager)


# ── with a key of the user's own


def with_own_key(make_proxy, choice, keys=2):
    """A proxy at which user 1 has a key of their own, `own`, and has chosen."""
    proxy = make_proxy(keys=keys)
    pool = proxy.destinations.openrouter.keys
    row_id = pool._store.intend("own", datetime(2027, 1, 1, tzinfo=UTC), None, None, 1)
    pool._store.store(row_id, "sk-or-v1-" + "f" * 64)
    pool._store.switch(row_id, datetime(2026, 1, 1, tzinfo=UTC), None)
    pool._choice_of = lambda user_id: choice if user_id == 1 else UpstreamChoice.DEDICATED_FIRST
    pool.reload()
    return proxy


def used(proxy):
    """The kinds of keys that calls got, in turn."""
    return [
        "own" if name == "own" else "shared"
        for what, name in proxy.destinations.openrouter.keys.told
        if what == "picked"
    ]


KEYS_FAULTS = {
    "refused": BOTH["key refused"],
    "limited": BOTH["limited"],
    "spent": (json_answer("403 Forbidden", refusal(403, "Key limit exceeded (monthly limit).")),),
    "cap too small": (json_answer("402 Payment Required", refusal(402, "x", limit_source="openrouter_key_limit")),),
}


@pytest.mark.parametrize("name", KEYS_FAULTS)
@pytest.mark.parametrize("choice", UpstreamChoice)
def test_tries_keep_to_what_the_user_has_chosen(make_proxy, upstream, name, choice):
    upstream.play_in_turn("m", KEYS_FAULTS[name], GOOD_PLAIN)
    proxy = with_own_key(make_proxy, choice, keys=1)
    if choice is not UpstreamChoice.DEDICATED_ONLY:
        assert whole(proxy.forward(request())) == WHOLE
        turns = ["own", "shared"]
        assert used(proxy) == (turns if choice is UpstreamChoice.DEDICATED_FIRST else turns[::-1])
        return
    if name == "limited":
        assert proxy.forward(request()).status == 429
    else:
        with pytest.raises(UpstreamFailed if name == "refused" else PaymentRequired) as raised:
            proxy.forward(request())
        assert ("your own OpenRouter key" in raised.value.message) == (name != "refused")
    assert used(proxy) == ["own"]


@pytest.mark.parametrize("name", ["500", "reset", "closed without an answer"])
def test_a_fault_that_is_not_the_keys_is_no_reason_to_let_others_pay(make_proxy, upstream, name):
    for choice, expected in ((UpstreamChoice.DEDICATED_FIRST, "own"), (UpstreamChoice.DEDICATED_ONLY, "own")):
        upstream.play_in_turn("m", BOTH[name], GOOD_PLAIN)
        proxy = with_own_key(make_proxy, choice)
        assert whole(proxy.forward(request())) == WHOLE
        assert used(proxy) == [expected] * 2


def test_another_user_never_gets_it(make_proxy, upstream):
    upstream.play("m", *BOTH["500"])
    proxy = with_own_key(make_proxy, UpstreamChoice.DEDICATED_FIRST)
    for user_id in (2, 3):
        proxy.forward(request(user_id=user_id))
    assert set(used(proxy)) == {"shared"}

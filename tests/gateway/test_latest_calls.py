"""The calls of the last minute, by why they failed."""

from gateway.latest_calls import LatestCalls


def tries(*kinds):
    return [{"kind": kind} for kind in kinds]


def test_calls_of_the_last_minute_are_counted_by_why_they_failed():
    now = [100.0]
    calls = LatestCalls(lambda: now[0])
    assert calls.told() == {"last_minute": 0, "failed": 0, "why": {}}
    calls.note("complete", tries("failing", "answered"))
    calls.note("client_gone", tries("unfinished"))
    calls.note("refused", tries("key-refused", "provider-limited"))
    now[0] = 130.0
    calls.note("refused", tries("provider-limited"))
    calls.note("failed", [])
    calls.note("cut", tries("answered"))
    why = {"provider-limited": 2, "never-sent": 1, "cut": 1}
    assert calls.told() == {"last_minute": 6, "failed": 4, "why": why}
    now[0] = 160.0
    assert calls.told() == {"last_minute": 3, "failed": 3, "why": {"provider-limited": 1, "never-sent": 1, "cut": 1}}
    now[0] = 1000.0
    calls.note("complete", tries("answered"))
    assert calls.told() == {"last_minute": 1, "failed": 0, "why": {}}

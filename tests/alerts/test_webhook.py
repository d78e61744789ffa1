"""Webhooks: signed so that a receiver can tell ours from others', and only to addresses that may be connected to."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from alerts.notice import NotSent
from alerts.webhook import Webhook
from foundation.clock import Clock
from foundation.crypto import webhook_signature
from tests.support.alarms import SECRET, Posted
from tests.support.gateway import ROOT
from upstream.dial import GuardedDial

SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)


def webhook(url: str, clock: Clock | None = None, allow_private: bool = True) -> Webhook:
    return Webhook(url, SECRET, GuardedDial(allow_private), clock or Clock())


def is_verified(posted: Posted, secret: str = SECRET) -> bool:
    """What the receiver's code in docs/alerts.md says of a message."""
    [code] = SNIPPET.findall((ROOT / "docs/alerts.md").read_text())
    headers = {name: value for name, value in posted.headers.items() if name.startswith("webhook-")}
    call = f"\nprint(verified({secret!r}, {headers!r}, {posted.body!r}))"
    ran = subprocess.run([sys.executable, "-c", code + call], capture_output=True, text=True, check=True)
    return ran.stdout.strip() == "True"


def test_a_message_arrives_whole_and_its_signature_is_right(receiver, notice):
    webhook(receiver.url).send(notice)
    [posted] = receiver.posted
    assert posted.path == "/hook?key=abc"
    assert posted.headers["content-type"] == "application/json"
    assert json.loads(posted.body) == notice.to_dict()
    assert posted.headers["webhook-id"] == "alert-7-began"
    assert is_verified(posted)


def test_what_was_changed_on_its_way_signed_by_others_or_sent_again_later_is_told_apart(receiver, notice, clock):
    webhook(receiver.url).send(notice)
    webhook(receiver.url, clock).send(notice)  # by a clock that stands at another year's day
    good, old = receiver.posted
    assert is_verified(good)
    assert not is_verified(Posted(good.path, good.headers, good.body.replace(b"0.8 GB", b"8.0 GB")))
    assert not is_verified(Posted(good.path, good.headers | {"webhook-id": "alert-8-began"}, good.body))
    later = str(int(good.headers["webhook-timestamp"]) + 1)
    assert not is_verified(Posted(good.path, good.headers | {"webhook-timestamp": later}, good.body))
    assert not is_verified(good, secret="whsec_" + "A" * 43 + "=")
    assert not is_verified(old)


def test_the_signature_is_the_one_of_standard_webhooks():
    """The example of that specification's own libraries."""
    signature = webhook_signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [302, 404, 500])
def test_what_is_not_taken_is_not_sent(receiver, notice, status):
    receiver.statuses.append(status)
    with pytest.raises(NotSent, match=f"answered {status}"):
        webhook(receiver.url).send(notice)
    assert len(receiver.posted) == 1


def test_private_addresses_are_refused_unless_they_are_allowed(receiver, notice):
    with pytest.raises(NotSent, match="not public"):
        webhook(receiver.url, allow_private=False).send(notice)
    assert receiver.posted == []
    with pytest.raises(NotSent, match="can be"):
        webhook("http://169.254.169.254/latest").send(notice)


def test_nobody_there_is_told(notice):
    with pytest.raises(NotSent, match="ConnectionRefusedError"):
        webhook("http://127.0.0.1:1/").send(notice)

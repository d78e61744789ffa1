"""A channel: JSON to a URL, signed as Standard Webhooks lays down, for which receivers find libraries in any language.

docs/alerts.md shows how to verify it without one.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from alerts.notice import AlertNotice, NotSent
from foundation import json_text
from foundation.clock import Clock
from foundation.crypto import webhook_signature
from foundation.deadline import Deadline, TimeIsUp
from upstream.connection import UpstreamError
from upstream.dial import GuardedDial
from upstream.http import UpstreamHttp

SECONDS = 10.0  # from the first packet to the answer's head


class Webhook:
    """url: whole, with what authorizes in it, if anything does. guard: says which addresses may be connected to."""

    name = "webhook"

    def __init__(self, url: str, secret: str, guard: GuardedDial, clock: Clock) -> None:
        parts = urlsplit(url)
        self.target = parts.hostname or ""
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._http = UpstreamHttp(f"{parts.scheme}://{parts.netloc}", SECONDS, dial=guard.dial)
        self._secret = secret
        self._clock = clock

    def send(self, notice: AlertNotice) -> None:
        """Deliver a message: a status of 2xx takes it. Redirects are not followed. Raises NotSent."""
        body, timestamp = json_text.write(notice.to_dict()), str(int(self._clock.timestamp()))
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "openrouter-proxy",
            "webhook-id": notice.id,
            "webhook-timestamp": timestamp,
            "webhook-signature": webhook_signature(self._secret, notice.id, timestamp, body),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")
        head = self._http.request_line("POST", self._path) + lines
        exchange = self._http.exchange(head, body, may_repeat=False)
        try:
            exchange.wait_head(Deadline(SECONDS))
        except UpstreamError as error:
            raise NotSent(str(error)) from None
        except TimeIsUp:
            raise NotSent(f"no answer in {SECONDS:.0f} s") from None
        finally:
            exchange.close()
        if not 200 <= exchange.status < 300:
            raise NotSent(f"the receiver answered {exchange.status}")

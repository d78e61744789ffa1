"""A verified call, and what of its headers may go up: a few out of a list."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from accounts.caller import Caller
from billing.quotas.rate_limits import Admission
from formats.body import CallBody
from formats.chat import ModelApi
from foundation.errors import BadRequest, ServerEnds
from gateway.bodies import HeldBody

MAX_HEADER = 8000  # characters; agents name dozens of beta features, and gunicorn takes lines of 8190
HEADER_TEXT = re.compile(rf"[\x20-\x7e]{{1,{MAX_HEADER}}}")
TIMEOUT = re.compile(r"[0-9]{1,5}")
SESSION_LINE = re.compile(rb"^X-Session-Id: (.*)\r\n", re.MULTILINE)
# What is logged as a model: OpenRouter's names all have a slash, which keys, tokens and most other texts have not.
MODEL_NAME = re.compile(r"[A-Za-z0-9@~._-]{1,80}/[A-Za-z0-9._:/?&=+-]{1,160}")
# Other upstreams' names need none; keys and tokens are longer, or begin like these.
OTHER_MODEL_NAME = re.compile(MODEL_NAME.pattern + r"|(?!sk-|or_|eyJ)[A-Za-z0-9@~._:+-]{1,48}")

Option = TypeVar("Option")


class ClientGone(Exception):
    """Nobody is listening any more."""


def never() -> bool:
    """What does not come to pass."""
    return False


class ProxyRequest(msgspec.Struct, frozen=True):
    """A verified caller's call in one of the formats.

    headers: upstream header lines, from `forwarded_headers`. admission: released when the call is over. upstream: the
    name that X-Upstream asks for, or "". timeout: the seconds that X-Timeout asks for; 0 for the usual ones.
    client_has_ended: it sends no more, and may have gone, too. server_ends: True once the server waits for this call no
    longer. cache_control, traceparent: the client's headers of these names.
    """

    api: ModelApi
    request_id: str
    caller: Caller
    body: HeldBody
    headers: bytes
    client_is_gone: Callable[[], bool]
    admission: Admission
    upstream: str = ""
    timeout: int = 0
    client_has_ended: Callable[[], bool] = bool
    server_ends: Callable[[], bool] = never
    cache_control: str = ""
    traceparent: str = ""

    def check_client(self) -> None:
        """Raise ClientGone or ServerEnds if there is nobody to answer any more, or no time."""
        if self.client_is_gone():
            raise ClientGone
        if self.server_ends():
            raise ServerEnds

    def sticky_text(self, rule: str, call: CallBody) -> str | None:
        """What calls that should share a pool key have in common; None if any key will do.

        rule: `off`, `session` or `user`. A session's name counts only together with its user: whoever guesses another
        person's can't steer where their calls go.
        """
        if rule == "user":
            return str(self.caller.user_id)
        if rule == "off":
            return None
        session = self.session(call)
        return f"{self.caller.user_id}/{session}" if session else None

    def draw(self, call: CallBody, what: str, options: Sequence[Option], weights: Sequence[float]) -> Option:
        """One of several, by weight; for the calls of one session always the same. what: it is drawn for."""
        if len(options) == 1:
            return options[0]
        session = self.session(call)
        seed = f"{what}/{self.caller.user_id}/{session}" if session else None
        return random.Random(seed).choices(options, weights)[0]  # noqa: S311 - shares calls out

    def session(self, call: CallBody) -> str | None:
        """The client's name for its session. OpenRouter too lets the body win over the header."""
        line = SESSION_LINE.search(self.headers)
        return call.session_id or (line.group(1).decode("ascii") if line else None)


def forwarded_headers(api: ModelApi, environ: dict[str, Any]) -> bytes:
    """The client's headers that may go up, as header lines. Raises BadRequest for one that can't be a header.

    An empty one is none: that is how users of some clients take a header away.
    """
    lines = ""
    for variable in filter(environ.__contains__, api.forwarded):  # most are not there
        if value := environ[variable]:
            name = api.forwarded[variable]
            if not HEADER_TEXT.fullmatch(value):
                raise BadRequest(f"The header {name} must be at most {MAX_HEADER} printable ASCII characters")
            lines += f"{name}: {value}\r\n"
    return lines.encode("ascii")


def asked_timeout(environ: dict[str, Any], most: int) -> int:
    """The seconds that X-Timeout asks for; 0 without one. Raises BadRequest."""
    if not (text := environ.get("HTTP_X_TIMEOUT")):
        return 0
    if TIMEOUT.fullmatch(text) and 1 <= (seconds := int(text)) <= most:
        return seconds
    raise BadRequest(f"The header X-Timeout must be a whole number of seconds from 1 to {most}")


def model_to_log(model: str, is_openrouters: bool) -> str:
    """What is written down as a call's model: "" for a text that may be a key or a token in the wrong place."""
    is_name = MODEL_NAME if is_openrouters else OTHER_MODEL_NAME
    return model if is_name.fullmatch(model) else ""

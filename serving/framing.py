"""What a request's head must be like, so that everybody on the way reads the same request from it (RFC 9112).

gunicorn refuses most of this by itself. granian takes two Host headers, joined by a comma, and reads the body by the
last transfer coding; of `Content-Length` beside `Transfer-Encoding` it drops the first, tells nobody, and closes.
"""

from __future__ import annotations

import re
from typing import Any

from foundation.errors import AppError, BadRequest, NotSupported

# One name or address, maybe with a port (RFC 3986, 3.2.2 and 3.2.3). A comma is what servers join two headers by.
HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]+")
CLOSE = {"Connection": "close"}  # where the next request would begin is not known


def check_framing(environ: dict[str, Any]) -> None:
    """Refuse a head that two readers could take for two requests. Raises BadRequest, NotSupported."""
    if fault := _fault(environ):
        raise fault


def _fault(environ: dict[str, Any]) -> AppError | None:
    host = environ.get("HTTP_HOST", "")
    if not HOST.fullmatch(host) and (host or environ["SERVER_PROTOCOL"] == "HTTP/1.1"):
        return BadRequest("Send exactly one Host header, with one name", CLOSE)
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is None:
        return None
    if coding.strip().lower() != "chunked":
        return NotSupported("Of Transfer-Encoding, only `chunked` is understood here", CLOSE)
    if environ.get("CONTENT_LENGTH"):
        return BadRequest("Send Content-Length or Transfer-Encoding, not both", CLOSE)
    return None

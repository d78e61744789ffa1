"""A request's body, read piece by piece, after its bytes have found room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from foundation.errors import BadRequest, PayloadTooLarge, UnsupportedMedia

# A server makes each piece anew and copies it while no other thread runs.
PIECE_BYTES = 256 * 1024


def read_body(environ: dict[str, Any], limit: int, make_room: Callable[[int], None] | None = None) -> bytearray:
    """The whole body. make_room: told of bytes before they are read; of all of them if their number was sent ahead.

    Raises UnsupportedMedia, PayloadTooLarge, BadRequest, and what make_room raises.
    """
    if environ.get("HTTP_CONTENT_ENCODING") not in {None, "", "identity"}:
        raise UnsupportedMedia("Send the body uncompressed, without Content-Encoding")
    length = environ.get("CONTENT_LENGTH")
    if length and not length.isdecimal():
        raise BadRequest("Content-Length must be a number")
    make_room = make_room or _find_room
    stream = environ["wsgi.input"]
    return _of_length(stream, int(length), limit, make_room) if length else _to_the_end(stream, limit, make_room)


def _find_room(_size: int) -> None:
    """There always is."""


def _of_length(stream: Any, length: int, limit: int, make_room: Callable[[int], None]) -> bytearray:
    if length > limit:
        raise PayloadTooLarge(f"The body may have at most {limit} bytes")
    make_room(length)
    body, filled = bytearray(length), 0
    while filled < length:
        piece = _read(stream, min(PIECE_BYTES, length - filled))
        if not piece:
            raise BadRequest("The body ended before its Content-Length")
        body[filled : filled + len(piece)] = piece
        filled += len(piece)
    return body


def _to_the_end(stream: Any, limit: int, make_room: Callable[[int], None]) -> bytearray:
    body = bytearray()
    while piece := _read(stream, min(PIECE_BYTES, limit + 1 - len(body))):
        if len(body) + len(piece) > limit:
            raise PayloadTooLarge(f"The body may have at most {limit} bytes")
        make_room(len(piece))
        body += piece
    return body


def _read(stream: Any, size: int) -> bytes:
    try:
        piece: bytes = stream.read(size)
    except Exception:  # noqa: BLE001 - each server has its own kinds; that the client's bytes were bad is common to them
        raise BadRequest("The body could not be read: it broke off, or its chunks are malformed") from None
    return piece

"""The files that pages consist of: none from elsewhere, compressed, and kept by browsers under the hash they have."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache

from flask import Blueprint, Response, request

from config.settings import ROOT
from foundation.errors import NotFound

routes = Blueprint("static_files", __name__, url_prefix="/static")

FOLDER = ROOT / "web/static"
KINDS = {".js", ".css", ".svg", ".txt"}
FOR_A_YEAR = "public, max-age=31536000, immutable"
ASK_EACH_TIME = "public, no-cache"  # of modules that other modules import: their addresses have no hash


@dataclass(frozen=True)
class StaticFile:
    """A file as it is sent. hash: of its content, in 16 hex characters."""

    content: bytes
    compressed: bytes
    kind: str
    hash: str


@cache
def files() -> dict[str, StaticFile]:
    """All of them, by their paths below the folder. They never change while the program runs."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in KINDS and path.is_file():
            content = path.read_bytes()
            kind = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0] or "text/plain"
            digest = hashlib.sha256(content).hexdigest()[:16]
            compressed = gzip.compress(content, 9, mtime=0)
            found[path.relative_to(FOLDER).as_posix()] = StaticFile(content, compressed, kind, digest)
    return found


def asset(name: str) -> str:
    """The address of a file, which holds its hash. Raises KeyError."""
    return f"/static/{name}?{files()[name].hash}"


@routes.get("/<path:name>")
def static_file(name: str) -> Response:
    """One of them."""
    found = files().get(name)
    if found is None:
        raise NotFound("There is nothing at this path")
    is_compressed = request.accept_encodings["gzip"] > 0
    response = Response(found.compressed if is_compressed else found.content, mimetype=found.kind)
    if is_compressed:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = FOR_A_YEAR if request.query_string.decode() == found.hash else ASK_EACH_TIME
    response.set_etag(f"{found.hash}{'-gzip' if is_compressed else ''}")
    response.make_conditional(request)
    return response

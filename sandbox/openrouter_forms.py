"""Multipart forms in the stand-in, read by the standard library as a JSON document would be."""

import base64
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from sandbox.http_server import Exchange
from sandbox.openrouter_faults import bad_request


def form_document(exchange: Exchange) -> dict[str, Any]:
    """Return a form's fields, its file as the `input_audio` of a JSON body; nothing for what is no form."""
    media = exchange.header(b"content-type")
    if not media.startswith(b"multipart/form-data"):
        return {}
    text = b"Content-Type: %b\r\n\r\n%b" % (media, exchange.body)
    document: dict[str, Any] = {"stream": False}
    for part in BytesParser(policy=HTTP).parsebytes(text).iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        data = part.get_payload(decode=True)
        data = data if isinstance(data, bytes) else b""
        if name == "file":
            extension = (part.get_filename() or "").rpartition(".")[2]
            document["input_audio"] = {"data": base64.b64encode(data).decode(), "format": extension}
        else:
            document[name] = data.decode("utf-8", "replace")
    if "input_audio" not in document:
        raise bad_request("file: Invalid input: expected a file, received undefined")
    return document

"""How many tokens a request of Anthropic's Messages format has, estimated: OpenRouter has no path that counts them.

Anthropic's clients ask before they send much, to shorten a conversation in time. So an estimate errs upwards: who is
told too much begins to shorten too early, and who is told too little is refused by the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from formats import body
from formats.messages import MessagesApi
from foundation import json_members
from foundation.json_members import Text

# English has four bytes a token, code three, and JSON's own signs count too. A Chinese character has three bytes.
BYTES_PER_TOKEN = 3
# What Anthropic counts at the most for an image, and for a page of a document: how many it has, its size has to tell.
IMAGE_TOKENS, PAGE_TOKENS, PAGE_BYTES = 1600, 3000, 100_000
COUNTED = ("system", "messages", "tools")
DATA = b'"data"'
BASE64 = re.compile(rb'\s*:\s*"([A-Za-z0-9+/]{256})')
PDF = b"JVBERi"  # `%PDF-`


class TokenCountApi(MessagesApi):
    """POST /messages/count_tokens, which is answered here."""

    name = "count_tokens"
    path = "/messages/count_tokens"


COUNT_TOKENS = TokenCountApi()


def estimated_tokens(text: Text) -> int:
    """The tokens that a body of the Messages format has as a prompt. Raises BadRequest."""
    body.read_message(text)
    found = json_members.members(text)
    size = sum(len(memoryview(found[name])) for name in COUNTED if name in found)
    extra = 0
    for length, is_document in _attachments(text):
        size -= length
        extra += max(1, length // PAGE_BYTES) * PAGE_TOKENS if is_document else IMAGE_TOKENS
    return max(1, -(-size // BYTES_PER_TOKEN) + extra)


def _attachments(text: Text) -> Iterator[tuple[int, bool]]:
    """Images and documents in base64: the length of each, and whether it is a document."""
    at = text.find(DATA)
    while at >= 0:
        at += len(DATA)
        if match := BASE64.match(text, at):
            end = text.find(b'"', match.end())
            yield end - match.start(1), match[1].startswith(PDF)
            at = end
        at = text.find(DATA, at)

"""Whether a call may do more than have a model answer: look things up, act, choose a model by itself.

Tools of the client's own are only named by an answer, and run at the client; all others run at OpenRouter or at a
provider while the answer is made. A kind that nobody knows yet is one of these.
"""

from __future__ import annotations

from foundation import json_members, json_text
from foundation.json_members import Raw, Text

CLIENTS_OWN = {b'"function"', b'"custom"', b"null"}
RUN_THERE = ("plugins", "mcp_servers", "web_search_options", "preset")


def uses_server_tools(body: Text) -> bool:
    """True if something else than a model has a part in the answer. body: one that was read before."""
    members = json_members.members(body)
    if any(bytes(members.get(name, b"null")) not in (b"null", b"[]") for name in RUN_THERE):
        return True
    try:
        return any(map(_runs_there, _tools(members.get("tools"))))
    except json_text.BadJson:
        return True


def _tools(raw: Raw | None) -> list[Raw]:
    return json_members.items(raw) if raw is not None and json_members.first(raw) == "[" else []


def _runs_there(tool: Raw) -> bool:
    kind = json_members.members(tool).get("type")  # Anthropic's clients name none for their own
    return kind is not None and bytes(kind) not in CLIENTS_OWN

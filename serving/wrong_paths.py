"""What is said of a path at which there is nothing: most often a client's base URL is nearly right."""

from __future__ import annotations

from formats.registry import MESSAGES, MODEL_APIS
from foundation.errors import NotFound

NOTHING = "There is nothing at this path"
READ = ("/models", "/generation", "/key")  # what SDKs read beside calls, below the same base URL
BASES = ({"v1"}, {"v1", "api"}, {"api"})  # segments of a base URL alone
FOR_OPENAI = "the base URL of OpenAI's and OpenRouter's clients ends in /v1 (or /api/v1)"
FOR_ANTHROPIC = "the base URL of Anthropic's clients, which add /v1 themselves, has no path"

# What OpenRouter has below the same base URL, and keeps in the account that all users of a gateway share.
KEPT = {
    "presets": "Presets would lie in the OpenRouter account that all users here share, and don't work here; send their"
    " model and settings in the request itself, to /v1/chat/completions",
    "files": "Files would lie in the OpenRouter account that all users here share, where each could read the others',"
    " and don't work here; send what they hold in the request itself",
}


def nothing_at(path: str) -> NotFound:
    """The refusal of a path, with the one that was meant and its base URL if it looks like one of those of SDKs."""
    segments = [segment for segment in path.lower().split("/") if segment]
    if set(segments) in BASES:
        return NotFound(f"{NOTHING}, it is a base URL: clients add paths such as /chat/completions to it")
    if kept := _kept(segments):
        return NotFound(kept)
    meant = _meant(segments)
    if not meant:
        return NotFound(NOTHING)
    bases = [FOR_ANTHROPIC] if meant == MESSAGES.path else [FOR_OPENAI]
    if meant == "/models":
        bases.append(FOR_ANTHROPIC)
    return NotFound(f"{NOTHING}; /v1{meant} is right: {', '.join(bases)}; none ends in a slash")


def _kept(segments: list[str]) -> str | None:
    """Why that which begins these, below a base URL, does not work."""
    return next((KEPT.get(name) for name in segments if name not in ("v1", "api")), None)


def _meant(segments: list[str]) -> str | None:
    """The path below /v1 with which these end. Of what is only read, the rest has to be a base URL too."""
    ending = "/" + "/".join(segments)
    for api in MODEL_APIS:
        if found := next((path for path in (*api.aliases, api.path) if ending.endswith(path)), None):
            return found
    is_below_base = set(segments[:-1]) <= {"v1", "api"}
    return next((path for path in READ if is_below_base and segments and path == f"/{segments[-1]}"), None)

"""What is said of a path at which there is nothing: most often a client's base URL is nearly right."""

from __future__ import annotations

from formats.registry import MESSAGES, MODEL_APIS
from foundation.errors import NotFound

NOTHING = "There is nothing at this path"
# What SDKs read beside calls, below the same base URL.
READ = ("/models", "/generation", "/key", "/credits", "/providers")
BASES = ({"v1"}, {"v1", "api"}, {"api"})  # segments of a base URL alone
FOR_OPENAI = "the base URL of OpenAI's and OpenRouter's clients ends in /v1 (or /api/v1)"
FOR_ANTHROPIC = "the base URL of Anthropic's clients, which add /v1 themselves, has no path"

# What OpenRouter has below the same base URL and is not carried, by the beginnings of paths, and why. A beginning with
# two segments is looked for first.
SHARED = "the OpenRouter account that all users here share"
RULES = f"the rules and members of {SHARED}, and its operator's to set, at OpenRouter"
PUBLIC = "what OpenRouter publishes about all its users; read it there, with a key of your own"
KEPT = {
    "presets": f"Presets would lie in {SHARED}, and don't work here; send their"
    " model and settings in the request itself, to /v1/chat/completions",
    "files": f"Files would lie in {SHARED}, where each could read the others',"
    " and don't work here; send what they hold in the request itself",
    "activity": f"This is the activity of {SHARED}; GET /api/v1/usage has yours by day and model",
    "analytics": f"This is about {SHARED}; GET /api/v1/stats and /api/v1/usage have your own sums",
    "auth/keys": "OpenRouter's log-in gives out keys of one's own account; POST /api/v1/openrouter/oauth/initiate"
    " connects yours, and calls take your token or client key of this service",
    "benchmarks": f"This is {PUBLIC}",
    "byok": f"Keys of providers would lie in {SHARED}, and pay for everybody; connect an account of your own instead",
    "classifications": f"This is {PUBLIC}",
    "credits/coinbase": "OpenRouter no longer takes such payments; GET /v1/credits says what you may spend",
    "datasets": f"This is {PUBLIC}",
    "generation/content": "Prompts and answers are not kept; GET /v1/generation has the rest of a call's record",
    "generation/feedback": f"Feedback would be given in the name of {SHARED}; tell its operator, with X-Request-Id",
    "guardrails": f"These are {RULES}; client keys have model lists and quotas of their own",
    "keys": "These would be OpenRouter's keys, the operator's alone; yours are client keys, at /api/api-keys, and"
    " GET /api/v1/keys has their usage",
    "observability": f"This is where {SHARED} sends its calls, its operator's to set; GET /api/usage/logs has yours",
    "organization": f"These are {RULES}",
    "scim": f"These are {RULES}",
    "workspaces": f"These are {RULES}",
}
ANYWHERE = {"presets", "files"}  # the other words are too common to mean OpenRouter's at every path


def nothing_at(path: str) -> NotFound:
    """The refusal of a path, with the one that was meant and its base URL if it looks like one of those of SDKs."""
    segments = [segment for segment in path.lower().split("/") if segment]
    if set(segments) in BASES:
        return NotFound(f"{NOTHING}, it is a base URL: clients add paths such as /chat/completions to it")
    if kept := _kept(path, segments):
        return NotFound(kept)
    meant = _meant(segments)
    if not meant:
        return NotFound(NOTHING)
    bases = [FOR_ANTHROPIC] if meant == MESSAGES.path else [FOR_OPENAI]
    if meant == "/models":
        bases.append(FOR_ANTHROPIC)
    return NotFound(f"{NOTHING}; /v1{meant} is right: {', '.join(bases)}; none ends in a slash")


def why_not_carried(path: str) -> str | None:
    """Why what OpenRouter has at this path below its base URL is not carried; None if nothing is known of it."""
    segments = path.split("/")[1:]
    found = next((name for name in ("/".join(segments[:2]), segments[0]) if name in KEPT), None)
    return KEPT[found] if found else None


def _kept(path: str, segments: list[str]) -> str | None:
    """Why that at which a path below a base URL aims does not work; of ANYWHERE, below any."""
    rest = segments
    while rest and rest[0] in ("v1", "api"):
        rest = rest[1:]
    if not rest or (rest[0] not in ANYWHERE and not path.lower().startswith(("/v1/", "/api/v1/"))):
        return None
    return why_not_carried("/" + "/".join(rest))


def _meant(segments: list[str]) -> str | None:
    """The path below /v1 with which these end. Of what is only read, the rest has to be a base URL too."""
    ending = "/" + "/".join(segments)
    for api in MODEL_APIS:
        if found := next((path for path in (*api.aliases, api.path) if ending.endswith(path)), None):
            return found
    is_below_base = set(segments[:-1]) <= {"v1", "api"}
    return next((path for path in READ if is_below_base and segments and path == f"/{segments[-1]}"), None)

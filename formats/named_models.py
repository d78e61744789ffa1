"""The models that a body can make OpenRouter use besides those it asks: by plugins, tools and presets.

A client key that may use some models only must not reach others through these. What chooses its models by itself counts
under a name of its own, such as `openrouter:fusion`: a key may use it if its list has that name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Those that call no model. Whatever else there is, or will be, counts.
PLUGINS = {"web", "web-fetch", "file-parser", "response-healing", "context-compression", "moderation"}
TOOLS = {"web_search", "web_fetch", "datetime", "bash", "shell", "files", "apply_patch", "tool_search"} | {
    "experimental__search_models"
}
OURS = "openrouter:"
# Other makers' tools run at the model that was asked, but for these; their names end with a date or nothing.
OTHERS_TOOLS = ("image_generation", "advisor")


def named_models(request: dict[str, Any]) -> tuple[str, ...]:
    """Names of models, patterns of them, and of what chooses by itself; most bodies have none."""
    found: list[str] = []
    if request.get("plugins"):
        for plugin in _objects(request["plugins"]):
            plugin_id = str(plugin.get("id"))
            if plugin_id not in PLUGINS:
                found.append(f"{OURS}{plugin_id}")
                found += _in(plugin)
    if request.get("tools"):
        for tool in _objects(request["tools"]):
            if isinstance(kind := tool.get("type"), str) and _calls_models(kind):
                found.append(kind if kind.startswith(OURS) else f"{OURS}{kind}")
                found += [*_in(tool), *_in(tool.get("parameters")), *_in(tool.get("config"))]
    if isinstance(preset := request.get("preset"), str):
        found.append(f"@preset/{preset}")
    fallbacks = [entry.get("model") for entry in _objects(request.get("fallbacks"))]
    for name in (request.get("model"), *_texts(request.get("models")), *fallbacks):
        if isinstance(name, str) and "@preset/" in name:
            found.append(name[name.index("@preset/") :])  # else openai/* would allow openai/gpt-5@preset/anything
    return tuple(found)


def _calls_models(kind: str) -> bool:
    return kind[len(OURS) :] not in TOOLS if kind.startswith(OURS) else kind.startswith(OTHERS_TOOLS)


def _in(settings: object) -> Iterator[str]:
    if isinstance(settings, dict):
        for name, value in settings.items():
            if name == "model" and isinstance(value, str):
                yield value
            elif name.endswith("models") and name != "excluded_models":
                yield from _texts(value)


def _objects(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []

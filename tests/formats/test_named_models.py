"""Every way by which a body can reach another model than the one it asks is known by name."""

from formats.named_models import named_models
from tests.support.rows import each_row


@each_row(
    "body",
    [
        {},
        {"model": "a/b", "models": ["c/d"], "messages": [{"role": "user", "content": "model"}]},
        {"plugins": [{"id": name} for name in ("web", "web-fetch", "file-parser", "response-healing", "moderation")]},
        {"plugins": [{"id": "web", "model": "x"}], "tools": None},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"model": "x/y"}}}]},
        {"tools": [{"type": "custom", "name": "model", "model": "x/y"}, {"name": "no type", "model": "x/y"}]},
        {
            "tools": [
                {"type": name} for name in ("openrouter:web_search", "web_search_20250305", "mcp", "bash_20250124")
            ]
        },
        {"plugins": "fusion", "tools": {"type": "openrouter:fusion"}, "preset": 7, "models": "x"},
        {"plugins": [["fusion"], None], "tools": ["openrouter:fusion", 1], "models": [1, None]},
    ],
)
def test_most_bodies_name_none(body):
    assert named_models(body) == ()


@each_row(
    ("body", "names"),
    [
        ({"plugins": [{"id": "fusion"}]}, {"openrouter:fusion"}),
        (
            {"plugins": [{"id": "fusion", "model": "a/b", "analysis_models": ["c/d", "e/f"]}]},
            {"openrouter:fusion", "a/b", "c/d", "e/f"},
        ),
        (
            {"plugins": [{"id": "auto-router", "allowed_models": ["a/*"], "excluded_models": ["b/*"]}]},
            {"openrouter:auto-router", "a/*"},
        ),
        ({"plugins": [{"id": "something-new"}]}, {"openrouter:something-new"}),
        ({"plugins": [{}]}, {"openrouter:None"}),
        ({"plugins": [{"id": ["web"]}]}, {"openrouter:['web']"}),
        ({"fallbacks": [{"model": "a/b@preset/mine"}]}, {"@preset/mine"}),
        ({"tools": [{"type": "openrouter:advisor"}]}, {"openrouter:advisor"}),
        (
            {"tools": [{"type": "openrouter:subagent", "parameters": {"model": "a/b"}}]},
            {"openrouter:subagent", "a/b"},
        ),
        ({"tools": [{"type": "openrouter:something_new"}]}, {"openrouter:something_new"}),
        ({"tools": [{"type": "image_generation", "model": "a/b"}]}, {"openrouter:image_generation", "a/b"}),
        ({"tools": [{"type": "advisor_20260301", "model": "a/b"}]}, {"openrouter:advisor_20260301", "a/b"}),
        ({"preset": "mine"}, {"@preset/mine"}),
        ({"model": "openai/gpt-5@preset/mine"}, {"@preset/mine"}),
        ({"models": ["a/b", "@preset/mine"]}, {"@preset/mine"}),
    ],
)
def test_what_reaches_other_models_is_named(body, names):
    assert set(named_models(body)) == names

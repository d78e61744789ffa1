"""OpenAI's Node SDK through the gateway; how often it tries again, and who pays for that."""

QUESTION = "Say something with an emoji"
ECHO = f'This is the stand-in for OpenRouter speaking. You said: "{QUESTION}"'
CALL = {"name": "weather", "arguments": '{"query":"stand-in"}'}
RESULTS = {
    "answers": [ECHO, [200]],
    "streams": [ECHO, [200]],
    "calls_a_tool": [
        [
            {"role": "user", "content": QUESTION},
            CALL | {"parsed_arguments": None},
            {"role": "tool", "content": "sunny in stand-in"},
            {"role": "assistant", "content": ECHO},
        ],
        [200, 200],
    ],
    "calls_a_tool_in_a_stream": [CALL, [200]],
    "parses_structured_output": [True, [200]],
    "completes_text": [ECHO, [200]],
    "embeds": [[True, True], [200]],
    "responds": [[ECHO, ECHO], [200, 200]],
    "calls_a_tool_in_a_response": [["weather", {"query": "stand-in"}, ECHO], [200, 200]],
    "parses_a_structured_response": [True, [200]],
    "lists_models": [True, [200]],
    "is_limited_once": [[ECHO, True], [429, 200]],
}
ERRORS = {
    "stranger": ("AuthenticationError", "client key is unknown", [401]),
    "spent": ("APIError", "quota", [402]),
    "forbidden": ("PermissionDeniedError", "moderation", [403]),
    "failed": ("InternalServerError", "Provider returned error", [502, 502]),
    "busy": ("InternalServerError", "temporarily unavailable", [503, 503]),
    "fails_in_its_middle": ("APIError", "temporarily overloaded", [200]),
}


def test_openai_in_node(plays, customer):
    plays("node", "node/openai.mjs", RESULTS, ERRORS)
    log = customer.log(requests=21)
    assert [status for status, _ in log] == [200] * 13 + [403, 429, 200, 502, 502, 503, 503, 200]
    assert [status for status, cost in log if cost] == [200] * 14

"""Vercel's AI SDK with OpenRouter's provider through the gateway; how often it tries again, and who pays for that."""

QUESTION = "Say something with an emoji"
ECHO = f'This is the stand-in for OpenRouter speaking. You said: "{QUESTION}"'
STEPS = [["tool-calls", ["sunny in stand-in"]], ["stop", []]]
RESULTS = {
    "answers": [ECHO, [200]],
    "streams": [ECHO, [200]],
    "calls_a_tool": [STEPS, [200, 200]],
    "calls_a_tool_in_a_stream": [STEPS, [200, 200]],
    "parses_structured_output": [True, [200]],
    "embeds": [[True, True], [200]],
    "is_limited_once": [[ECHO, True], [429, 200]],
    "fails_in_its_middle": [1, [200]],
}
ERRORS = {
    "stranger": ("APICallError", "client key is unknown", [401]),
    "spent": ("APICallError", "quota", [402]),
    "forbidden": ("APICallError", "moderation", [403]),
    "busy": ("RetryError", "Failed after 2 attempts. Last error: Service temporarily unavailable", [503, 503]),
}


def test_the_ai_sdk_in_node(plays, customer):
    plays("node", "node/ai-sdk.mjs", RESULTS, ERRORS)
    log = customer.log(requests=14)
    assert [status for status, _ in log] == [200] * 8 + [403, 429, 200, 503, 503, 200]
    assert [status for status, cost in log if cost] == [200] * 9

"""OpenRouter's Node SDK through the gateway; how often it tries again, and who pays for that."""

QUESTION = "Say something with an emoji"
ECHO = f'This is the stand-in for OpenRouter speaking. You said: "{QUESTION}"'
CALL = {"name": "weather", "arguments": '{"query":"stand-in"}'}
RESULTS = {
    "answers": [ECHO, [200]],
    "streams": [ECHO, [200]],
    "calls_a_tool": [[CALL, "stop"], [200, 200]],
    "calls_a_tool_in_a_stream": [CALL, [200]],
    "gets_structured_output": [True, [200]],
    "embeds": [[True, True], [200]],
    "responds": [ECHO, [200]],
    "streams_a_response": [ECHO, [200]],
    "lists_models": [True, [200]],
    "shows_its_key": [True, [200]],
    "fails_once": [ECHO, [502, 200]],
    "is_busy_once": [[ECHO, True], [503, 200]],
    "fails_in_its_middle": [[None, None, None, 502], [200]],
}
ERRORS = {
    "stranger": ("UnauthorizedResponseError", "client key is unknown", [401]),
    "spent": ("PaymentRequiredResponseError", "quota", [402]),
    "forbidden": ("ForbiddenResponseError", "moderation", [403]),
    "limited": ("TooManyRequestsResponseError", "Provider returned error", [429]),
    "gives_up": ("BadGatewayResponseError", "Provider returned error", [502]),
}


def test_openrouter_in_node(plays, customer):
    plays("node", "node/openrouter.mjs", RESULTS, ERRORS)
    log = customer.log(requests=17)
    assert [status for status, _ in log] == [200] * 9 + [403, 429, 502, 200, 503, 200, 502, 200]
    assert [status for status, cost in log if cost] == [200] * 11

"""LangChain's OpenRouter package through the gateway; how often it tries again, and who pays for that."""

from tests.sdks.conftest import CLIENTS

QUESTION = "Say something with an emoji"
ECHO = f'This is the stand-in for OpenRouter speaking. You said: "{QUESTION}"'
CONVERSATION = [QUESTION, "", "sunny in stand-in", ECHO]
RESULTS = {
    "answers": [ECHO, [200]],
    "streams": [[ECHO, True], [200]],
    "calls_a_tool": [CONVERSATION, [200, 200]],
    "calls_a_tool_in_a_stream": [CONVERSATION, [200, 200]],
    "parses_structured_output": [True, [200]],
    "is_busy_once": [[ECHO, True], [503, 200]],
    "fails_in_its_middle": [["error"], [200]],
}
ERRORS = {
    "stranger": ("UnauthorizedResponseError", "client key is unknown", [401]),
    "spent": ("PaymentRequiredResponseError", "quota", [402]),
    "forbidden": ("ForbiddenResponseError", "moderation", [403]),
    "limited": ("TooManyRequestsResponseError", "Provider returned error", [429]),
}


def test_langchain(plays, customer):
    plays(CLIENTS / "langchain/.venv/bin/python", "langchain/cases.py", RESULTS, ERRORS)
    log = customer.log(requests=12)
    assert [status for status, _ in log] == [200] * 7 + [403, 429, 503, 200, 200]
    assert [status for status, cost in log if cost] == [200] * 8

"""Runs LangChain's cases, in the environment that it wants, and prints what came of them as ../node/cases.mjs does."""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pydantic
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openrouter import ChatOpenRouter

QUESTION = "Say something with an emoji"
MODEL = "openai/gpt-4o-mini"


class Said(pydantic.BaseModel):
    """What the stand-in answers to whoever wants JSON."""

    stand_in: bool


class Answers(logging.Handler):
    """The statuses of all answers: the SDK's HTTP client logs them."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.statuses += [each for each in record.args or () if isinstance(each, int)]


@tool
def weather(query: str) -> str:
    """Tell the weather."""
    return f"sunny in {query}"


def chat(model: str = MODEL, **settings: Any) -> ChatOpenRouter:
    return ChatOpenRouter(model=model, **settings)  # OPENROUTER_API_BASE, OPENROUTER_API_KEY


def chat_as(key: str) -> ChatOpenRouter:
    return ChatOpenRouter(model=MODEL, base_url=os.environ["BASE_URL"], api_key=key)


def streams() -> list[Any]:
    chunks = list(chat().stream(QUESTION))
    return ["".join(chunk.text for chunk in chunks), any(chunk.usage_metadata for chunk in chunks)]


def calls_a_tool(streaming: bool) -> list[str]:
    bound = chat("sandbox/tools", streaming=streaming).bind_tools([weather])
    messages: list[AnyMessage] = [HumanMessage(QUESTION)]
    messages.append(bound.invoke(messages))
    [call] = messages[-1].tool_calls
    messages.append(weather.invoke(call))
    messages.append(bound.invoke(messages))
    return [str(message.content) for message in messages]


def parses_structured_output() -> bool:
    return chat().with_structured_output(Said, method="json_schema").invoke(QUESTION).stand_in


def is_busy_once() -> list[Any]:
    fault = {"scenario": "503?retry_after=1", "times": 3, "account": os.environ["ACCOUNT"]}  # the gateway's own tries
    urllib.request.urlopen(os.environ["FAULTS"], json.dumps(fault).encode()).close()
    begun = time.monotonic()
    content = chat().invoke(QUESTION).content
    return [content, time.monotonic() - begun >= 1]


def fails_in_its_middle() -> list[str]:
    chunks = chat("sandbox/error-mid?error_usage=1").stream(QUESTION)
    return [chunk.response_metadata["finish_reason"] for chunk in chunks if "finish_reason" in chunk.response_metadata]


CASES: dict[str, Callable[[], Any]] = {
    "answers": lambda: chat().invoke(QUESTION).content,
    "streams": streams,
    "calls_a_tool": lambda: calls_a_tool(streaming=False),
    "calls_a_tool_in_a_stream": lambda: calls_a_tool(streaming=True),
    "parses_structured_output": parses_structured_output,
    "stranger": lambda: chat_as("sk-auto-unknown").invoke(QUESTION),
    "spent": lambda: chat_as(os.environ["SPENT_KEY"]).invoke(QUESTION),
    "forbidden": lambda: chat("sandbox/403a").invoke(QUESTION),
    "limited": lambda: chat("sandbox/429c").invoke(QUESTION),
    "is_busy_once": is_busy_once,
    "fails_in_its_middle": fails_in_its_middle,
}


def main() -> None:
    seen = Answers()
    logging.getLogger("httpx").setLevel(logging.INFO)
    logging.getLogger("httpx").addHandler(seen)
    results, errors = {}, {}
    for name, play in CASES.items():
        seen.statuses = []
        try:
            results[name] = [play(), seen.statuses]
        except Exception as error:  # noqa: BLE001 - whatever the client raises is what the test looks at
            errors[name] = [type(error).__name__, str(error), seen.statuses]
    print(json.dumps({"results": results, "errors": errors}))


if __name__ == "__main__":
    main()

"""The `llm` command line and library with its OpenRouter plugin, through the gateway."""

import json
import time

import pydantic
import pytest
import yaml
from click.testing import CliRunner

from tests.support.lazily import Lazily

llm, command_line, openai = Lazily("llm"), Lazily("llm.cli"), Lazily("openai")

QUESTION = "Say something with an emoji"
MODEL = "openrouter/openai/gpt-4o-mini"
TOOLS = "openrouter/sandbox/tools"


class Said(pydantic.BaseModel):
    """What the stand-in answers to whoever wants JSON."""

    stand_in: bool


def weather(query: str) -> str:
    """Tell the weather."""
    return f"sunny in {query}"


@pytest.fixture
def llm_folder(stand_in, tmp_path, monkeypatch):
    """Where llm keeps its settings, with the list of models that the plugin would fetch from openrouter.ai."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    listed = stand_in.call("GET", "/models").json()["data"]
    listed.append(listed[0] | {"id": "sandbox/tools"})
    (tmp_path / "openrouter_models.json").write_text(json.dumps({"data": listed}))
    return tmp_path


@pytest.fixture
def model(llm_folder, monkeypatch):
    """A model of the plugin that speaks to this gateway, in place of openrouter.ai."""

    def make(gateway_url, key, name=MODEL):
        monkeypatch.setenv("OPENROUTER_KEY", key)
        found = llm.get_model(name)
        found.api_base = f"{gateway_url}/v1"
        return found

    return make


# The plugin asks for responses unless it is told to ask for chat completions.
FORMATS = pytest.mark.parametrize("chat_completions", [False, True], ids=["responses", "chat"])
STREAMING = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@FORMATS
@STREAMING
def test_answers(gateway, key, model, chat_completions, stream):
    answer = model(gateway.url, key).prompt(QUESTION, stream=stream, chat_completions=chat_completions)
    assert "emoji" in "".join(answer)
    assert answer.usage().output


@FORMATS
@STREAMING
def test_calls_a_tool_and_tells_its_result(gateway, key, model, chat_completions, stream):
    chain = model(gateway.url, key, TOOLS).chain(
        QUESTION, tools=[weather], stream=stream, options={"chat_completions": chat_completions}
    )
    called, answered = chain.responses()
    assert [(call.name, call.arguments) for call in called.tool_calls()] == [("weather", {"query": "stand-in"})]
    assert answered.text()


@FORMATS
def test_gets_structured_output(gateway, key, model, chat_completions):
    answer = model(gateway.url, key).prompt(QUESTION, schema=Said, chat_completions=chat_completions)
    assert json.loads(answer.text())["stand_in"] is True


def test_answers_on_the_command_line(gateway, key, llm_folder, monkeypatch):
    """The plugin's models know no address but openrouter.ai; llm itself takes one."""
    entry = {"model_id": "gateway", "model_name": "openai/gpt-4o-mini", "api_base": f"{gateway.url}/v1"}
    entry |= {"api_key_name": "gateway", "supports_schema": True, "supports_tools": True}
    (llm_folder / "extra-openai-models.yaml").write_text(yaml.safe_dump([entry]))
    told = [
        CliRunner().invoke(command_line.cli, arguments, catch_exceptions=False, input=None)
        for arguments in (
            ["keys", "set", "gateway", "--value", key],
            ["-m", "gateway", QUESTION],
            ["-m", "gateway", "--schema", "stand_in bool", QUESTION],
            ["-m", "gateway", "--key", "sk-auto-unknown", QUESTION],
        )
    ]
    assert [each.exit_code for each in told] == [0, 0, 0, 1]
    assert "emoji" in told[1].output
    assert json.loads(told[2].output)["stand_in"] is True
    assert "client key is unknown" in told[3].output


def test_does_not_retry_what_the_caller_must_mend(customer, spent_key, model, answers):
    with pytest.raises(openai.AuthenticationError):
        model(customer.url, "sk-auto-unknown").prompt(QUESTION).text()
    with pytest.raises(openai.APIStatusError, match="quota"):
        model(customer.url, spent_key).prompt(QUESTION).text()
    assert answers() == [401, 402]


def test_retries_and_pays_once(customer, model, answers):
    begun = time.monotonic()
    customer.meets("429c?retry_after=1", times=1)
    assert model(customer.url, customer.key).prompt(QUESTION).text()
    assert time.monotonic() - begun >= 1  # Retry-After
    assert answers() == [429, 200]
    (limited, free), (answered, paid) = customer.log(requests=2)
    assert (limited, free, answered) == (429, 0, 200)
    assert paid > 0


def test_reads_an_error_in_the_middle_of_a_stream(customer, model, answers):
    customer.meets("error-usage", times=1)
    with pytest.raises(openai.APIError, match="temporarily overloaded"):
        model(customer.url, customer.key).prompt(QUESTION, chat_completions=True).text()
    assert answers() == [200]
    assert customer.log(requests=1) == [(200, 0)]

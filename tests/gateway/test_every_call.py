"""Every path that costs money beside those that write text: who may call it, what it costs, and what is refused.

Through real gateways, to the ledger: what a log says is what the stand-in bills.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from formats.registry import MODEL_APIS
from serving.door import PATHS
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, wait_for

OPEN_STATES = {"dispatched", "streaming", "pending"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """One format. good: a body that works. bad: changes of it (None: without the field), and the field that is told."""

    model: str
    good: dict[str, Any]
    bad: tuple[tuple[dict[str, Any], str], ...]


KINDS = {
    "transcriptions": Kind(
        "openai/whisper-large-v3",
        {"input_audio": {"data": "UklGRiQA", "format": "wav"}},
        (
            ({"model": None}, "model"),
            ({"input_audio": None}, "input_audio"),
            ({"input_audio": "UklGRiQA"}, "input_audio"),
            ({"stream": True}, "streamed"),
        ),
    ),
    "speech": Kind(
        "mistralai/voxtral-mini-tts-2603",
        {"input": "Hello world", "response_format": "mp3"},
        (
            ({"model": None}, "model"),
            ({"input": None}, "input"),
            ({"input": ""}, "input"),
            ({"input": ["a"]}, "input"),
            ({"stream_format": "sse"}, "stream_format"),
            ({"stream": True}, "stream"),
        ),
    ),
    "images": Kind(
        "openai/gpt-image-1",
        {"prompt": "a red panda", "n": 2},
        (
            ({"model": None}, "model"),
            ({"prompt": None}, "prompt"),
            ({"prompt": ""}, "prompt"),
            ({"prompt": ["a"]}, "prompt"),
            ({"n": 11}, "from 1 to 10"),
            ({"n": 0}, "from 1 to 10"),
            ({"stream": "yes"}, "stream"),
        ),
    ),
    "rerank": Kind(
        "cohere/rerank-v3.5",
        {"query": "Where is Paris?", "documents": ["Berlin", "Paris is in France", {"text": "Rome"}], "top_n": 2},
        (
            ({"model": None}, "model"),
            ({"query": None}, "query"),
            ({"query": ""}, "query"),
            ({"query": ["Paris"]}, "query"),
            ({"documents": None}, "documents"),
            ({"documents": []}, "documents"),
            ({"documents": "Paris"}, "documents"),
            ({"top_n": 0}, "top_n"),
            ({"top_n": 1.5}, "top_n"),
            ({"stream": True}, "streamed"),
        ),
    ),
}
ROUTES = [path for path, api in PATHS.items() if api.name in KINDS]


class House:
    """A gateway, and the account at the stand-in that pays for its calls."""

    def __init__(self, start: Callable[..., Gateway], stand_in: Running, server: str, url: str) -> None:
        self.stand_in = stand_in
        self.account = stand_in.new_account()["id"]
        self.pool_key = stand_in.new_key(account=self.account)
        self.gateway = start(
            SERVER=server,
            DATABASE_URL=url,
            OPENROUTER_API_URL=stand_in.address,
            OPENROUTER_API_KEYS=self.pool_key["key"],
            RATE_LIMIT_USER_RPM=1000,
        )
        wait_for(lambda: self.gateway.get("/v1/models", self.gateway.new_user()).status_code == 200)

    def sent_up(self) -> int:
        """How many calls the stand-in has seen."""
        log = self.stand_in.control("GET", "log")["requests"]
        return sum(one["key_hash"] == self.pool_key["hash"] and one["method"] == "POST" for one in log)

    def billed(self) -> int:
        """What the account owes, in nano-dollars."""
        nano: int = self.stand_in.control("GET", "bill")["accounts"][self.account]["nano"]
        return nano

    def new_key(self, token: str, **wishes: Any) -> str:
        answer = self.gateway.post("/api/api-keys", {"name": "narrow", **wishes}, token)
        assert answer.status_code == 201, answer.text
        secret: str = answer.json()["key"]
        return secret

    def log(self, token: str, count: int) -> list[dict[str, Any]]:
        """So many calls of somebody, newest first, once what they cost is known."""

        def find() -> Any:
            items = self.gateway.get("/api/usage/logs", token).json()["items"]
            return items if len(items) >= count and not OPEN_STATES & {one["state"] for one in items} else None

        items: list[dict[str, Any]] = wait_for(find)
        assert len(items) == count
        return items


@pytest.fixture(scope="module", params=["granian-sqlite", "gunicorn-mariadb"])
def house(
    request: pytest.FixtureRequest,
    start: Callable[..., Gateway],
    stand_in: Running,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[House]:
    server, _, kind = request.param.partition("-")
    url = f"sqlite:///{tmp_path_factory.mktemp('calls')}/x.db"
    if kind == "mariadb":
        url = request.getfixturevalue("mariadb").new_database()
    return House(start, stand_in, server, url)


@pytest.fixture
def someone(house: House) -> str:
    return house.gateway.new_user()


def ask(house: House, path: str, token: str, **changes: Any) -> requests.Response:
    kind = KINDS[PATHS[path].name]
    body = {"model": kind.model, **kind.good, **changes}
    body = {name: value for name, value in body.items() if value is not None}
    return house.gateway.post(path, body, token)


def test_all_of_them_are_here() -> None:
    others = {"chat", "completions", "embeddings", "responses", "messages"}  # of which the other files are full
    others.add("videos")  # whose jobs are in tests/web/api/test_videos.py
    assert KINDS.keys() == {api.name for api in MODEL_APIS} - others


@pytest.mark.parametrize("path", ROUTES)
def test_a_call_costs_what_openrouter_bills_for_it(house: House, someone: str, path: str) -> None:
    owed = house.billed()
    answer = ask(house, path, someone)
    assert answer.status_code == 200, answer.text
    [row] = house.log(someone, 1)
    assert (row["state"], row["model"], row["status"]) == ("settled", KINDS[PATHS[path].name].model, 200)
    assert row["cost_nano"] == house.billed() - owed > 0
    assert answer.headers["X-Generation-Id"]


@pytest.mark.parametrize("path", ROUTES)
def test_who_may_not_call_it_is_told_why_and_nothing_goes_up(house: House, someone: str, path: str) -> None:
    name, model, sent = PATHS[path].name, KINDS[PATHS[path].name].model, house.sent_up()
    chat_only, other_model = house.new_key(someone, scopes=["chat"]), house.new_key(someone, models=["google/*"])
    spent, good = house.new_key(someone, budget={"limit_usd": 0}), house.new_key(someone, scopes=[name], models=[model])
    for credential, status, word in (
        ("", 401, "token"),
        (chat_only, 403, name),
        (other_model, 403, model),
        (spent, 402, "quota"),
    ):
        answer = ask(house, path, credential)
        assert (answer.status_code, word in answer.json()["error"]["message"]) == (status, True), answer.text
    fallback = ask(house, path, good, models=["openai/gpt-4o"])
    assert (fallback.status_code, "openai/gpt-4o" in fallback.text) == (403, True)
    assert house.sent_up() == sent
    assert ask(house, path, good).status_code == 200  # and somebody who may is not held up
    rows = house.log(someone, 5)  # a stranger's call has none
    assert [row["status"] for row in rows] == [200, 403, 402, 403, 403]
    assert [row["cost_nano"] or 0 for row in rows[1:]] == [0] * 4


CASES = [(name, change, word) for name, kind in KINDS.items() for change, word in kind.bad]


@pytest.mark.parametrize(("name", "change", "word"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_a_bad_body_is_a_400_that_says_what_is_wrong(house: House, someone: str, name: str, change: Any, word: str):
    path = next(path for path, api in PATHS.items() if api.name == name)
    sent = house.sent_up()
    answer = ask(house, path, someone, **change)
    assert answer.status_code == 400, answer.text
    assert word in answer.json()["error"]["message"]
    assert house.sent_up() == sent
    assert ask(house, path, someone).status_code == 200
    good, bad = house.log(someone, 2)
    assert (good["status"], bad["status"], word in bad["error_message"], bad["cost_nano"]) == (200, 400, True, 0)


def test_a_refusal_of_openrouters_passes_and_costs_nothing(house: House, someone: str) -> None:
    owed = house.billed()
    for number, path in enumerate(ROUTES, 1):
        answer = ask(house, path, someone, model="no/such-model")
        assert (answer.status_code, "no/such-model" in answer.json()["error"]["message"]) == (400, True)
        assert house.log(someone, number)[0]["cost_nano"] in (None, 0)
    assert house.billed() == owed


# ── forms


def form(model: str | None = "openai/whisper-large-v3", file_first: bool = False, **more: str) -> list[Any]:
    """The parts of a form, as `requests` sends them."""
    fields = [("model", (None, model))] * (model is not None) + [(name, (None, text)) for name, text in more.items()]
    file = [("file", ("hello.wav", b"\r\n--sound\x00" * 10_000, "audio/wav"))]
    return file + fields if file_first else fields + file


def send(house: House, token: str, parts: list[Any]) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.post(f"{house.gateway.url}/v1/audio/transcriptions", files=parts, headers=headers, timeout=30)


@pytest.mark.parametrize("file_first", [True, False])
def test_a_form_goes_up_as_it_is_wherever_its_model_stands(house: House, someone: str, file_first: bool) -> None:
    owed = house.billed()
    answer = send(house, someone, form(file_first=file_first, language="en", response_format="verbose_json"))
    assert answer.status_code == 200, answer.text
    assert "100000 bytes of wav" in answer.json()["text"]
    assert answer.json()["language"] == "en"
    [row] = house.log(someone, 1)
    assert (row["state"], row["model"]) == ("settled", "openai/whisper-large-v3")
    assert row["cost_nano"] == house.billed() - owed > 0


def test_a_form_is_held_to_what_its_key_may_do(house: House, someone: str) -> None:
    sent, narrow = house.sent_up(), house.new_key(someone, models=["mistralai/*"])
    answer = send(house, narrow, form())
    assert (answer.status_code, "whisper" in answer.text) == (403, True)
    assert send(house, house.new_key(someone, scopes=["chat"]), form()).status_code == 403
    assert house.sent_up() == sent


def test_a_bad_form_is_a_400_that_says_what_is_wrong(house: House, someone: str) -> None:
    sent = house.sent_up()
    for parts, word in (
        (form(model=None), "`model`"),
        (form(stream="true"), "streamed"),
        ([("model", (None, "m"))], "`file`"),
        ([*form(), ("model", (None, "another"))], "'model' twice"),
        ([*form(), ("model", ("a.txt", b"another"))], "'model' twice"),
    ):
        answer = send(house, someone, parts)
        assert (answer.status_code, word in answer.json()["error"]["message"]) == (400, True), answer.text
    assert house.sent_up() == sent

"""What schemathesis makes of the OpenAPI document, sent to a real gateway by each kind of caller.

Every answer has a status, a content type, headers and a shape that the document says, and none is a fault of ours.
Whatever is found here is found again: nothing is drawn at random. Half of the requests to somebody's object go to one
that exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from tests.sandbox.conftest import Running
from tests.support.api_world import KINDS as EVERYBODY
from tests.support.api_world import World, declared, flask_app
from tests.support.examples import examples
from tests.support.gateway import Gateway
from tests.web.test_access_matrix import ROWS
from web.openapi import document

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
EXAMPLES = examples(1, 30)  # of each mode, for each route and kind of caller
DOCUMENT = document.document(flask_app())
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
KINDS = ["nobody", "owner", "operator", "api token", "client key"]


@pytest.fixture(scope="module")
def world(
    start: Callable[..., Gateway], stand_in: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """On SQLite: what differs between databases is tested route by route."""
    made = World(start, stand_in, f"sqlite:///{tmp_path_factory.mktemp('conformance')}/x.db")
    yield made
    made.close()


def expected(label: str, kind: str) -> int:
    """What this kind of caller gets for a good request, as the access matrix says."""
    return int(ROWS[label][0].split()[EVERYBODY.index(kind)])


CASES = [(label, kind) for label in OPERATIONS for kind in KINDS if label in ROWS]


@pytest.mark.hypothesis
@pytest.mark.parametrize(("label", "kind"), CASES, ids=[f"{label} {kind}" for label, kind in CASES])
def test_every_answer_is_one_that_is_documented(world: World, label: str, kind: str) -> None:
    if world.is_worn:
        world.revive()
    world.is_worn = not label.startswith("GET ")
    operation, status = OPERATIONS[label], expected(label, kind)
    asked = ROWS[label][1](world, kind)

    def check(case: Any) -> int:
        credential = asked.bearer or world.credential(kind)
        headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        response = case.call(base_url=world.gateway.url, headers=headers, timeout=30)
        case.validate_response(response, checks=CHECKS)
        return response.status_code

    good: dict[str, Any] = {"path_parameters": asked.parts or {}, "query": dict(parse_qsl(asked.query[1:]))}
    if operation.body:
        good |= {"body": asked.body, "media_type": "application/json"}
    assert check(operation.Case(**good)) == status
    asked = ROWS[label][1](world, kind)  # the request may have been the end of what it was about

    def check_any(case: Any, uses_an_object: bool) -> None:
        if uses_an_object and asked.parts:
            case.path_parameters = dict(asked.parts)
        if isinstance(case.body, dict) and "stream" in case.body:
            case.body["stream"] = False
        check(case)

    # Who is refused at the door learns one status, whatever is sent.
    is_refused = status in {401, 403}
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    for mode in examples(modes[:1], modes) if is_refused else modes:
        run = settings(
            max_examples=1 if is_refused else EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(operation.as_strategy(generation_mode=mode), st.booleans())(check_any))
        # What takes neither parts nor a query nor a body can't be asked anything wrong.
        with suppress(*([Unsatisfiable] if mode is GenerationMode.NEGATIVE else [])):
            run()
    while world.cleanups:
        world.cleanups.pop()()


def test_every_route_is_tried() -> None:
    assert {label for label, _ in CASES} == set(OPERATIONS) >= set(declared())

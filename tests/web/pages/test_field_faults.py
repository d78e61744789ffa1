"""What is wrong with a field is said in the reader's language, for each field of each form, whatever is sent."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable

import pytest
from pydantic import BaseModel, ValidationError

from billing.quotas.terms import check_amount
from foundation.errors import AppError, BadRequest
from tests.support.gateway import ROOT
from upstream.safe_address import UnsafeAddress, check_url
from web.operation import Query
from web.pages.field_faults import UNREADABLE, faults_by_field, refusal_by_field
from web.words import LANGUAGES, words

OTHERS = sorted(set(LANGUAGES) - {"en"})
WRONG = [[], {}, "", "x" * 20_000, "-1", "1e400", "0.5", " ", "\x00", ["\x00"], [["x"]] * 1000, {"\x00": "\x00"}]
WRONG += [{"limit_usd": "x", "period": "x", "recovery": "x"}, [{"model": "", "weight": "x"}], {"*": {"prompt": "x"}}]


def forms() -> dict[str, type[BaseModel]]:
    """The models that pages read forms and filters as."""
    found: dict[str, type[BaseModel]] = {}
    for path in sorted((ROOT / "web/pages").glob("*.py")):
        module = importlib.import_module(f"web.pages.{path.stem}")
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in {"form_of", "query_of"}:
                model = getattr(module, getattr(call.args[0], "id", ""), None)
                if model:  # else it is the parameter of a function of forms.py
                    found[model.__name__] = model
    return found


def refused_by(check: Callable[..., object], *given: object) -> str:
    """What a check says of what is given."""
    with pytest.raises((AppError, UnsafeAddress)) as refused:
        check(*given)
    return str(refused.value)


def faults(model: type[BaseModel]) -> set[tuple[str, str]]:
    """All that can be said of it, by its fields."""
    values = [one for one in WRONG if isinstance(one, str)] if issubclass(model, Query) else WRONG
    inner = {"limit_usd", "period", "recovery"} if "budget" in model.model_fields else set()
    found: set[tuple[str, str]] = set()
    for given in [{}, *({name: value} for name in model.model_fields for value in values)]:
        try:
            model.model_validate(given, strict=False)
        except ValidationError as error:
            said = faults_by_field(model, error, inner)
        except BadRequest as error:
            said = refusal_by_field(error.message)
        else:
            continue
        found |= {(field, one.text) for field, one in said.items()}
    return found


URLS = ["x y", "https://[x", "ftp://x", "https://me@x", "https://x:0", "https://1.2", "https://127.0.0.1"]
REFUSED = [f"base_url can't be used: {refused_by(check_url, url, False)}" for url in URLS]
REFUSED += [f"base_url can't be used: {refused_by(check_url, 'https://169.254.169.254', True)}"]
REFUSED += [refused_by(check_amount, "limit_usd", "much"), "start must be before end"]
REFUSED += ["upstream must be openrouter or the name of another upstream"]
REFUSED += [
    "name must be 1 to 64 characters of a-z 0-9 . _ -, not digits alone, "
    "and not openrouter, which is the pool of OpenRouter keys"
]


def all_said() -> set[str]:
    """What may stand at the fields of forms."""
    later = {said.text for message in REFUSED for said in refusal_by_field(message).values()}
    return later | {text for model in forms().values() for _, text in faults(model)}


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("message", REFUSED)
def test_what_is_found_wrong_later_stands_at_its_field_too(message, language):
    [(field, said)] = refusal_by_field(message).items()
    assert message.startswith(f"{field} ")
    assert said.text in words(language)


def test_what_belongs_to_no_field_stands_at_none():
    assert refusal_by_field("The soft limit must not be above the limit") == {}
    assert refusal_by_field("There is no field 'x' here; this takes name") == {}


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("model", forms().values(), ids=forms())
def test_each_fault_of_each_form_is_in_words_that_are_translated(model, language):
    said = faults(model)
    assert {one for one in said if one[1] not in words(language)} == set()
    assert not [
        one for one in said if re.search(r"\bnull|object|[{}^$]", one[1].replace("{low}", "").replace("{high}", ""))
    ]
    # What scripts and views make of other fields is never typed.
    assert {field for field, text in said if text == UNREADABLE} <= {"credential", "budget", "quota"}

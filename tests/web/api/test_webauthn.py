"""WebAuthn's JSON: what browsers make is read whatever else they add, and nothing that is not base64url."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from web.api.webauthn import PasskeyAnswer

NAMES = ("clientDataJSON", "authenticatorData", "signature", "userHandle")
GOOD = {"id": "AA", "rawId": "AA", "type": "public-key", "response": dict.fromkeys(NAMES, "AA")}


def test_what_browsers_add_is_let_pass_and_left_out():
    more = {"authenticatorAttachment": "platform", "clientExtensionResults": {}, "later": [1]}
    assert PasskeyAnswer.model_validate(GOOD | more).model_dump() == GOOD


@pytest.mark.parametrize("wrong", ["", "A=", "A+", "Ä", "A" * 8193, None, 7, ["AA"], {"a": 1}])
@pytest.mark.parametrize("name", ["id", *NAMES])
def test_each_part_is_base64url_of_some_length(name, wrong):
    changed = {"id": wrong} if name == "id" else {"response": GOOD["response"] | {name: wrong}}
    with pytest.raises(ValidationError):
        PasskeyAnswer.model_validate(GOOD | changed)

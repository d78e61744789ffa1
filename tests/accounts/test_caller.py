"""Who sent a request is told by what proved it, and by nothing else."""

from __future__ import annotations

import dataclasses

import pytest

from accounts.api_tokens import ApiToken
from accounts.caller import Caller, Credential
from accounts.client_keys import ClientKey

KEY = ClientKey(id=5, user_id=7, scopes=None, models=None, upstreams=None, rpm=None, expires_at=2e9)
TOKEN = ApiToken(id=3, user_id=7, expires_at=2e9)


@pytest.mark.parametrize(
    ("more", "credential", "client_key_id"),
    [
        ({}, Credential.ACCESS_TOKEN, None),
        ({"client_key": KEY}, Credential.CLIENT_KEY, 5),
        ({"api_token": TOKEN}, Credential.API_TOKEN, None),
        ({"session_token": Credential.PAGE_TOKEN}, Credential.PAGE_TOKEN, None),
        ({"session_token": Credential.CALL_TOKEN}, Credential.CALL_TOKEN, None),
    ],
)
def test_a_caller_tells_what_proved_it(more, credential, client_key_id):
    caller = Caller(7, "session" if not {"client_key", "api_token"} & more.keys() else "", 2e9, **more)
    assert (caller.credential, caller.client_key_id) == (credential, client_key_id)


def test_nobody_changes_who_called():
    caller = Caller(7, "session", 2e9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        caller.user_id = 8

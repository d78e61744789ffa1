"""The server derives the key that every client derives, and no more at once than the hasher permits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.key_derivation import KeyDeriver
from auth import DERIVED_KEY
from clients.python.openrouter_proxy_client import KdfParameters, derive_key
from foundation.crypto import DerivedKeyHasher
from foundation.errors import Busy
from tests.support.rows import each_row

VECTORS = json.loads((Path(__file__).parents[1] / "clients/kdf_vectors.json").read_text("utf-8"))["vectors"]
DOMAIN = "openrouter-proxy-access-key-v1"
HASHER = DerivedKeyHasher(permits=2)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@each_row("vector", VECTORS, ids=lambda vector: f"{vector['domain']}-{vector['email']}")
def test_known_keys_are_derived(vector):
    derivation = KeyDeriver(HASHER, vector["domain"])
    assert derivation.derive(vector["email"], vector["password"]) == vector["derived_key"]


@given(username=texts, password=texts, domain=texts)
def test_a_client_derives_the_same_key_from_what_is_published(username, password, domain):
    derivation = KeyDeriver(HASHER, domain)
    key = derivation.derive(username, password)
    assert key == derive_key(username, password, KdfParameters.from_answer(derivation.parameters))
    assert DERIVED_KEY.fullmatch(key)


def test_another_name_password_or_domain_is_another_key():
    derivation = KeyDeriver(HASHER, DOMAIN)
    keys = {derivation.derive(name, word) for name in ("ann", "bob") for word in ("pass-1", "pass-2", "pass-11")}
    assert len(keys | {KeyDeriver(HASHER, "other").derive("ann", "pass-1")}) == 7


def test_no_key_is_derived_without_a_permit():
    hasher = DerivedKeyHasher(permits=1, queue=0)
    derivation = KeyDeriver(hasher, DOMAIN)
    with hasher._permit(), pytest.raises(Busy):
        derivation.derive("ann", "password")
    assert derivation.derive("ann", "password")

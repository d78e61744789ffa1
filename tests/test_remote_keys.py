"""What OpenRouter tells about keys, read: whose a key is."""

import subprocess
import sys

import orjson

from remote_keys import KeyAccount, key_account
from tests.gateway import ROOT


def test_an_account_is_its_organization_else_its_person_else_unknown():
    organization, person = {"organization_id": "o"}, {"creator_user_id": "p"}
    assert key_account(organization | person) == key_account(organization) != key_account(person)
    assert key_account({}) == KeyAccount(None, None, None)
    assert orjson.dumps(key_account(person).account_id) != b'"p"'


def test_a_gateway_needs_no_http_library_to_read_what_keys_say():
    program = "import app, sys; print('requests' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"

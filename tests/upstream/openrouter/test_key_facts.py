"""What OpenRouter tells about keys, asked and read: whose a key is, what it has spent, whether it manages others."""

import subprocess
import sys

import orjson
import pytest

from tests.support.gateway import ROOT, free_port
from upstream.http import UpstreamHttp, authorization_of
from upstream.openrouter.key_facts import KeyAccount, ask, key_account


def test_an_account_is_its_organization_else_its_person_else_unknown():
    organization, person = {"organization_id": "o"}, {"creator_user_id": "p"}
    assert key_account(organization | person) == key_account(organization) != key_account(person)
    assert key_account({}) == KeyAccount(None, None, None)
    assert orjson.dumps(key_account(person).account_id) != b'"p"'


@pytest.mark.usefixtures("one_day")
def test_a_key_tells_what_it_has_spent_and_has_left(stand_in):
    made = stand_in.new_key(limit=2)
    assert stand_in.chat(made["key"]).status_code == 200
    spent = stand_in.spent(made["hash"])
    upstream = UpstreamHttp(stand_in.address, 1)
    status, told = ask(upstream, authorization_of(made["key"]))
    assert (status, told.usage_nano, told.usage_today_nano) == (200, spent, spent)
    assert (told.limit_nano, told.remaining_nano, told.is_management) == (2 * 10**9, 2 * 10**9 - spent, False)
    account = stand_in.new_account()
    assert ask(upstream, authorization_of(account["management_key"]))[1].is_management
    assert ask(upstream, authorization_of("sk-or-v1-" + "0" * 64)) == (401, None)
    upstream.close()


def test_nobody_there_is_status_0():
    assert ask(UpstreamHttp(f"http://127.0.0.1:{free_port()}", 1), authorization_of("sk-or-v1-0")) == (0, None)


def test_a_gateway_needs_no_http_library_to_read_what_keys_say():
    program = "import app, sys; print('requests' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"

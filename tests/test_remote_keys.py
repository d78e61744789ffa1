"""What OpenRouter tells about keys, read exactly: money, and whose a key is."""

import subprocess
import sys

import orjson
import pytest

from remote_keys import MAX_NANO, KeyAccount, key_account, nano
from tests.gateway import ROOT


@pytest.mark.parametrize(
    ("dollars", "amount"),
    [(None, None), (0, 0), (1, 10**9), (0.1, 10**8), (1e-9, 1), ("2.5", 25 * 10**8), (1.1, 11 * 10**8), (-1, -(10**9))],
)
def test_dollars_become_nano_dollars_exactly(dollars, amount):
    assert nano(dollars) == amount


@pytest.mark.parametrize("dollars", [True, "x", "", [], {}, "NaN", "Infinity", "-Infinity", 1e30, float(MAX_NANO)])
def test_what_is_no_amount_of_money_is_refused(dollars):
    with pytest.raises((ValueError, ArithmeticError)):
        nano(dollars)


def test_an_account_is_its_organization_else_its_person_else_unknown():
    organization, person = {"organization_id": "o"}, {"creator_user_id": "p"}
    assert key_account(organization | person) == key_account(organization) != key_account(person)
    assert key_account({}) == KeyAccount(None, None, None)
    assert orjson.dumps(key_account(person).account_id) != b'"p"'


def test_a_gateway_needs_no_http_library_to_read_what_keys_say():
    program = "import app, sys; print('requests' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"

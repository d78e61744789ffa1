"""New passwords: all that one lacks is said at once, and it is never repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.password_policy import check_new_password
from foundation.errors import BadRequest

EMAIL = "Ann.Miller@example.com"
GOOD = "Tr4in-to-Nowhere"


def fault(password: str, email: str = EMAIL, field: str = "password") -> str:
    with pytest.raises(BadRequest) as raised:
        check_new_password(password, email, field)
    return raised.value.message


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "Aa1 Vq7 Kz9 ",
        "ПарольДорога7!",
        "Ab1密码山水风云雷电。",
        "Aa1-miller.ann-",
        "Aa1k\u0301o\u0301t\u0301x\u0301q",
        GOOD * 64,
    ],
)
def test_a_good_password_is_accepted(password):
    check_new_password(password, EMAIL)


@pytest.mark.parametrize(
    ("password", "lacks"),
    [
        (GOOD[:11], "at least 12 characters"),
        (GOOD.lower(), "an upper-case letter"),
        (GOOD.upper(), "a lower-case letter"),
        (GOOD.replace("4", "a"), "a digit"),
        (GOOD.replace("-", "a"), "a character that is neither a letter nor a digit"),
    ],
)
def test_what_is_lacking_is_named_and_nothing_else(password, lacks):
    assert fault(password) == f"password must have {lacks}"


def test_all_that_is_lacking_is_said_in_one_message_under_the_fields_name():
    assert fault("ann.miller", field="new_password") == (
        "new_password must have at least 12 characters, an upper-case letter, a digit, and must not contain what stands "
        "before the @ of the e-mail address"
    )
    assert fault("密码") == (
        "password must have at least 12 characters, an upper-case letter, a lower-case letter, a digit, "
        "a character that is neither a letter nor a digit"
    )


@pytest.mark.parametrize(
    "password", ["Ann.Miller-1234", "1234-aNN.mILLER", "x-ann.miller-X1", "1-Ann.Miller@example.com"]
)
def test_the_name_in_the_password_is_refused_in_any_case(password):
    assert "before the @" in fault(password)


def test_a_short_name_is_no_reason_to_refuse_a_password_that_has_its_letters():
    check_new_password(GOOD, "tr@example.com")
    assert "before the @" in fault(GOOD, "tr4@example.com")


@given(st.text(st.characters(codec="utf-8"), min_size=4, max_size=30))
def test_no_refusal_repeats_a_password(password):
    try:
        check_new_password(password, EMAIL)
    except BadRequest as refused:
        harmless = fault("") + fault("ann.miller")
        assert password not in refused.message or password in harmless


@pytest.mark.parametrize(
    "password",
    ["Password123!", "P@ssw0rd1234", "Qwertyuiop1!", "Welcome2026!!", "Summer-2026!", "aB1!aB1!aB1!", "Miller1Ann2!"],
)
def test_what_attackers_try_first_is_refused_however_mixed(password):
    told = fault(password, "millerann2@example.com")
    assert told.startswith("password is among the first that attackers try")
    assert password not in told

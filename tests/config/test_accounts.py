"""Settings of accounts and log-ins: what is accepted, and what the complaint says."""

from __future__ import annotations

import pytest

from config.settings import Config
from tests.support.settings import PRODUCTION, fault, faults


def test_sign_up_is_open_in_development_and_takes_an_invitation_in_production():
    assert Config().registration_mode == "open"
    assert (
        Config.model_validate({name.lower(): value for name, value in PRODUCTION.items()}).registration_mode == "invite"
    )


@pytest.mark.parametrize("mode", ["closed", "invite", "approval", "open"])
def test_who_may_sign_up_is_one_of_four_words(mode):
    assert faults(REGISTRATION=mode) == []
    assert fault(REGISTRATION=f"{mode}ed").startswith("REGISTRATION: ")

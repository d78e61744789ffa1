"""Second factors without a gateway around them."""

from __future__ import annotations

from accounts.one_time_states import OneTimeStates
from accounts.passkeys import Passkeys
from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from accounts.relying_party import find_relying_party
from accounts.second_factors import SecondFactors
from db import Database
from foundation.clock import Clock
from foundation.crypto import Envelopes


def second_factors(
    db: Database, envelopes: Envelopes, clock: Clock, codes: RecoveryCodes, refused: RefusedLogIns
) -> SecondFactors:
    """Those of a gateway at https://gateway.test."""
    party = find_relying_party("https://gateway.test")
    passkeys = Passkeys(db, clock, OneTimeStates(db, envelopes, clock), party, refused)
    return SecondFactors(db, envelopes, clock, codes, passkeys, refused)

"""Second factors: one-time codes of an app (TOTP, RFC 6238), passkeys, and recovery codes in their place.

The secret of an app is sealed to its account. A code is good for its half minute and the ones beside it, and once: the
step of the last one is kept. Who has the password and guesses waits longer after each five wrong ones.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from accounts.deleted import hold_account
from accounts.passkeys import PasskeyProof, Passkeys
from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from accounts.sessions import Origin
from db import Database, Transaction
from foundation.clock import Clock
from foundation.crypto import Envelopes, same
from foundation.errors import Conflict, Forbidden, NotFound, TooManyRequests, Unauthorized
from foundation.logs import event
from tables import totp_secrets as table

log = logging.getLogger("auth")

STEP_SECONDS = 30
BESIDE = (-1, 0, 1)  # steps, for clocks that go wrong
FREE_FAILURES = 5  # then a minute, two, four, ... after each
LONGEST_WAIT = timedelta(hours=1)
CODE = re.compile(r"[0-9]{6}")
MAX_TYPED = 64
PROVED = object()  # in the place of a factor: by the session in which it is asked for

Second = str | PasskeyProof | None  # what somebody has sent


class SecondFactorNeeded(Forbidden):
    """The first was right, and another one is set up."""

    type = "second_factor_needed"

    def __init__(self) -> None:
        super().__init__("Send `second_factor` too: a code of your app, a recovery code, or what your passkey signs")


class SecondFactorRequired(Forbidden):
    """Operators have to have one here, and this one has none."""

    type = "second_factor_required"

    def __init__(self) -> None:
        super().__init__("Operators need a second factor here: set one up in your profile first")


@dataclass(frozen=True)
class _Tried:
    """What came of a code. is_wrong: it was none. wait_seconds: before any other is looked at."""

    is_wrong: bool = False
    wait_seconds: int = 0


class SecondFactors:
    """The rows: at most one app's secret for each account. Passkeys have rows of their own."""

    def __init__(
        self,
        db: Database,
        envelopes: Envelopes,
        clock: Clock,
        codes: RecoveryCodes,
        passkeys: Passkeys,
        refused: RefusedLogIns,
    ) -> None:
        self._db = db
        self._envelopes = envelopes
        self._clock = clock
        self._codes = codes
        self._passkeys = passkeys
        self._refused = refused

    def is_set_up(self, user_id: int) -> bool:
        """Whether an account has a second factor, an app or a passkey."""
        return self.set_up_at(user_id) is not None or bool(self._passkeys.holders([user_id]))

    def set_up_at(self, user_id: int) -> datetime | None:
        """Since when an account has an app; None if it has none."""
        with self._db.reading() as tx:
            found: datetime | None = tx.scalar(sa.select(table.c.confirmed_at).where(table.c.user_id == user_id))
        return found

    def begin(self, user_id: int) -> str:
        """A new secret, in base 32; of no effect until it is confirmed. Raises Conflict if there is a confirmed one."""
        import pyotp  # here, because few processes ever ask

        secret, now = pyotp.random_base32(), self._clock.now()
        row = {"user_id": user_id, "secret_encrypted": self._seal(user_id, secret), "created_at": now, "failures": 0}

        def replace(tx: Transaction) -> None:
            hold_account(tx, user_id)  # one at a time
            mine = table.c.user_id == user_id
            if tx.scalar(sa.select(table.c.confirmed_at).where(mine)) is not None:
                raise Conflict("A second factor is set up already; remove it first")
            tx.execute(table.delete().where(mine))
            tx.execute(table.insert().values(row))

        self._db.transact(replace)
        return secret

    def confirm(self, user_id: int, code: str) -> None:
        """Put a new secret in force, by a code that is made with it. Raises NotFound, Unauthorized, TooManyRequests."""
        confirmed_at = self._clock.now()
        self._judge(self._db.transact(lambda tx: self._try(tx, user_id, code, confirmed_at)))

    def check(self, user_id: int, given: object, origin: Origin) -> None:
        """Let only who has the second factor of an account pass, if it has one. What is wrong is a refused log-in.

        given: a Second, or PROVED. Raises SecondFactorNeeded, BadRequest, Unauthorized, TooManyRequests.
        """
        if given is not PROVED and self.is_set_up(user_id):
            self.prove(user_id, given, origin)

    def prove(self, user_id: int, given: object, origin: Origin) -> None:
        """Let only a second factor of this account's pass. Raises as check does."""
        if not isinstance(given, str | PasskeyProof) or (isinstance(given, str) and not given.strip()):
            raise SecondFactorNeeded
        try:
            self._use(user_id, given)
        except Unauthorized:
            self._refused.note("second_factor_refused", user_id, origin)
            event(log, "second_factor_refused", user_id=user_id)
            raise

    def _use(self, user_id: int, given: str | PasskeyProof) -> None:
        if isinstance(given, PasskeyProof):
            self._passkeys.check(user_id, given)
            return
        code = given.replace(" ", "")
        if CODE.fullmatch(code):
            self._judge(self._db.transact(lambda tx: self._try(tx, user_id, code)))
        else:
            self._db.transact(lambda tx: self._codes.use(tx, user_id, given))

    def remove(self, user_id: int) -> None:
        """Take the app away. Raises NotFound."""
        if not self._remove_app(user_id):
            raise NotFound("This account has no app")

    def remove_all(self, user_id: int) -> None:
        """Take the app and all passkeys away. Raises NotFound if there is neither."""
        if not self._remove_app(user_id) + self._passkeys.remove_all(user_id):
            raise NotFound("This account has no second factor")

    def _remove_app(self, user_id: int) -> int:
        mine = table.delete().where(table.c.user_id == user_id)
        return self._db.transact(lambda tx: tx.execute(mine).rowcount)

    def holders(self, user_ids: list[int]) -> set[int]:
        """Those of these accounts that have one."""
        mine = sa.and_(table.c.user_id.in_(user_ids), table.c.confirmed_at.is_not(None))
        with self._db.reading() as tx:
            have_app = set(tx.scalars(sa.select(table.c.user_id).where(mine)))
        return have_app | self._passkeys.holders(user_ids)

    def _try(self, tx: Transaction, user_id: int, code: str, confirmed_at: datetime | None = None) -> _Tried:
        """Look at a code, one at a time for each account, and write down what came of it."""
        row = tx.execute(sa.select(table).where(table.c.user_id == user_id).with_for_update()).first()
        if row is None:
            raise NotFound("No second factor was begun; begin again")
        now = self._clock.now()
        if (wait := _wait(row.failures, row.failed_at, now)) > timedelta():
            return _Tried(wait_seconds=int(wait.total_seconds()) + 1)
        step = self._step_of(user_id, row.secret_encrypted, code)
        this = table.update().where(table.c.user_id == user_id)
        if step is None or (row.last_step is not None and step <= row.last_step):
            tx.execute(this.values(failures=row.failures + 1, failed_at=now))
            return _Tried(is_wrong=True)
        values = {"last_step": step, "failures": 0, "confirmed_at": row.confirmed_at or confirmed_at}
        tx.execute(this.values(values))
        return _Tried()

    def _step_of(self, user_id: int, sealed: str, code: str) -> int | None:
        """The step for which this is the code; None for no step near now. All are compared, in the same time."""
        import pyotp

        made = pyotp.HOTP(self._envelopes.open(table.name, "secret_encrypted", user_id, sealed))
        now = int(self._clock.timestamp()) // STEP_SECONDS
        right = [now + beside for beside in BESIDE if same(made.at(now + beside), code)]
        return right[-1] if right else None

    def _seal(self, user_id: int, secret: str) -> str:
        return self._envelopes.seal(table.name, "secret_encrypted", user_id, secret)

    def _judge(self, tried: _Tried) -> None:
        if tried.wait_seconds:
            raise TooManyRequests("Too many wrong codes; wait before the next one", tried.wait_seconds)
        if tried.is_wrong:
            raise Unauthorized("Invalid credentials")


def _wait(failures: int, failed_at: datetime | None, now: datetime) -> timedelta:
    """How long no code is looked at any more."""
    if failures < FREE_FAILURES or failed_at is None:
        return timedelta()
    pause = min(timedelta(minutes=2 ** min(failures - FREE_FAILURES, 6)), LONGEST_WAIT)
    return failed_at + pause - now

"""A rotator as a process of its own, forked for one pass, that kills or stops itself at a chosen point.

The points lie before and after every effect: every HTTP call and every commit that writes. They are found from outside
the product: around the one method through which all calls go, and around the commits of the database's engine.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import requests
import sqlalchemy as sa

from config.settings import Config
from db import Database, DatabaseError
from foundation.clock import Clock
from foundation.crypto import Envelopes
from key_rotation import KeyRotation
from pool.rotation_plan import Timing
from replicas.lease import LeaseLost, WrongDeployment
from upstream.openrouter.management_api import ManagementApi, ManagementError

ANSWER_SECONDS = 0.3  # a slow answer of the stand-in takes longer
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG: nothing stays behind, not even a stopped process
DONE, NOT_FULL, FAILED, REFUSED, BROKEN = range(5)  # exit codes


class Shared(ctypes.Structure):
    """What the processes of one schedule share: the time, and at which point what happens."""

    _fields_ = (
        ("now", ctypes.c_double),
        ("point", ctypes.c_int64),  # the last one passed, since counting began
        ("counting", ctypes.c_bool),
        ("kill_at", ctypes.c_int64),
        ("stop_at", ctypes.c_int64),
        ("commits", ctypes.c_int64),  # seen by the cutter, since counting began
        ("cut_at", ctypes.c_int64),
        ("cut_after", ctypes.c_bool),
        ("error", ctypes.c_char * 2000),
    )

    @classmethod
    def new(cls) -> Shared:
        """In memory that stays shared over forks."""
        return cls.from_buffer(mmap.mmap(-1, ctypes.sizeof(cls)))

    def clear(self) -> None:
        """Begin anew."""
        ctypes.memset(ctypes.addressof(self), 0, ctypes.sizeof(self))


class SharedClock(Clock):
    """The time that all processes of a schedule share. It moves when the schedule says so."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._shared.now, UTC)

    def timestamp(self) -> float:
        return self._shared.now

    def monotonic(self) -> float:
        return self._shared.now

    def set_by(self, told: datetime, asked_at: float, answered_at: float) -> None:
        """No database moves it."""


class Points:
    """Counts the points of the one process in which `counted` is set, and does there what is due."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.counted = False

    def pass_by(self, may_stop: bool = True) -> None:
        shared = self._shared
        if not self.counted or not shared.counting:
            return
        shared.point += 1
        if shared.kill_at == shared.point:
            os.kill(os.getpid(), signal.SIGKILL)
        if may_stop and 0 < shared.stop_at <= shared.point:
            shared.stop_at = 0
            os.kill(os.getpid(), signal.SIGSTOP)


class Impatient(requests.Session):
    """Waits less long than the product would."""

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        return super().request(*arguments, **options | {"timeout": ANSWER_SECONDS})


class PointedApi(ManagementApi):
    """Every HTTP call between two points."""

    def __init__(self, base_url: str, management_key: str, points: Points) -> None:
        super().__init__(base_url, management_key)
        self._session = Impatient()
        self._session.trust_env = False
        self._points = points

    def close(self) -> None:
        self._session.close()

    def _call(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        self._points.pass_by()
        answer = super()._call(*arguments, **options)
        self._points.pass_by()
        return answer


def point_commits(db: Database, points: Points) -> None:
    """Every commit that writes between two points. Nothing stops before one: it would hold the database's lock."""
    engine = db._engine
    commit, writes = engine.dialect.do_commit, [False]

    @sa.event.listens_for(engine, "commit")
    def before(connection: sa.Connection) -> None:
        writes[0] = not connection.get_execution_options().get("reading")
        if writes[0]:
            points.pass_by(may_stop=False)

    def do_commit(connection: Any) -> None:
        commit(connection)
        if writes[0]:
            points.pass_by()

    engine.dialect.do_commit = do_commit  # type: ignore[method-assign]


def rotation(db: Database, api: ManagementApi, settings: Config, clock: Clock) -> KeyRotation:
    """A rotation as the background service has it, but for the pauses in which a new key becomes known."""
    timing = Timing(confirm_pauses_seconds=(0, 0))
    return KeyRotation(db, Envelopes(settings.encryption_keys), api, settings, clock, timing)


def outcome(shared: Shared, work: Callable[[], object]) -> int:
    """Do the work as the background service does; returns one of the exit codes above."""
    try:
        return DONE if work() else NOT_FULL
    except (ManagementError, DatabaseError, LeaseLost) as error:
        shared.error = repr(error).encode()[:1999]
        return FAILED
    except WrongDeployment:
        return REFUSED
    except Exception as error:  # noqa: BLE001 - told to whoever asked for the work
        shared.error = repr(error).encode()[:1999]
        return BROKEN


def fork(shared: Shared, work: Callable[[], object]) -> int:
    """Do the work in a process of its own; returns its id. Its exit code is one of those above."""
    process_id = os.fork()
    if process_id:
        return process_id
    code = BROKEN
    try:
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        code = outcome(shared, work)
    finally:
        os._exit(code)

"""Where a schedule takes place: an account at a stand-in, a database, a gateway process, and the passes of rotators.

Time is virtual: it stands still in a pass and jumps between them to the next moment at which anything can happen.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from accounts.users import UpstreamChoice, Users, UserState
from api_key_manager import ApiKeyManager
from config.settings import Config
from db import Database, database_url
from foundation.crypto import Envelopes
from foundation.errors import Busy
from key_rotation import KeyRotation
from pool.keys import PoolKeys
from replicas.processes import GatewayProcess
from tables import gateway_processes, metadata, pool_keys, revisions, rotator, users
from tests.rotation_torture.commit_cutter import CommitCutter
from tests.rotation_torture.invariants import MIN_AGE, PASSING, Invariants, Sample, born
from tests.rotation_torture.rotator import (
    BROKEN,
    DONE,
    NOT_FULL,
    REFUSED,
    PointedApi,
    Points,
    Shared,
    SharedClock,
    fork,
    outcome,
    point_commits,
    rotation,
)
from tests.rotation_torture.schedules import STAGES, Schedule
from tests.rotation_torture.stand_in import StandIn

DEPLOYMENT, OTHER, CLONE = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "189")
ENCRYPTION_KEY = "b2xkLWZhc2hpb25lZC1idXQtMzItYnl0ZXMtbG9uZyE="  # 32 bytes for tests, known to everybody
PREFIX = f"gw/{DEPLOYMENT}/"
BEGINNING = datetime.fromisoformat("2026-11-21T12:00:00+00:00").timestamp()
DAY, HOUR, MINUTE = 86_400, 3_600, 60
AFTER_A_KILL = 95  # the killed rotator's lease has to end
STREAM, SILENCE = 30 * MINUTE, 2 * HOUR
MAX_TICKS = 80
STAYS, GOES, COMES = 1, 2, 3  # users with keys of their own
SCHEDULES_PER_STAND_IN = 100  # it remembers every key, and looks through all of them


class Place:
    """What the schedules of one worker use one after the other. mariadb_url: a database to begin again and again."""

    def __init__(self, folder: Path, mariadb_url: Callable[[], str]) -> None:
        self.folder = folder
        self.shared = Shared.new()
        self.points = Points(self.shared)
        self.stand_in = StandIn()
        self._mariadb_url = mariadb_url
        self._databases: dict[str, Database] = {}
        self._first_rows: dict[str, dict[sa.Table, Any]] = {}
        self._runs = 0
        self.url = ""

    def database(self, kind: str) -> Database:
        """An empty database of this kind, with its schema."""
        if kind not in self._databases:
            url = self._mariadb_url() if kind == "mariadb" else f"sqlite:///{self.folder}/torture.db"
            self._databases[kind] = db = self.connected(url)
            self.url = url if kind == "mariadb" else self.url
            db.upgrade()
            with db.reading() as tx:
                self._first_rows[kind] = {
                    table: [row._asdict() for row in tx.execute(sa.select(table))] for table in (rotator, revisions)
                }
        db = self._databases[kind]

        def empty(tx: sa.Connection) -> None:
            for table in (pool_keys, gateway_processes, rotator, revisions, users):
                tx.execute(table.delete())
            for table, rows in self._first_rows[kind].items():
                tx.execute(table.insert(), rows)

        db.transact(empty)
        db.close()
        return db

    def connected(self, url: str) -> Database:
        """A database whose commits lie between points."""
        db = Database(database_url(Config(database_url=url)))
        point_commits(db, self.points)
        return db

    def run(self, schedule: Schedule) -> World:
        """Run one schedule to its end."""
        self._runs += 1
        if self._runs % SCHEDULES_PER_STAND_IN == 0:
            self.stand_in.close()
            self.stand_in = StandIn()
        if self._runs == 1:  # everything is loaded and compiled before the first fork, which makes the others cheap
            for kind in ("sqlite", "mariadb"):
                World(self, Schedule(kind)).run()
        world = World(self, schedule)
        world.run()
        return world

    def close(self) -> None:
        self.stand_in.close()


@dataclass
class Account:
    """The account at the stand-in, and what happens to its calls. faults: rules that are in force during passes."""

    id: str
    management_key: str
    faults: list[dict[str, Any]]


class World:
    """One schedule. After `run`: `invariants.violations`, and how many points and passes there were."""

    def __init__(self, place: Place, schedule: Schedule) -> None:
        self.place, self.schedule, self.shared = place, schedule, place.shared
        self.shared.clear()
        self.shared.now = BEGINNING
        self.clock = SharedClock(self.shared)
        self.db = place.database(schedule.database)
        self.pool_size = 5 if schedule.restore else 3
        self.settings = Config(
            deployment_id=DEPLOYMENT,
            pool_size=self.pool_size,
            encryption_key=ENCRYPTION_KEY,
            dedicated_keys="on" if schedule.dedicated else "off",
            dedicated_key_lifetime_days=1.5,  # and so due after a day
        )
        self._make_users()
        self.stand_in = place.stand_in
        self._tell_the_time()
        made = self.stand_in.control("POST", "accounts")
        self.account = Account(made["id"], made["management_key"], [])
        for name in ("somebody else's", f"gw/{OTHER}/{'0' * 32}"):
            self.stand_in.control("POST", "keys", account=self.account.id, name=name)
        self.invariants = Invariants(Envelopes([ENCRYPTION_KEY]), self.pool_size, self._accepts)
        self.process = GatewayProcess(self.db, self.clock)
        self._calls: dict[str, dict[str, Any]] = {}
        self.passes, self.kills, self._copied = 0, 0, False
        self._kills: list[int] = []
        self._call_ends = 0.0
        self._may_make = 2 * self.pool_size + bool(schedule.lost) + 4 * schedule.dedicated
        self._rotator_db = self.db

    def _make_users(self) -> None:
        def make(tx: sa.Connection) -> None:
            states = {STAYS: UserState.ACTIVE, GOES: UserState.ACTIVE, COMES: UserState.DISABLED}
            for user_id, state in states.items():
                row = {"id": user_id, "username_hash": str(user_id), "key_hash": "", "state": state}
                tx.execute(
                    users.insert().values(row | {"created_at": self.clock.now(), "updated_at": self.clock.now()})
                )

        if self.schedule.dedicated:
            self.db.transact(make)

    def _tell_the_time(self) -> None:
        offset = self.shared.now - time.time()
        self.stand_in.control("POST", "settings", clock_offset_seconds=offset, keys_on_a_page=2)

    # ── what is there

    def _accepts(self, text: str) -> bool:
        return self.stand_in.call("GET", "/api/v1/key", key=text)[0] == 200

    def sample(self) -> Sample:
        with self.db.reading() as tx:
            rows = {row.id: row for row in tx.execute(sa.select(pool_keys).order_by(pool_keys.c.id))}
            people = {row.id: row.state for row in tx.execute(sa.select(users.c.id, users.c.state))}
        self.db.close()  # no connection may be open when the next process is forked
        remote: list[Any] = []
        path = "/api/v1/keys?include_disabled=true&include_expired=true&offset="
        while page := self.stand_in.call("GET", f"{path}{len(remote)}", key=self.account.management_key)[1]["data"]:
            remote += page
        own = {key["hash"]: key for key in remote if key["name"].startswith(PREFIX)}
        others = {key["hash"]: key for key in remote if key["hash"] not in own}
        return Sample(self.clock.now(), rows, own, others, people)

    def _picked(self, at: Sample) -> dict[int | None, set[int]]:
        """By user the row that a gateway picks for their calls alone, and for nobody (None) all that are shared."""
        pool = ApiKeyManager(PoolKeys(self.db, self.invariants.envelopes, self.clock), self.clock)
        pool.reload()
        picked: dict[int | None, set[int]] = {
            None: {pool.pick().id for _ in range(20)} if pool.usable_count() else set()
        }
        for user_id in at.users:
            try:
                picked[user_id] = {pool.pick(owner=user_id, choice=UpstreamChoice.DEDICATED_ONLY).id}
            except Busy:
                picked[user_id] = set()
        self.db.close()
        return picked

    def bytes_of_database(self) -> bytes:
        if self.schedule.database == "sqlite":
            return b"".join(path.read_bytes() for path in sorted(self.place.folder.glob("torture.db*")))
        with self.db.reading() as tx:
            return repr([tx.execute(sa.select(table)).all() for table in metadata.sorted_tables]).encode()

    def _made(self) -> int:
        keys = self.stand_in.control("GET", "bill")["keys"].values()
        return sum(key["account"] == self.account.id and key["name"].startswith(PREFIX) for key in keys)

    # ── what happens

    def run(self) -> None:
        self.look(self.tick())
        assert self.invariants.full, f"the pool could not be filled: {self.shared.error.decode()}"
        self.shared.counting = True
        self._set_up()
        try:
            self._rotate()
        except NeverEnds as error:
            self.invariants.broken("I1", str(error), self.sample())
        finally:
            self.shared.counting = False
            if self._rotator_db is not self.db:
                self._cutter.stop()

    def _set_up(self) -> None:
        """Arrange what the schedule tells, and go to the time at which the keys are due."""
        schedule, shared = self.schedule, self.shared
        self._kills = list(schedule.kills)
        shared.kill_at = self._kills.pop(0) if self._kills else 0
        if schedule.lost:
            self._fail("drop", "create", schedule.lost, 1, after=True)
        if schedule.fault:
            scenario, call, first, times = schedule.fault.split(":")
            self._fail(scenario.removesuffix("-after"), call, int(first), int(times), scenario.endswith("-after"))
        if schedule.stop:
            shared.stop_at = int(schedule.stop.split(":")[0])
        if schedule.cut:
            when, number = schedule.cut.split(":")
            shared.cut_after, shared.cut_at = when == "after", int(number)
            url = urlsplit(self.place.url)
            self._cutter = CommitCutter(shared, url.port or 0)
            through = self.place.url.replace(f":{url.port}/", f":{self._cutter.port}/")
            self._rotator_db = self.place.connected(through)
        shared.now += DAY + 1
        at = self.sample()
        oldest = at.own(GOES)[0] if schedule.holder == "own" else min(at.usable(), key=lambda row: row.id)
        if schedule.dedicated:
            people = Users(self.db, b"", self.clock)
            people.set_state(GOES, UserState.DISABLED)
            people.set_state(COMES, UserState.ACTIVE)
        lasts = {"none": -1, "stream": STREAM, "own": STREAM, "silent": SILENCE - 1}[schedule.holder]
        self._call_ends = shared.now + lasts
        if schedule.holder != "none":
            self._calls = {str(oldest.id): {"in_flight": 1}}
            self.invariants.held_hash = oldest.api_key_hash
            self.invariants.held_until = datetime.fromtimestamp(self._call_ends, self.clock.now().tzinfo)
        self._beat()

    def _fail(self, scenario: str, call: str, first: int, times: int, after: bool) -> None:
        methods = {"list": "GET", "create": "POST", "ask": "GET", "disable": "PATCH", "delete": "DELETE"}
        rule = {"account": self.account.id, "method": methods[call], "after": after, "path": "/keys"}
        if call == "ask":  # a path is a prefix, and so this one has to make an exception of the list's
            self.account.faults = [{**rule, "scenario": "stream", "times": None}]
            rule["path"] = "/key"
        if scenario == "slow":
            rule |= {"delay_ms": 500}
            scenario = "stream" if after else "500"
            rule["after"] = False
        self.account.faults += [
            {**rule, "scenario": "stream", "times": first - 1, "delay_ms": 0, "after": False},
            {**rule, "scenario": scenario, "times": times},
        ]

    def _rotate(self) -> None:
        """Pass after pass, until nothing is left to do."""
        stage = "full"
        self._at_stage(stage)
        for _ in range(MAX_TICKS):
            ended_well = self.tick()
            at = self.look(ended_well)
            if ended_well:
                stage = self._special(stage, at)
            if self.shared.now < self._call_ends and self.schedule.holder in {"stream", "own"}:
                self._beat()
            if (moment := self._next(at, ended_well)) is None:
                break
            self._go_to(moment)
        else:
            raise NeverEnds(f"no rest after {MAX_TICKS} passes")
        self.shared.counting = False
        self.shared.now += MINUTE
        at = self.look(self.tick())
        made, may_make = (0, 0) if self.invariants.restored_at else (self._made(), self._may_make)
        self.invariants.look_at_rest(at, self.bytes_of_database(), made, may_make)

    def tick(self) -> bool:
        """One pass, or two at once, in processes of their own if anything may happen to these.

        True if what ran came to its end without a fault.
        """
        self._tell_the_time()
        with self._faults():
            if not (self.shared.kill_at or self.shared.stop_at or self.schedule.two):
                return self._ended(self._here(lambda: self._pass(counted=True)))
            first = fork(self.shared, lambda: self._pass(counted=True))
            second = fork(self.shared, lambda: self._pass(counted=False)) if self.schedule.two else 0
            good = self._wait(first)
            if second:
                good = self._wait(second) and good
        return good

    def _rotation(self, deployment: str = DEPLOYMENT) -> KeyRotation:
        settings = self.settings.model_copy(update={"deployment_id": deployment})
        self._api = PointedApi(self.stand_in.address, self.account.management_key, self.place.points)
        return rotation(self._rotator_db, self._api, settings, self.clock)

    def _pass(self, counted: bool) -> bool:
        self.place.points.counted = counted
        return self._rotation().run_once()

    def _here(self, work: Callable[[], object]) -> int:
        """Do the work in this process. Nothing that a fork would share stays open."""
        code = outcome(self.shared, work)
        self.place.points.counted = False  # what this process writes besides is no step of a rotation
        self._api.close()
        self._rotator_db.close()
        return code

    def _wait(self, process_id: int) -> bool:
        _, status = os.waitpid(process_id, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return self._while_stopped(process_id)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, status
            self.passes += 1
            self.kills += 1
            self._may_make += 1
            self.invariants.mishaps.append(self.clock.now())
            self.shared.kill_at = self._kills.pop(0) if self._kills else 0
            return False
        return self._ended(os.waitstatus_to_exitcode(status))

    def _ended(self, code: int) -> bool:
        self.passes += 1
        if code == BROKEN:
            self.invariants.broken("bug", self.shared.error.decode(), self.sample())
        if code not in {DONE, NOT_FULL}:
            self.invariants.mishaps.append(self.clock.now())
            self._may_make += 1
        return code in {DONE, NOT_FULL}

    def _while_stopped(self, process_id: int) -> bool:
        """Another rotator takes over, and then the stopped one goes on."""
        self.shared.now += int(self.schedule.stop.split(":")[1])
        self._may_make += 1
        self._beat()
        self.look(self._wait(fork(self.shared, lambda: self._pass(counted=False))))
        before = self.sample()
        self.invariants.mishaps.append(self.clock.now())
        os.kill(process_id, signal.SIGCONT)
        self._wait(process_id)
        after = self.sample()
        if after.rows != before.rows:
            self.invariants.broken("I10", "a leader wrote after it had lost its lease", after)
        return False

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """The account's faults hit rotators, not those who look."""
        if not self.account.faults or not self.shared.counting:
            yield
            return
        for rule in self.account.faults:
            self.stand_in.control("POST", "faults", **rule)
        yield
        for rule, used in zip(self.account.faults, self.stand_in.control("GET", "faults")["faults"], strict=True):
            rule["times"] = None if rule["times"] is None else rule["times"] - used["used"]
        self.stand_in.control("DELETE", "faults")

    def look(self, complete: bool) -> Sample:
        """Check the invariants."""
        at = self.sample()
        self.invariants.look(at, complete)
        if self.schedule.dedicated:
            self.invariants.look_at_picks(at, self._picked(at))
        return at

    def _beat(self) -> None:
        with self.db.reading() as tx:
            revision = tx.scalar(sa.select(revisions.c.value).where(revisions.c.name == "api_keys"))
        self.process.beat(revision, self._calls if self.shared.now < self._call_ends else {})
        self.db.close()

    # ── time

    def _go_to(self, moment: float) -> None:
        """Gateways report every few seconds: once more before, and once when the call ends."""
        self.shared.now = moment
        if self.schedule.holder != "silent":
            self._beat()

    def _next(self, at: Sample, ended_well: bool) -> float | None:
        """When anything can happen again; None at rest."""
        now = self.shared.now
        if not ended_well:
            return now + AFTER_A_KILL
        moments = [self._due(row) for row in at.rows.values() if row.state in PASSING]
        moments += [self._from(born(at.remote[found]), MIN_AGE.seconds, self._deletions) for found in at.orphans()]
        if len(at.usable()) < self.pool_size or self.invariants.blind or at.unsettled():
            moments.append(now)
        if not moments:
            return None
        return max(min(moments) + 1, now + 1 if min(moments) > now else now + MINUTE)

    def _due(self, row: Any) -> float:
        if row.state == "draining":
            return self._from(row.drain_until, 0, self._call_ends)
        waits = {"intent": MIN_AGE.seconds, "stored": 0, "disabled": HOUR, "quarantined": DAY}
        return self._from(row.updated_at, waits[row.state], self._deletions if row.state != "intent" else 0)

    def _from(self, begin: datetime, seconds: int, blocked_until: float) -> float:
        """So long after the beginning; if nothing can have happened then, when it can."""
        moment = begin.timestamp() + seconds
        return moment if moment > self.shared.now else max(moment, blocked_until)

    @property
    def _deletions(self) -> float:
        """From when on keys may be deleted."""
        restored = self.invariants.restored_at
        return restored.timestamp() + DAY + 5 * MINUTE if restored else 0

    # ── other databases, other deployments

    def _special(self, stage: str, at: Sample) -> str:
        """What is to be done at the stages of a rotation; returns the stage that is reached now."""
        states = {row.state for row in at.rows.values()}
        reached = "deleted" if "deleted" in states else "disabled" if "disabled" in states else stage
        reached = "minted" if reached == "full" and "draining" in states else reached
        if reached != stage:
            self._at_stage(reached)
        return reached

    def _at_stage(self, stage: str) -> None:
        file, copy = self.place.folder / "torture.db", self.place.folder / "torture.old"
        old, _, new = self.schedule.restore.partition(":")
        reached = STAGES.index(stage)  # after a kill a stage may be passed over
        if old and not self._copied and reached >= STAGES.index(old):
            shutil.copyfile(file, copy)
            self._copied = True
        elif old and self._copied and reached >= STAGES.index(new) and not self.invariants.restored_at:
            self.shared.now += 10 * MINUTE
            shutil.copyfile(copy, file)
            self._restored(self.sample())
        where, _, what = self.schedule.clone.partition(":")
        if stage == where:
            shutil.copyfile(file, copy)
            self._clone(what)
            shutil.copyfile(copy, file)
            self.invariants.forget_the_past()

    def _restored(self, at: Sample) -> None:
        names = {row.name for row in at.rows.values()}
        self.invariants.restored_at = at.now
        self.invariants.unknown = {key["hash"] for key in at.remote.values() if key["name"] not in names}
        # One pass finds the dead keys, the next one fills the pool; of the unknown ones three are taken in in each.
        self.invariants.blind = max(2, -(-len(self.invariants.unknown) // 3))
        self.invariants.forget_the_past()

    def _clone(self, what: str) -> None:
        """Another deployment comes upon the database."""
        before, code = self.sample(), self._here(lambda: self._rotation(CLONE).run_once())
        after = self.sample()
        if code != REFUSED or after != before:
            self.invariants.broken("I11", f"a clone was not refused, or changed something (code {code})", after)
        if what == "claim":
            self._here(lambda: self._rotation(CLONE).claim())
            code = self._here(lambda: self._rotation(CLONE).run_once())
            at = self.sample()
            states = sorted(row.state for row in at.rows.values() if row.name.startswith(PREFIX))
            if set(states) - {"dead", "deleted"} or at.remote != before.remote or code != DONE:
                self.invariants.broken("I11", f"a claimed clone: {states}, code {code}", at)


class NeverEnds(Exception):
    """There is always something left to do."""

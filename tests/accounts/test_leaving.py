"""Accounts deleted: all that is a person's goes, in every process, and nothing comes to it afterwards."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

import tables
from accounts import leaving
from accounts.audit_log import AuditLog
from accounts.favourite_models import FavouriteModels
from accounts.invitations import Invitations, InvitationTerms
from accounts.leaving import Leaving
from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from accounts.reset_links import ResetLinks
from accounts.sessions import Origin
from accounts.sign_on.identities import ProviderIdentities
from accounts.sign_on.provider import ProviderProfile
from accounts.users import UpstreamChoice, UserRole
from config.settings import Config
from foundation.counts import Counts
from foundation.errors import AppError, Conflict, NotFound, Unauthorized
from monitor.watched_keys import WatchedKeys
from pool.connected import ConnectedAccounts, Method
from pool.keys import PoolKeys
from tests.accounts.test_everything import Process, given_out
from tests.support.second_factors import second_factors
from upstream.openrouter.key_facts import KeyAccount

CANARY = "kestrel"  # in all that says who somebody is
TOLD = KeyAccount(None, None, None, 0, 0)


class House(Process):
    """A process with all that writes for a person."""

    def __init__(self, db, clock, envelopes):
        super().__init__(db, clock)
        self.db = db
        self.codes, self.links, self.favourites = RecoveryCodes(db, clock), ResetLinks(db, clock), FavouriteModels(db)
        self.audit = AuditLog(db, clock)
        self.factors = second_factors(db, envelopes, clock, self.codes, RefusedLogIns(self.audit, Counts()))
        self.identities = ProviderIdentities(db, clock)
        self.watched = WatchedKeys(db, envelopes, clock, Config(max_api_keys_per_user=3))
        self.connected = ConnectedAccounts(db, PoolKeys(db, envelopes, clock), clock, None)
        self.invitations = Invitations(db, clock)
        self.leaving = Leaving(db, clock, self.users, self.everything, self.connected.drop)

    def writes(self, user_id, name):
        """All that is written for a person, each as a request does it."""
        key = f"sk-or-v1-{name:>064}".replace(" ", "0")
        return {
            "code": lambda: self.codes.renew(user_id),
            "link": lambda: self.links.create(user_id, "cli"),
            "favourite": lambda: self.favourites.add(user_id, name),
            "second factor": lambda: self.factors.begin(user_id),
            "watched key": lambda: self.watched.add(user_id, name, key, TOLD),
            "client key": lambda: self.keys.create(user_id, {"name": name, "description": name, "models": [name]}),
            "API token": lambda: self.tokens.create(user_id, name, None),
            "name": lambda: self.users.set_display_name(user_id, name),
            "choice": lambda: self.users.set_upstream_choice(user_id, UpstreamChoice.DEDICATED_ONLY),
        }

    def furnish(self, user_id, name):
        """Let somebody have one of everything."""
        origin = Origin(address=f"{name}-host", user_agent=name)
        made = given_out(self, user_id)
        self.sessions.start(user_id, origin)
        for write in self.writes(user_id, name).values():
            write()
        self.favourites.set_default(user_id, name)
        self.identities.link(user_id, "github", ProviderProfile(f"{name}-issuer", f"{name}-id", name))
        self.connected.connect(user_id, f"sk-or-v1-{name}-connected", Method.KEY, replace(TOLD, label=name))
        self.audit.record(f"user/{user_id}", "personal_key_added", "x", user_id, f"{name}-host", name=name)
        self.audit.record("nobody", "login_failed", "x", user_id, f"{name}-host", method="key")
        for key in self.watched.of_user(user_id):
            row = {"personal_key_id": key.id, "day": self.sessions._clock.now().date(), "cost_nano": 7}
            self.db.transact(lambda tx, row=row: tx.execute(tables.watched_key_days.insert().values(row)))
        return made

    def rows(self):
        with self.db.reading() as tx:
            return {table.name: tx.execute(sa.select(table)).all() for table in tables.metadata.sorted_tables}


@pytest.fixture
def here(db, clock, envelopes):
    return House(db, clock, envelopes)


@pytest.fixture
def elsewhere(db, clock, envelopes):
    return House(db, clock, envelopes)


@pytest.fixture
def people(here):
    return here.users.create("owner", "x"), here.users.create("teammate", "x")


def told_of(rows, word):
    return {
        f"{name}.{column}"
        for name, found in rows.items()
        for row in found
        for column, value in row._asdict().items()
        if word in str(value)
    }


def test_all_that_is_of_a_person_goes_and_nothing_of_anybody_else(here, elsewhere, people, clock):
    owner, teammate = people
    invited = here.invitations.create(InvitationTerms(note=CANARY), timedelta(days=1), "cli")[0].id
    mine = (
        tables.invitations.update().where(tables.invitations.c.id == invited).values(used_by=owner, used_at=clock.now())
    )
    here.db.transact(lambda tx: tx.execute(mine))
    made, others = here.furnish(owner, CANARY), here.furnish(teammate, "swallow")
    pending = here.invitations.create(InvitationTerms(), timedelta(days=1), f"user/{owner}")[0].id
    elsewhere.everything.reload()
    before = here.rows()
    here.leaving.delete(owner)
    elsewhere.everything.reload()
    after = here.rows()
    assert told_of(before, CANARY)
    assert told_of(after, CANARY) == set()
    assert told_of(after, "swallow") == told_of(before, "swallow")
    for process in (here, elsewhere):
        assert process.lets_in(made) == [False] * 3
        assert process.lets_in(others) == [True] * 3
    left = {name for name, found in after.items() for row in found if getattr(row, "user_id", None) == owner}
    assert left == {"user_sessions", "client_keys", "api_tokens", "audit_log"}
    [connected] = [row for row in after["api_keys"] if row.owner_id == owner]
    assert (connected.state, connected.api_key, connected.api_key_hash) == ("deleted", None, None)
    assert len(after["personal_key_days"]) == 1
    assert [row.revoked_at is not None for row in after["invitations"] if row.id == pending] == [True]


def test_every_table_with_a_persons_number_is_said_to_go_or_to_stay():
    said = {*leaving.GONE, *leaving.UNNAMED, *leaving.KEPT}
    assert {table for table in tables.metadata.tables.values() if "user_id" in table.c} == said


def test_a_gateway_of_an_older_version_sees_a_disabled_account(here, people):
    """It reads all states and roles at its start and every two seconds, and must know each of them."""
    here.leaving.delete(people[0])
    [left] = [row for row in here.rows()["users"] if row.id == people[0]]
    assert (left.state, left.role) == ("disabled", "user")


def test_the_name_is_free_and_the_number_is_never_given_again(here, people):
    _, teammate = people
    here.furnish(teammate, CANARY)
    here.leaving.delete(teammate)  # the newest number
    again = here.users.create("teammate", "y")
    assert again > teammate
    assert here.users.find("teammate").id == again
    profile = ProviderProfile(f"{CANARY}-issuer", f"{CANARY}-id", "again")
    assert here.identities.enter("github", profile).user_id > again
    for known in (here.codes.left(again)[0], here.keys.page(1, 10, again)[1], len(here.sessions.open_ones(again))):
        assert known == 0


def test_who_is_deleted_is_nobody_any_more(here, people):
    owner, teammate = people
    before = here.users.find("owner")
    here.leaving.delete(owner)
    assert here.users.find("owner") is here.users.find_by_id(owner) is None
    assert [user.id for user in here.users.page(1, 10, {})[0]] == [teammate]
    for refused in (lambda: here.users.change(owner, role=UserRole.ADMIN), lambda: here.leaving.delete(owner)):
        with pytest.raises(NotFound):
            refused()
    with pytest.raises(Unauthorized):
        here.db.transact(lambda tx: here.users.note_log_in(tx, before))
    with pytest.raises(Unauthorized):
        here.users.set_derived_key(before, "y")
    here.users.reload()
    assert owner not in here.users.restricted


def test_what_was_let_in_a_moment_before_writes_nothing(here, elsewhere, people):
    owner, teammate = people
    here.leaving.delete(owner)
    rows = here.rows()
    for write in elsewhere.writes(owner, CANARY).values():
        with pytest.raises(AppError):
            write()
    elsewhere.favourites.set_default(owner, CANARY)
    assert told_of(here.rows(), CANARY) == set()
    assert here.rows()["users"] == rows["users"]
    for write in elsewhere.writes(teammate, CANARY).values():
        write()


def test_the_last_admin_stays_unless_an_operator_says_otherwise(here, people):
    owner, teammate = people
    here.users.change(owner, role=UserRole.ADMIN)
    with pytest.raises(Conflict):
        here.leaving.delete(owner, by_owner=True)
    assert here.users.find("owner")
    here.users.change(teammate, role=UserRole.ADMIN)
    here.leaving.delete(owner, by_owner=True)
    here.leaving.delete(teammate)
    assert here.users.page(1, 10, {})[1] == 0

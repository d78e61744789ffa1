"""Members of teams: nobody is in two, which the database itself holds."""

import pytest

from accounts.users import Users
from db import Duplicate
from foundation.clock import Clock
from tables import team_members, teams

NOW = Clock().now()


def test_nobody_is_in_two_teams(db):
    user_id = Users(db, b"k" * 32, Clock()).create("ann", "hash")
    row = {"created_at": NOW, "updated_at": NOW}
    db.transact(lambda tx: tx.execute(teams.insert(), [{"id": n, "name": "same", **row} for n in (1, 2)]))
    member = {"user_id": user_id, "role": "member", "joined_at": NOW}
    db.transact(lambda tx: tx.execute(team_members.insert(), [member | {"team_id": 1}]))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(team_members.insert(), [member | {"team_id": 2}]))

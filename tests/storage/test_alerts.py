"""Of one kind and subject one alert is open at a time; of what is over there may be many."""

import pytest

from db import Duplicate
from foundation.clock import Clock
from tables import alerts

NOW = Clock().now()


def test_what_is_open_is_open_once(db):
    row = {"kind": "pool-low", "subject": "pool", "details": "{}", "began_at": NOW}
    over = row | {"open_as": None, "ended_at": NOW}
    db.transact(lambda tx: tx.execute(alerts.insert(), [over, over]))
    db.transact(lambda tx: tx.execute(alerts.insert().values(row | {"open_as": "pool-low pool"})))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(alerts.insert().values(row | {"open_as": "pool-low pool"})))

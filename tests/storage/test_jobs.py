"""A job has one row, and so has the call that started it."""

import pytest

from db import Duplicate
from tables import video_jobs


def test_no_two_jobs_have_one_name_or_one_call(db):
    row = {"id": "job-1", "request_id": "0" * 32, "attempt": 1}
    db.transact(
        lambda tx: tx.execute(video_jobs.insert(), [row, {"id": "JOB-1", "request_id": "0" * 32, "attempt": 2}])
    )
    for other in (row | {"attempt": 3}, row | {"id": "job-2"}):
        with pytest.raises(Duplicate):
            db.transact(lambda tx, other=other: tx.execute(video_jobs.insert(), [other]))

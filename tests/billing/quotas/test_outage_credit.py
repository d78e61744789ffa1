"""What users may spend while nothing is known of their quotas."""

from __future__ import annotations

import threading

import pytest

from billing.quotas.outage_credit import OutageCredit
from foundation.errors import Busy

USER, OTHER = 1, 2


def test_each_user_has_the_same_amount_and_what_is_given_back_can_be_spent_again():
    credit = OutageCredit(100)
    credit.reserve(USER, 60)
    with pytest.raises(Busy, match="more than the \\$"):
        credit.reserve(USER, 41)
    credit.reserve(OTHER, 100)
    credit.give_back(USER, 1)
    credit.reserve(USER, 41)
    with pytest.raises(Busy):
        credit.reserve(USER, 1)


def test_without_credit_nothing_is_admitted():
    with pytest.raises(Busy) as refused:
        OutageCredit(0).reserve(USER, 1)
    assert refused.value.headers["Retry-After"] == "5"


@pytest.mark.usefixtures("quick_switches")
def test_threads_together_get_no_more_than_there_is():
    credit, admitted = OutageCredit(1000), []

    def spend() -> None:
        for _ in range(100):
            try:
                credit.reserve(USER, 3)
            except Busy:
                return
            admitted.append(3)

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 999

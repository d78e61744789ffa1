"""Which keys OpenRouter refuses: brought ones asked at each pass, others where gateways find them refused; replaced."""

from datetime import UTC, datetime

import pytest

from pool.life import PoolKeySource, PoolKeyState
from pool.rotation_questions import MAX_ASKED, MAX_SILENT, refused_keys
from replicas.processes import GatewayProcess, ProcessReport
from tests.support.rotor import PREFIX, events
from upstream.openrouter.key_facts import KeyAccount
from upstream.openrouter.management_api import ManagementApi, ManagementError

GOOD = KeyAccount(None, None, None)


class Asked:
    """An API that knows what it says to each text, and writes down what it was asked."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def ask(self, text):
        self.asked.append(text)
        answer = self.answers.get(text, GOOD)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Row:
    def __init__(self, number, source=PoolKeySource.OPERATOR, owner_id=None, enabled=True):
        self.id, self.source, self.owner_id, self.enabled = number, source, owner_id, enabled
        self.state = PoolKeyState.ACTIVE


def refused(api, rows, *suspects):
    told = {str(number): {"health": "suspect"} for number in suspects}
    reports = [ProcessReport("a", datetime(2026, 1, 1, tzinfo=UTC), 1, told)]
    texts = {row.id: f"k{row.id}" for row in rows}
    return refused_keys(rows, texts, reports, api, lambda: None)


def test_brought_keys_are_asked_and_minted_ones_only_where_gateways_find_them_refused():
    rows = [Row(1), Row(2), Row(3, PoolKeySource.MINTED), Row(4, PoolKeySource.MINTED), Row(5, owner_id=7)]
    api = Asked(k2=None, k4=None, k5=None)
    assert refused(api, rows, 4, 5) == {2, 4}
    assert api.asked == ["k4", "k1", "k2"]


def test_a_management_key_is_no_key_for_calls_and_what_gateways_found_may_be_over():
    api = Asked(k1=KeyAccount(None, None, None, is_management=True))
    assert refused(api, [Row(1), Row(2)], 2) == {1}


def test_without_answers_the_gateways_word_counts_and_nobody_is_waited_for_long():
    rows = [Row(number) for number in range(1, 9)]
    api = Asked(**{f"k{number}": ManagementError("GET /key", 500) for number in range(1, 9)})
    assert refused(api, rows, 3) == {3}
    assert len(api.asked) == MAX_SILENT
    many = [Row(number) for number in range(200)]
    api = Asked()
    refused(api, many, 150)
    assert (len(api.asked), api.asked[0]) == (MAX_ASKED, "k150")


# ── against the stand-in


def bring(rotor, account, count):
    made = [account.make(f"mine {number}") for number in range(count)]
    for number, one in enumerate(made):
        rotor.keys.add(one["key"], f"mine {number}", PoolKeySource.ENVIRONMENT)
    return made


def test_brought_keys_that_were_revoked_are_replaced_told_and_left_alone(rotor, account, caplog):
    made = bring(rotor, account, 5)
    assert rotor.run()
    assert rotor.states() == {"active": 5}
    for one in made:
        account.manage("DELETE", f"/keys/{one['data']['hash']}")
    assert rotor.run()
    minted = [row for row in rotor.keys.rows() if row.source is PoolKeySource.MINTED]
    assert len(minted) == rotor.settings.pool_size
    assert rotor.states() == {"active": 5 + len(minted)}
    assert events(caplog)["key_refused_by_openrouter"] == 5
    assert rotor.run()
    assert rotor.states() == {"active": 5 + len(minted)}


def test_a_listed_key_that_gateways_find_refused_is_asked_replaced_and_then_drained(one, account, caplog):
    one.run()
    bad = one.keys.rows()[0]
    account.fail("401b", "/key", "GET", key=bad.api_key_hash, times=9)
    assert one.run()
    assert one.states() == {"active": 3}  # nobody has said anything
    GatewayProcess(one.db, one.clock).beat(1, {str(bad.id): {"in_flight": 0, "health": "suspect"}})
    one.run()
    assert one.states() == {"active": 4}
    one.run()
    assert one.row(bad.name).state is PoolKeyState.DRAINING
    assert one.usable() >= 3


class Refusing(ManagementApi):
    """The API of an OpenRouter that refuses all keys, but not this one."""

    def __init__(self, api):
        self.__dict__ |= api.__dict__

    def ask(self, text):
        return None


def test_while_openrouter_refuses_everybody_no_key_is_let_go(one, account, caplog):
    one.run()
    before = one.names(PoolKeyState.ACTIVE)
    suspects = {str(row.id): {"in_flight": 0, "health": "suspect"} for row in one.keys.rows()}
    one.api = Refusing(one.api)
    for _ in range(3):
        GatewayProcess(one.db, one.clock).beat(1, suspects)
        with pytest.raises(ManagementError):
            one.run()
    assert before <= one.names(PoolKeyState.ACTIVE)
    assert len(account.listed()) <= 2 * len(before)


def test_a_pool_that_stays_below_its_size_says_so(one, account, caplog):
    for number in range(3):  # creates whose answers were lost: for minutes no more are tried
        one.keys.intend(f"{PREFIX}{number:032x}", one.clock.now(), None, None)
    assert not one.run()
    assert events(caplog)["pool_not_full"] == 1

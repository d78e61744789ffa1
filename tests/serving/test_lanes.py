"""Places for requests: so many, so many of one address, given back once, and left by whoever is still sending."""

from __future__ import annotations

import pytest

from foundation.errors import Busy
from serving.lanes import Lane
from serving.slow_bodies import SlowBodies
from tests.support.gateway import in_threads

HOME, ELSEWHERE = "192.0.2.1", "192.0.2.2"


def test_so_many_are_let_in_and_one_more_when_one_has_left():
    lane = Lane(3, 3)
    places = [lane.enter(HOME) for _ in range(3)]
    for address in (HOME, ELSEWHERE):
        with pytest.raises(Busy):
            lane.enter(address)
    for _ in range(2):  # the second time does nothing
        places[0].leave()
    lane.enter(ELSEWHERE)
    with pytest.raises(Busy):
        lane.enter(HOME)


def test_an_address_has_its_share_and_another_finds_room():
    lane = Lane(10, 4)
    for _ in range(4):
        lane.enter(HOME)
    with pytest.raises(Busy):
        lane.enter(HOME)
    for _ in range(4):
        lane.enter(ELSEWHERE)


def test_who_still_sends_makes_room_the_oldest_first_and_of_its_own_address_where_that_has_its_share(monkeypatch):
    monkeypatch.setattr("serving.slow_bodies.SLOW_SECONDS", -1.0)
    lane, bodies = Lane(4, 3), SlowBodies()
    sending = [lane.enter(address) for address in (ELSEWHERE, HOME, HOME, HOME)]
    for place in sending:
        place.body = bodies.expect({}, 60)
    lane.enter(HOME)
    assert [place.body.note_whole() for place in sending] == [True, False, True, True]


def test_whose_body_is_whole_stays():
    lane, bodies = Lane(2, 2), SlowBodies()
    for _ in range(2):
        place = lane.enter(HOME)
        place.body = bodies.expect({}, 60)
        assert bodies.take(place.body, lambda: b"{}") == b"{}"
    with pytest.raises(Busy):
        lane.enter(HOME)


def test_a_body_keeps_its_place_until_it_is_closed_and_one_that_is_whole_does_not():
    lane = Lane(1, 1)
    closed = []

    class Pieces:
        def __iter__(self):
            return iter([b"a"])

        def close(self):
            closed.append(True)

    body = lane.enter(HOME).held(Pieces())
    assert list(body) == [b"a"]
    with pytest.raises(Busy):
        lane.enter(HOME)
    body.close()
    assert closed == [True]
    assert lane.enter(HOME).held((b"whole",)) == (b"whole",)
    lane.enter(HOME)


def test_many_at_once_are_counted_right(quick_switches):
    lane = Lane(5, 5)

    def come_and_go() -> int:
        let_in = 0
        for _ in range(200):
            try:
                place = lane.enter(HOME)
            except Busy:
                continue
            let_in += 1
            assert len(lane._places) <= 5
            place.leave()
        return let_in

    assert sum(in_threads(8, come_and_go))
    assert (lane._places, lane._of) == ({}, {})

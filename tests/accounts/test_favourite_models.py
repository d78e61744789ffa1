"""Favourites and the default model: each person's own, bounded, and as they were said, on both databases."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from accounts.favourite_models import MAX_PER_USER, ChosenModels, FavouriteModels
from accounts.users import Users
from db import Database, Transaction
from foundation.errors import BadRequest, Conflict, NotFound
from tables import favourite_models
from tables import users as user_table


@pytest.fixture
def people(db, clock):
    users = Users(db, b"k" * 32, clock)
    return [users.create(name, "hash") for name in ("owner", "teammate")]


@pytest.fixture
def models(db):
    return FavouriteModels(db)


def test_somebody_new_has_chosen_nothing(models, people):
    assert models.of(people[0]) == ChosenModels((), None)


def test_each_has_their_own(models, people):
    owner, teammate = people
    models.add(owner, "openai/gpt-4o")
    models.add(owner, "anthropic/claude")
    models.add(teammate, "openai/gpt-4o")
    models.set_default(owner, "deepseek/deepseek-chat")
    assert models.of(owner) == ChosenModels(("anthropic/claude", "openai/gpt-4o"), "deepseek/deepseek-chat")
    assert models.of(teammate) == ChosenModels(("openai/gpt-4o",), None)
    models.remove(owner, "openai/gpt-4o")
    models.set_default(owner, None)
    assert models.of(owner) == ChosenModels(("anthropic/claude",), None)
    assert models.of(teammate).favourites == ("openai/gpt-4o",)


def test_a_model_twice_is_one_and_names_differ_by_case(models, people):
    for name in ("a/b", "a/b", "a/B"):
        models.add(people[0], name)
    assert models.of(people[0]).favourites == ("a/B", "a/b")


def test_what_is_no_favourite_can_not_be_removed(models, people):
    owner, teammate = people
    models.add(owner, "a/b")
    for user_id, name in ((owner, "a/c"), (teammate, "a/b"), (owner, "A/B")):
        with pytest.raises(NotFound):
            models.remove(user_id, name)
    assert models.of(owner).favourites == ("a/b",)


@pytest.mark.parametrize("name", ["", "a b", "ä/b", "a\n", "a" * 256, "a\0b"])
def test_what_can_be_no_name_is_refused(models, people, name):
    for change in (models.add, models.set_default):
        with pytest.raises(BadRequest):
            change(people[0], name)
    assert models.of(people[0]) == ChosenModels((), None)


def test_there_are_so_many_and_no_more(db: Database, models, people):
    rows = [{"user_id": people[0], "model": f"a/{number}"} for number in range(MAX_PER_USER)]
    db.transact(lambda tx: tx.execute(favourite_models.insert(), rows))
    with pytest.raises(Conflict, match=f"You have {MAX_PER_USER} favourite models"):
        models.add(people[0], "b/1")
    models.add(people[0], "a/1")  # which is there already
    models.add(people[1], "b/1")  # others are not kept from theirs
    assert len(models.of(people[0]).favourites) == MAX_PER_USER


def test_two_requests_at_once_do_not_both_take_the_last_place(db: Database, models, people):
    rows = [{"user_id": people[0], "model": f"a/{number}"} for number in range(MAX_PER_USER - 1)]
    db.transact(lambda tx: tx.execute(favourite_models.insert(), rows))
    refused: list[str] = []

    def add() -> None:
        try:
            models.add(people[0], "b/2")
        except Conflict as error:
            refused.append(str(error))

    second = threading.Thread(target=add)

    def take_the_place(tx: Transaction) -> None:
        """As a first request does, which the second one overtakes if it does not wait."""
        tx.execute(sa.select(user_table.c.id).where(user_table.c.id == people[0]).with_for_update())
        tx.execute(favourite_models.insert().values(user_id=people[0], model="b/1"))
        second.start()
        second.join(0.5)

    db.transact(take_the_place)
    second.join()
    assert len(models.of(people[0]).favourites) == MAX_PER_USER
    assert len(refused) == 1

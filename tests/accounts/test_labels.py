"""What operators call people: a label, or a name that was shared, beside the number of whoever it is and of nobody else."""

from __future__ import annotations

import pytest

from accounts.labels import called, check_printable, labels_of, shown_label, with_labels
from accounts.users import Users

NAMES = [("owner", "Ann", True), ("teammate", "Bob", False), ("third", None, True)]


@pytest.fixture
def ids(db, clock) -> dict[str, int]:
    users = Users(db, b"k" * 32, clock)
    found = {}
    for name, display_name, is_shared in NAMES:
        found[name] = users.create(f"{name}@example.com", "hash")
        users.set_display_name(found[name], display_name, is_shared)
    return found


@pytest.mark.parametrize(
    ("label", "name", "is_shared", "expected"),
    [
        ("marketing", "Ann", True, "marketing"),
        ("marketing", None, False, "marketing"),
        (None, "Ann", True, "“Ann”"),
        (None, "marketing", True, "“marketing”"),  # it can't pass for a label
        (None, "Ann", False, None),
        (None, None, True, None),
    ],
)
def test_a_label_comes_first_and_a_name_only_if_it_is_shared(label, name, is_shared, expected):
    assert shown_label(label, name, is_shared) == expected


def test_each_has_their_own_and_who_shares_nothing_has_none(db, clock, ids):
    Users(db, b"k" * 32, clock).change(ids["third"], label="laptop 3")
    with db.reading() as tx:
        assert labels_of(tx, list(ids.values())) == {ids["owner"]: "“Ann”", ids["third"]: "laptop 3"}
        assert labels_of(tx, []) == labels_of(tx, [4711]) == {}


def test_rows_get_the_labels_of_those_whom_they_name(db, ids):
    owner = ids["owner"]
    rows = [{"actor": f"user/{owner}", "user_id": ids["teammate"]}, {"actor": "cli", "user_id": None}]
    rows += [{"actor": text, "user_id": owner} for text in ("user/x", "user/", "user/" + "9" * 40, f"key/{owner}")]
    found = with_labels(db, rows, actor_label="actor", user_label="user_id")
    assert found[0] == rows[0] | {"actor_label": "“Ann”", "user_label": None}
    assert found[1] == rows[1] | {"actor_label": None, "user_label": None}
    assert [(row["actor_label"], row["user_label"]) for row in found[2:]] == [(None, "“Ann”")] * 4
    assert with_labels(db, [], user_label="user_id") == []


@pytest.mark.parametrize("text", ["", " x", "x ", "a\nb", "a\u202eb", "a\0b", "é" * 101, "\u3164", "a\u2800b"])
def test_what_can_not_be_seen_is_no_name(text):
    with pytest.raises(ValueError, match="1 to 100 printable characters"):
        check_printable(text)


def test_a_cell_of_a_table_has_the_number_and_the_label():
    assert [called(17, "laptop 3"), called(17, None), called(None, None)] == ["17 laptop 3", "17", None]

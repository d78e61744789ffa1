"""What every table is made of."""

from storage.columns import integers, metadata
from tables import metadata as all_tables


def test_all_tables_are_in_one_list_with_one_engine_and_character_set():
    assert metadata is all_tables
    options = {(one.kwargs["mysql_engine"], one.kwargs["mysql_charset"]) for one in metadata.tables.values()}
    assert options == {("InnoDB", "utf8mb4")}


def test_whole_numbers_may_be_missing_unless_it_is_said():
    assert [(one.name, one.nullable) for one in integers("a", "b")] == [("a", True), ("b", True)]
    assert [one.nullable for one in integers("a", nullable=False)] == [False]

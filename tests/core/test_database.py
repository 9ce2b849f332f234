from mainstay.core.database import Database, bump_change_counter, read_change_counter
from mainstay.core.migrations import check, migrate


def test_the_change_counter_rises_with_each_change(database: Database) -> None:
    with database.begin() as connection:
        bump_change_counter(connection)
    with database.begin() as connection:
        bump_change_counter(connection)
    assert read_change_counter(database) == 2


def test_migrating_twice_changes_nothing(database: Database) -> None:
    migrate(database)
    check(database)

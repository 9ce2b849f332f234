import sqlalchemy as sa

from mainstay.core.database import Database, bump_change_counter, change_counter, read_change_counter
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


def test_all_queries_of_one_reading_see_one_state(database: Database) -> None:
    with database.begin() as connection:
        bump_change_counter(connection)
    with database.read() as reading:
        before = reading.scalar(sa.select(change_counter.c.value))
        with database.begin() as writing:
            bump_change_counter(writing)
        after = reading.scalar(sa.select(change_counter.c.value))
    assert (before, after) == (1, 1)
    assert read_change_counter(database) == 2

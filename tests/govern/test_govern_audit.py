from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from mainstay.core.database import Database
from mainstay.core.errors import Conflict
from mainstay.govern import SYSTEM, AuditLog, append_audit, sign_audit_with

MASTER = b"m" * 32


@pytest.fixture
def write(database: Database) -> Callable[..., None]:
    sign_audit_with(database, MASTER)

    def write(rows: int) -> None:
        for number in range(rows):
            with database.begin() as connection:
                append_audit(connection, SYSTEM, "thing.made", f"thing-{number}", {"number": number})

    return write


def tamper(database: Database, *statements: str) -> None:
    with database.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_an_untouched_log_is_whole_and_its_signature_checked(
    database: Database, write: Callable[..., None]
) -> None:
    write(5)
    verdict = AuditLog(database).verify()
    assert (verdict.ok, verdict.rows, verdict.first_bad_sequence, verdict.signed) == (True, 5, None, True)


def test_an_empty_log_is_whole(database: Database) -> None:
    assert AuditLog(database).verify().ok


@pytest.mark.parametrize(
    ("statements", "first_bad"),
    [
        (["UPDATE audit_log SET actor = 'someone else' WHERE sequence = 3"], 3),
        (["UPDATE audit_log SET detail = '{\"number\":7}' WHERE sequence = 2"], 2),
        (["UPDATE audit_log SET at_us = at_us + 1 WHERE sequence = 5"], 5),
        (["DELETE FROM audit_log WHERE sequence = 3"], 3),
        (["DELETE FROM audit_log WHERE sequence = 1"], 1),
        (["DELETE FROM audit_log WHERE sequence >= 4"], 4),
        (["DELETE FROM audit_log"], 1),
        (["DELETE FROM audit_log WHERE sequence > 3", "UPDATE audit_head SET sequence = 3"], 4),
        (["DELETE FROM audit_head"], 6),
        (
            [
                "UPDATE audit_log SET sequence = 99 WHERE sequence = 2",
                "UPDATE audit_log SET sequence = 2 WHERE sequence = 3",
                "UPDATE audit_log SET sequence = 3 WHERE sequence = 99",
            ],
            2,
        ),
        (
            [
                "DELETE FROM audit_log WHERE sequence = 3",
                "UPDATE audit_log SET sequence = 3 WHERE sequence = 4",
                "UPDATE audit_log SET sequence = 4 WHERE sequence = 5",
            ],
            3,
        ),
    ],
)
def test_tampering_is_found_at_the_row(
    database: Database, write: Callable[..., None], statements: list[str], first_bad: int
) -> None:
    write(5)
    tamper(database, *statements)
    verdict = AuditLog(database).verify()
    assert not verdict.ok
    assert verdict.first_bad_sequence == first_bad


def test_a_cut_end_with_a_forged_head_is_found_by_the_signature(
    database: Database, write: Callable[..., None]
) -> None:
    write(5)
    tamper(
        database,
        "DELETE FROM audit_log WHERE sequence > 3",
        "UPDATE audit_head SET sequence = 3, hash = (SELECT hash FROM audit_log WHERE sequence = 3)",
    )
    verdict = AuditLog(database).verify()
    assert not verdict.ok
    assert "not signed" in verdict.reason


def test_a_later_append_does_not_make_a_forged_head_good(
    database: Database, write: Callable[..., None]
) -> None:
    write(5)
    tamper(
        database,
        "DELETE FROM audit_log WHERE sequence > 3",
        "UPDATE audit_head SET sequence = 3, hash = (SELECT hash FROM audit_log WHERE sequence = 3)",
    )
    write(2)
    assert not AuditLog(database).verify().ok


def test_a_head_a_person_has_looked_at_can_be_sealed_again(
    database: Database, write: Callable[..., None]
) -> None:
    write(3)
    tamper(database, "UPDATE audit_head SET signature = NULL")
    AuditLog(database).reseal(SYSTEM, "restored from a backup made elsewhere")
    verdict = AuditLog(database).verify()
    assert verdict.ok
    assert verdict.rows == 4


def test_a_broken_chain_is_not_sealed(database: Database, write: Callable[..., None]) -> None:
    write(3)
    tamper(database, "UPDATE audit_log SET action = 'nothing' WHERE sequence = 2")
    with pytest.raises(Conflict):
        AuditLog(database).reseal(SYSTEM, "it looks fine to me")


def test_a_rolled_back_change_leaves_no_row(database: Database, write: Callable[..., None]) -> None:
    write(1)

    def fail_after_writing() -> None:
        with database.begin() as connection:
            append_audit(connection, SYSTEM, "thing.made", "thing", {})
            raise RuntimeError("the change failed")

    with pytest.raises(RuntimeError):
        fail_after_writing()
    verdict = AuditLog(database).verify()
    assert (verdict.ok, verdict.rows) == (True, 1)


def test_writers_at_once_make_one_gapless_chain(database: Database, write: Callable[..., None]) -> None:
    writers = [threading.Thread(target=write, args=(10,)) for _ in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    verdict = AuditLog(database).verify()
    assert (verdict.ok, verdict.rows) == (True, 60)


def test_the_list_is_newest_first_and_paged_by_sequence(
    database: Database, write: Callable[..., None]
) -> None:
    write(5)
    log = AuditLog(database)
    first = log.list(limit=2)
    second = log.list(before=first[-1].sequence, limit=2)
    assert [entry.sequence for entry in (*first, *second)] == [5, 4, 3, 2]
    assert first[0].detail == {"number": 4}


def test_details_keep_their_exact_numbers_and_text(database: Database) -> None:
    detail = {"float": 1e16, "small": 0.1, "text": "a\x00b ü", "none": None, "nested": [{"a": -0.0}]}
    with database.begin() as connection:
        append_audit(connection, SYSTEM, "thing.made", "thing", detail)
    log = AuditLog(database)
    assert log.verify().ok
    assert log.list()[0].detail == detail

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from knowledge_documents import make_docx, make_pdf, pdf_lines

from mainstay.core import faults
from mainstay.core.config import sqlite_url
from mainstay.core.content import BlobStore
from mainstay.core.database import Database, metadata, read_change_counter
from mainstay.core.errors import Conflict, NotFound
from mainstay.core.faults import InjectedFault
from mainstay.core.migrations import migrate
from mainstay.govern import AuditLog, Identity
from mainstay.knowledge import (
    ChunkSettings,
    FolderSource,
    Library,
    ParsedText,
    SyncReport,
    WorkerLimits,
    parser_for,
    pipeline_fingerprint,
)
from mainstay.knowledge import sync as sync_module

Syncer = Callable[[Library], SyncReport]


def test_a_sync_makes_a_snapshot_with_versions_chunks_and_bytes(
    library: Library, folder: Path, sync: Syncer, database: Database
) -> None:
    (folder / "a.md").write_text("# Title\n\nHello there.")
    (folder / "b.pdf").write_bytes(make_pdf([pdf_lines("Page one."), pdf_lines("Page two.")]))
    (folder / "c.docx").write_bytes(make_docx(lambda document: document.add_paragraph("Wörd.")))

    report = sync(library)

    assert report.added == ("a.md", "b.pdf", "c.docx")
    assert report.failed == ()
    assert library.corpora() == ("handbook",)
    assert library.head("handbook") == report.snapshot == library.snapshot(report.snapshot.id)
    assert report.snapshot.number == 1
    assert report.snapshot.fingerprint == pipeline_fingerprint(ChunkSettings())
    chunks = list(library.chunks(report.snapshot.id))
    assert [c.text for c in chunks] == ["# Title\n\nHello there.", "Page one.\n\nPage two.", "Wörd."]
    for chunk in chunks:
        version = library.version(chunk.version_id)
        assert chunk.text == version.text[chunk.start : chunk.end]
        assert library.chunk(chunk.id) == chunk
        assert library.source_bytes(version) == (folder / version.uri).read_bytes()
    assert library.version(report.snapshot.entries["b.pdf"]).pages[1].number == 2
    assert AuditLog(database).list()[0].action == "corpus.sync"
    assert AuditLog(database).verify().ok


def test_a_second_sync_of_the_same_folder_changes_nothing(
    library: Library, folder: Path, sync: Syncer, database: Database
) -> None:
    (folder / "a.md").write_text("Hello.")
    first = sync(library)
    counter = read_change_counter(database)
    os.utime(folder / "a.md", (1, 1))

    second = sync(library)

    assert second.snapshot == first.snapshot
    assert (second.created, second.unchanged) == (False, 1)
    assert (second.added, second.changed, second.removed) == ((), (), ())
    assert len(library.snapshots("handbook")) == 1
    assert len(AuditLog(database).list()) == 1
    assert read_change_counter(database) == counter


def test_changes_are_followed_and_old_versions_stay(library: Library, folder: Path, sync: Syncer) -> None:
    for name in ("same.md", "edited.md", "removed.md"):
        (folder / name).write_text(f"First line.\n\nOld {name}.")
    old = sync(library).snapshot
    (folder / "edited.md").write_text("First line.\n\nNew text.")
    (folder / "removed.md").unlink()
    (folder / "new.md").write_text("New.")

    report = sync(library)

    assert (report.added, report.changed, report.removed) == (("new.md",), ("edited.md",), ("removed.md",))
    assert report.snapshot.number == 2
    diff = library.diff(old.id, report.snapshot.id)
    assert (diff.added, diff.removed, list(diff.changed)) == (("new.md",), ("removed.md",), ["edited.md"])
    assert library.text_diff(*diff.changed["edited.md"]).split("\n")[-2:] == ["-Old edited.md.", "+New text."]
    assert [v.number for v in library.versions("handbook", "edited.md")] == [2, 1]
    assert [s.number for s in library.snapshots("handbook")] == [2, 1]
    assert "Old removed.md." in " ".join(c.text for c in library.chunks(old.id))


def test_bytes_that_change_without_the_text_make_no_new_version(
    library: Library, folder: Path, sync: Syncer
) -> None:
    (folder / "a.txt").write_bytes(b"One line.\nAnother.\n")
    first = sync(library)
    (folder / "a.txt").write_bytes(b"One line.  \r\nAnother.\r\n")

    assert sync(library).snapshot == first.snapshot


def test_going_back_to_old_content_goes_back_to_the_old_snapshot(
    library: Library, folder: Path, sync: Syncer
) -> None:
    (folder / "a.md").write_text("One.")
    first = sync(library)
    (folder / "a.md").write_text("Two.")
    second = sync(library)
    (folder / "a.md").write_text("One.")

    third = sync(library)

    assert third.snapshot == first.snapshot != second.snapshot
    assert (third.created, third.changed) == (False, ("a.md",))
    assert library.head("handbook") == first.snapshot


def test_labels_are_part_of_the_version(library: Library, folder: Path, actor: Identity) -> None:
    (folder / "a.md").write_text("One.")
    for labels in (frozenset[str](), frozenset({"hr", "board"})):
        source = FolderSource([folder], labels=labels)
        report = library.sync(actor, "handbook", source, ChunkSettings())
        assert library.version(report.snapshot.entries["a.md"]).labels == labels

    assert report.changed == ("a.md",)


def test_a_listing_says_of_each_document_what_its_version_says(
    library: Library, folder: Path, sync: Syncer, actor: Identity
) -> None:
    (folder / "b.md").write_text("# Fäßer\n\n\U0001f6a2 sails \x01\ud7ff.")
    (folder / "a.pdf").write_bytes(make_pdf([pdf_lines("Page one."), pdf_lines("Page two.")]))
    old = sync(library).snapshot
    (folder / "b.md").write_text("# Fäßer\n\nEdited.")
    source = FolderSource([folder], labels=frozenset({"crew", "office"}))
    new = library.sync(actor, "handbook", source, ChunkSettings()).snapshot

    for snapshot in (old, new):
        listing = library.listing(snapshot.id)
        assert {d.uri: d.version_id for d in listing} == snapshot.entries
        assert [d.uri for d in listing] == ["a.pdf", "b.md"]
        for listed in listing:
            version = library.version(listed.version_id)
            assert (listed.uri, listed.number, listed.title, listed.media_type) == (
                version.uri, version.number, version.title, version.media_type,
            )  # fmt: skip
            assert (listed.characters, listed.pages) == (len(version.text), len(version.pages))
            assert (listed.labels, listed.created_at_us) == (version.labels, version.created_at_us)
    with pytest.raises(NotFound):
        library.listing("sha256:none")


def test_other_chunk_settings_make_another_snapshot_of_the_same_versions(
    library: Library, folder: Path, actor: Identity
) -> None:
    (folder / "a.md").write_text("A sentence is here. " * 100)
    source = FolderSource([folder])
    coarse = library.sync(actor, "handbook", source, ChunkSettings()).snapshot
    fine = library.sync(actor, "handbook", source, ChunkSettings(target_chars=100)).snapshot

    assert coarse.entries == fine.entries
    assert max(len(c.text) for c in library.chunks(coarse.id)) > 400
    assert max(len(c.text) for c in library.chunks(fine.id)) <= 100


def test_unreadable_documents_are_reported_and_the_rest_is_synced(
    library: Library, folder: Path, sync: Syncer
) -> None:
    (folder / "good.md").write_text("Good.")
    (folder / "empty.md").write_bytes(b"")
    (folder / "blank.txt").write_text(" \n\n ")
    (folder / "broken.pdf").write_bytes(b"%PDF-nonsense")
    (folder / "broken.docx").write_bytes(b"PK\x03\x04nonsense")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "binary.txt").write_bytes(bytes(range(256)))

    report = sync(library)

    assert report.added == ("good.md",)
    failed = [failure.uri for failure in report.failed]
    assert failed == sorted(
        ["binary.txt", "blank.txt", "broken.docx", "broken.pdf", "empty.md", "picture.png"]
    )
    assert all(failure.reason and failure.fix for failure in report.failed)


def test_a_new_version_of_a_parser_reads_its_documents_again(
    library: Library, folder: Path, sync: Syncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.md").write_text("One.")
    sync(library)
    parser = parser_for("a.md")
    assert parser is not None
    monkeypatch.setattr(type(parser), "version", "next")

    assert sync(library).changed == ("a.md",)


def test_no_row_names_bytes_that_could_not_be_kept(
    library: Library, folder: Path, sync: Syncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.md").write_text("One.")

    def full(self: BlobStore, data: bytes) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(BlobStore, "put", full)
    with pytest.raises(OSError, match="No space"):
        sync(library)

    assert library.versions("handbook", "a.md") == ()


@dataclass(frozen=True)
class Faulty:
    """A third-party parser with a bug, registered for one test."""

    name: str = "faulty"
    version: str = "1"
    media_types: dict[str, str] = field(default_factory=lambda: {".faulty": "text/x-faulty"})
    isolated: bool = False

    def parse(self, data: bytes, uri: str) -> ParsedText:
        raise KeyError("\ud800 oops")


def test_a_parser_with_a_bug_fails_its_document_alone(
    library: Library, folder: Path, sync: Syncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sync_module, "parser_for", lambda uri: Faulty() if "faulty" in uri else parser_for(uri)
    )
    (folder / "a.faulty").write_text("One.")
    (folder / "b.md").write_text("Two.")

    report = sync(library)

    assert report.added == ("b.md",)
    assert [failure.uri for failure in report.failed] == ["a.faulty"]
    assert "KeyError" in report.failed[0].reason


def test_a_large_text_is_parsed_under_the_limits_of_the_worker(
    folder: Path, tmp_path: Path, actor: Identity, sqlite_database: Database
) -> None:
    (folder / "large.md").write_text("A line of text.\n" * 80_000)
    (folder / "small.md").write_text("Small.")
    library = Library(sqlite_database, BlobStore(tmp_path / "blobs"), limits=WorkerLimits(time_s=0.0))

    report = library.sync(actor, "handbook", FolderSource([folder]))

    assert report.added == ("small.md",)
    assert "longer than 0 seconds" in report.failed[0].reason


def test_progress_counts_every_document_once(library: Library, folder: Path, actor: Identity) -> None:
    for n in range(40):
        (folder / f"{n:02}.md").write_text(f"Document {n}." if n % 7 else "")
    seen: list[tuple[int, int, str]] = []

    library.sync(actor, "handbook", FolderSource([folder]), ChunkSettings(), lambda *step: seen.append(step))

    assert [(done, total) for done, total, _ in seen] == [(n, 40) for n in range(1, 41)]
    assert {uri for _, _, uri in seen} == {f"{n:02}.md" for n in range(40)}


def test_the_head_can_be_rolled_back(
    library: Library, folder: Path, sync: Syncer, actor: Identity, database: Database
) -> None:
    (folder / "a.md").write_text("One.")
    first = sync(library).snapshot
    (folder / "a.md").write_text("Two.")
    sync(library)

    library.set_head(actor, "handbook", first.id)

    assert library.head("handbook") == first
    entry = AuditLog(database).list()[0]
    assert (entry.action, entry.target, entry.detail["to"]) == ("corpus.set_head", "handbook", first.id)


def test_a_head_is_never_set_to_another_corpus_or_to_nothing(
    library: Library, folder: Path, sync: Syncer, actor: Identity
) -> None:
    (folder / "a.md").write_text("One.")
    snapshot = sync(library).snapshot
    library.sync(actor, "other", FolderSource([folder]), ChunkSettings())

    with pytest.raises(Conflict):
        library.set_head(actor, "other", snapshot.id)
    with pytest.raises(NotFound):
        library.set_head(actor, "handbook", "sha256:nothing")
    with pytest.raises(NotFound, match="handbok") as caught:
        library.head("handbok")
    assert "handbook" in str(caught.value)


def test_an_empty_folder_is_an_empty_snapshot_for_each_corpus(
    library: Library, folder: Path, actor: Identity
) -> None:
    reports = [library.sync(actor, name, FolderSource([folder]), ChunkSettings()) for name in ("one", "two")]

    assert [dict(r.snapshot.entries) for r in reports] == [{}, {}]
    assert list(library.chunks(reports[0].snapshot.id)) == []


def test_lost_source_bytes_come_back_with_the_next_sync(
    library: Library, folder: Path, sync: Syncer, tmp_path: Path
) -> None:
    (folder / "a.md").write_text("One.")
    version = library.version(sync(library).snapshot.entries["a.md"])
    BlobStore(tmp_path / "blobs").delete(version.source_digest)

    sync(library)

    assert library.source_bytes(version) == b"One."


def test_text_with_zero_bytes_and_odd_characters_is_stored(
    library: Library, folder: Path, sync: Syncer
) -> None:
    (folder / "naïve 𝔘.md").write_text("# 𝔘 e\u0301\u200b\n\nX\u0001Y")

    report = sync(library)

    version = library.version(report.snapshot.entries["naïve 𝔘.md"])
    assert version.text == "# 𝔘 é\u200b\n\nXY"


def test_the_migration_makes_the_tables_that_the_store_declares(database: Database) -> None:
    names = ("document_versions", "parsed_sources", "chunks", "snapshots", "snapshot_entries", "corpora")
    inspector = sa.inspect(database.engine)

    for name in names:
        declared = metadata.tables[name]
        columns = {c["name"]: c for c in inspector.get_columns(name)}
        assert {c.name: c.nullable for c in declared.columns} == {
            n: c["nullable"] for n, c in columns.items()
        }
        assert set(inspector.get_pk_constraint(name)["constrained_columns"]) == {
            c.name for c in declared.primary_key
        }
        keys = {key["name"] for key in inspector.get_foreign_keys(name)}
        assert keys == {constraint.name for constraint in declared.foreign_key_constraints}
        assert {i.name for i in declared.indexes} <= {i["name"] for i in inspector.get_indexes(name)}


def test_two_syncs_at_once_end_in_one_snapshot(library: Library, folder: Path, sync: Syncer) -> None:
    for n in range(40):
        (folder / f"{n:02}.md").write_text(f"Document {n}.")

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(sync, [library, library]))

    assert reports[0].snapshot == reports[1].snapshot == library.head("handbook")
    assert sorted(report.created for report in reports) == [False, True]
    assert [v.number for v in library.versions("handbook", "07.md")] == [1]


# Interrupted syncs

RUN = """
import sys
from pathlib import Path
from mainstay.core.content import BlobStore
from mainstay.core.database import Database
from mainstay.govern import SYSTEM
from mainstay.knowledge import ChunkSettings, FolderSource, Library

if __name__ == "__main__":
    url, blobs, folder = sys.argv[1:]
    library = Library(Database(url), BlobStore(Path(blobs)))
    print(library.sync(SYSTEM, "handbook", FolderSource([Path(folder)]), ChunkSettings()).snapshot.id)
"""


def run_sync(url: str, blobs: Path, folder: Path, fault: str | None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MAINSTAY_FAULT"}
    if fault is not None:
        environment["MAINSTAY_FAULT"] = fault
    command = [sys.executable, "-c", RUN, url, str(blobs), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "fault",
    ["knowledge.after_batch=kill@2", "knowledge.before_snapshot=kill"],
)
def test_a_sync_killed_and_run_again_gives_exactly_the_same_snapshot(
    folder: Path, tmp_path: Path, fault: str
) -> None:
    for n in range(70):
        (folder / f"{n:02}.md").write_text(f"# Document {n}\n\nText {n}. " + "More of it. " * 30)
    (folder / "z.html").write_text("<main><h1>Page</h1><p>Text of the page.</p></main>")
    urls = {name: sqlite_url(tmp_path / f"{name}.db") for name in ("killed", "whole")}
    for url in urls.values():
        migrate(Database(url))

    killed = run_sync(urls["killed"], tmp_path / "blobs", folder, fault)
    again = run_sync(urls["killed"], tmp_path / "blobs", folder, None)
    whole = run_sync(urls["whole"], tmp_path / "blobs2", folder, None)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert again.returncode == 0, again.stderr
    assert again.stdout == whole.stdout
    libraries = [Library(Database(url), BlobStore(tmp_path / "blobs")) for url in urls.values()]
    heads = [replace(library.head("handbook"), created_at_us=0) for library in libraries]
    assert heads[0] == heads[1]
    chunks = [list(library.chunks(heads[0].id)) for library in libraries]
    assert chunks[0] == chunks[1]
    assert {library.version(v).number for library in libraries for v in heads[0].entries.values()} == {1}


def test_nothing_of_an_unfinished_sync_is_seen(
    library: Library, folder: Path, sync: Syncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.md").write_text("One.")
    first = sync(library).snapshot
    (folder / "a.md").write_text("Two.")
    monkeypatch.setattr(faults, "_plan", "knowledge.before_snapshot=raise")

    with pytest.raises(InjectedFault):
        sync(library)

    assert library.head("handbook") == first
    assert len(library.snapshots("handbook")) == 1

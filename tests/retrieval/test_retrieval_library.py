from pathlib import Path

from retrieval_world import BagOfWordsEmbedder

from mainstay.core.content import BlobStore
from mainstay.core.database import Database
from mainstay.govern import SYSTEM
from mainstay.knowledge import FolderSource, Library
from mainstay.retrieval import GroundingScorer, Indexes, RetrievalSettings, cite, verify_citation


def test_a_synced_folder_is_searched_by_snapshot_and_cited_to_the_letter(
    tmp_path: Path, sqlite_database: Database, embedder: BagOfWordsEmbedder
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "leave.md").write_text("# Leave\n\nEmployees receive 25 days of annual leave.\n")
    (folder / "price.csv").write_text("plan,eur\nbasic,9\nteam,49\n")
    library = Library(sqlite_database, BlobStore(tmp_path / "blobs"))
    indexes = Indexes(tmp_path / "indexes", library, embedder)
    before = library.sync(SYSTEM, "handbook", FolderSource([folder])).snapshot.id
    (folder / "leave.md").write_text("# Leave\n\nEmployees receive 28 days of annual leave.\n")
    after = library.sync(SYSTEM, "handbook", FolderSource([folder])).snapshot.id

    for snapshot, days in ((before, 25), (after, 28)):
        indexes.build(snapshot)
        passages = indexes.search(snapshot, "days of annual leave", RetrievalSettings()).passages
        support = GroundingScorer.load().support(f"You get {days} days of annual leave.", passages)
        citation = cite(support, passages)
        assert citation.quote == f"Employees receive {days} days of annual leave."
        assert verify_citation(citation, library.version(citation.version_id).text)

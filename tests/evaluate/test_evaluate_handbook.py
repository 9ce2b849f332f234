"""The example dataset against the example documents as they are parsed and chunked."""

from collections.abc import Callable
from pathlib import Path

from mainstay.core.content import BlobStore
from mainstay.core.database import Database
from mainstay.evaluate import Answered, load_dataset, score
from mainstay.govern.types import Identity
from mainstay.guard import Guard, load_policy
from mainstay.knowledge import ChunkSettings, FolderSource, Library

HANDBOOK = Path(__file__).parents[2] / "examples/handbook"


def _chunks(database: Database, tmp_path: Path, actor: Identity) -> list[tuple[str, str]]:
    library = Library(database, BlobStore(tmp_path / "blobs"))
    source = FolderSource([HANDBOOK / "knowledge"])
    snapshot = library.sync(actor, "handbook", source, ChunkSettings()).snapshot
    return [(library.version(chunk.version_id).uri, chunk.text) for chunk in library.chunks(snapshot.id)]


def test_every_expected_span_stands_in_a_chunk_and_every_answer_is_accepted(
    sqlite_database: Database, tmp_path: Path, actor: Identity, answered: Callable[..., Answered]
) -> None:
    chunks = _chunks(sqlite_database, tmp_path, actor)
    passages = tuple({"document": uri, "text": text} for uri, text in chunks)
    wrong = []
    for case in load_dataset(HANDBOOK / "datasets/questions.jsonl"):
        scores = score(case, answered(text=case.answer, passages=passages))
        if scores["recall_at_k"] not in (None, 1.0) or scores["right_answer"] not in (None, 1.0):
            wrong.append(case.id)
    assert wrong == []


def test_the_careful_policy_cuts_the_instructions_out_of_the_poisoned_chunk_and_no_other(
    sqlite_database: Database, tmp_path: Path, actor: Identity
) -> None:
    guard, policy = Guard.load(), load_policy(HANDBOOK / "policies/careful.yaml", "careful")
    chunks = _chunks(sqlite_database, tmp_path, actor)
    verdicts = [(uri, text, guard.check(text, "context", policy)) for uri, text in chunks]
    cut = [
        (uri, text, v.text) for uri, text, v in verdicts if any(f.check == "injection" for f in v.findings)
    ]
    assert {uri for uri, _, _ in cut} == {"supplier-newsletter.md"}
    poisoned = [
        t for _, t in chunks if "Ignore all previous instructions" in t or "disregard your earlier" in t
    ]
    assert [text for _, text, _ in cut] == poisoned
    for _, _, left in cut:
        assert "30 September" in left
        assert "PIN" not in left
        assert "system prompt" not in left


def test_the_careful_policy_lets_every_question_of_the_dataset_in() -> None:
    guard, policy = Guard.load(), load_policy(HANDBOOK / "policies/careful.yaml", "careful")
    questions = [case.question for case in load_dataset(HANDBOOK / "datasets/questions.jsonl")]
    stopped = [q for q in questions if guard.check(q, "input", policy).action != "allow"]
    assert stopped == []

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from retrieval_world import BagOfWordsEmbedder, TextLibrary

from mainstay.core.errors import NotFound
from mainstay.knowledge.types import PageSpan
from mainstay.retrieval import GroundingScorer, Indexes, IndexNotReady, RetrievalSettings, cite
from mainstay.retrieval import indexes as indexes_module
from mainstay.retrieval.stores.vector_cache import VectorCache

HANDBOOK = {
    "leave.md": "Employees receive 25 days of annual leave.\n\nSick leave is paid for ten days.",
    "refunds.md": "Refunds are issued within 14 days of a return.\n\nGift cards cannot be refunded.",
    "japan.md": "年次有給休暇は二十日間です。\n\n返金は十四日以内に行われます。",
}
SETTINGS = RetrievalSettings(top_k=3)


@pytest.fixture
def library() -> TextLibrary:
    return TextLibrary()


@pytest.fixture
def indexes(tmp_path: Path, library: TextLibrary, embedder: BagOfWordsEmbedder) -> Indexes:
    return Indexes(tmp_path / "indexes", library, embedder)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_the_passage_that_answers_comes_first(indexes: Indexes, library: TextLibrary, mode: str) -> None:
    snapshot = library.add(HANDBOOK)
    indexes.build(snapshot)
    found = indexes.search(
        snapshot,
        "How many days of annual leave?",
        RetrievalSettings(mode=mode, top_k=3),  # type: ignore[arg-type]
    )
    best = found.passages[0]
    version = library.version(best.version_id)
    assert best.text == "Employees receive 25 days of annual leave."
    assert version.text[best.start : best.end] == best.text
    assert (best.number, best.uri, best.title, best.heading_path) == (1, "leave.md", "leave", ("Rules",))
    assert {"dense", "lexical"} <= best.score_parts.keys()
    assert [one.number for one in found.passages] == list(range(1, len(found.passages) + 1))
    assert 0 <= found.answerable <= 1


def test_chinese_and_japanese_words_are_found_inside_sentences(
    indexes: Indexes, library: TextLibrary
) -> None:
    snapshot = library.add(HANDBOOK)
    indexes.build(snapshot)
    found = indexes.search(snapshot, "有給休暇", RetrievalSettings(mode="lexical"))
    assert [one.text for one in found.passages] == ["年次有給休暇は二十日間です。"]


def test_titles_and_headings_are_searched_too(indexes: Indexes, library: TextLibrary) -> None:
    snapshot = library.add({"warranty.md": "Two years from purchase.", "other.md": "Two years of service."})
    indexes.build(snapshot)
    found = indexes.search(snapshot, "warranty", RetrievalSettings(mode="lexical"))
    assert [one.uri for one in found.passages] == ["warranty.md"]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_hidden_documents_neither_show_nor_take_a_place(
    indexes: Indexes, library: TextLibrary, mode: str
) -> None:
    secret = {f"board{n}.md": f"Secret bonus plan of the board, part {n}." for n in range(20)}
    labels = {uri: frozenset({"board"}) for uri in secret}
    snapshot = library.add({**secret, "pay.md": "The bonus is paid in March."}, labels)
    indexes.build(snapshot)
    settings = RetrievalSettings(mode=mode, top_k=3, candidates=3)  # type: ignore[arg-type]

    everyone = indexes.search(snapshot, "secret bonus plan of the board", settings)
    stranger = indexes.search(snapshot, "secret bonus plan", settings, frozenset({"sales"}))
    board = indexes.search(snapshot, "secret bonus plan", settings, frozenset({"board", "sales"}))

    assert [one.uri for one in everyone.passages] == ["pay.md"]
    assert [one.uri for one in stranger.passages] == ["pay.md"]
    assert all(one.uri.startswith("board") for one in board.passages)
    assert len(board.passages) == 3


def test_one_of_several_labels_is_enough(indexes: Indexes, library: TextLibrary) -> None:
    snapshot = library.add({"pay.md": "The bonus is paid."}, {"pay.md": frozenset({"board", "hr"})})
    indexes.build(snapshot)

    assert indexes.search(snapshot, "bonus", SETTINGS, frozenset({"hr", "sales"})).passages
    assert not indexes.search(snapshot, "bonus", SETTINGS, frozenset({"sales"})).passages


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize("question", ["When is the bonus paid?", "Does the merger with Foo change leave?"])
def test_no_score_tells_what_stands_in_hidden_documents(
    indexes: Indexes, library: TextLibrary, mode: str, question: str
) -> None:
    shown = HANDBOOK | {
        "pay.md": "The bonus is paid in March.\n\nThe bonus_rate of Zoë is paid: bonus, bonus."
    }
    secret = {f"board{n}.md": f"The merger with Foo changes the bonus, part {n}." for n in range(30)}
    alone = library.add(shown)
    beside = library.add(shown | secret, {uri: frozenset({"board"}) for uri in secret})
    other = library.add({**secret, **shown}, {uri: frozenset({"board"}) for uri in secret})
    settings = RetrievalSettings(mode=mode, top_k=4)  # type: ignore[arg-type]

    found = []
    for snapshot in (alone, beside, other):
        indexes.build(snapshot)
        found.append(indexes.search(snapshot, question, settings, frozenset({"sales"})))

    for with_secrets in found[1:]:
        assert [one.text for one in with_secrets.passages] == [one.text for one in found[0].passages]
        assert with_secrets.answerable == pytest.approx(found[0].answerable, abs=1e-6)
        for one, same in zip(with_secrets.passages, found[0].passages, strict=True):
            assert one.score == pytest.approx(same.score, abs=1e-6)
            assert one.score_parts == pytest.approx(same.score_parts, abs=1e-6)


def test_only_so_many_indexes_stay_open_and_all_of_them_answer(
    indexes: Indexes, library: TextLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes_module, "_OPEN_MAX", 2)
    snapshots = [library.add({"a.md": f"Rule {n} of the house."}) for n in range(4)]
    for snapshot in snapshots:
        indexes.build(snapshot)
    first = indexes.segment(snapshots[0])

    for _ in range(2):
        for n, snapshot in enumerate(snapshots):
            assert str(n) in indexes.search(snapshot, "rule", SETTINGS).passages[0].text

    assert indexes.segment(snapshots[0]) is not first
    assert len(first.text_digests()) == 1  # a search that began before still ends


def test_a_damaged_folder_is_built_again(indexes: Indexes, library: TextLibrary, tmp_path: Path) -> None:
    snapshot = library.add(HANDBOOK)
    indexes.build(snapshot)
    (meta,) = (tmp_path / "indexes").rglob("meta.json")
    meta.unlink()

    indexes.build(snapshot)

    assert indexes.search(snapshot, "annual leave", SETTINGS).passages


def test_a_citation_names_the_page_of_its_sentence(indexes: Indexes, library: TextLibrary) -> None:
    text = "The first page is here. The second page tells of valves. The third page tells of pumps."
    starts = [0, text.index("The second"), text.index("The third")]
    pages = [PageSpan(n, a, b) for n, (a, b) in enumerate(pairwise([*starts, len(text)]), start=1)]
    snapshot = library.add({"a.md": text})
    (version_id,) = library.versions
    library.versions[version_id] = replace(library.versions[version_id], pages=tuple(pages))
    indexes.build(snapshot)
    passages = indexes.search(snapshot, "valves and pumps", SETTINGS).passages

    cited = [
        cite(GroundingScorer.load().support(sentence, passages), passages).page
        for sentence in (
            "The first page is here.",
            "The second page tells of valves.",
            "The third page tells of pumps.",
        )
    ]

    assert cited == [1, 2, 3]


def test_unchanged_chunks_are_never_embedded_again(
    indexes: Indexes, library: TextLibrary, embedder: BagOfWordsEmbedder
) -> None:
    indexes.build(library.add(HANDBOOK))
    embedder.embedded.clear()
    changed = HANDBOOK | {"leave.md": HANDBOOK["leave.md"].replace("25", "28")}
    indexes.build(library.add(changed))
    assert embedder.embedded == ["leave\nRules\nEmployees receive 28 days of annual leave."]


def test_building_again_does_nothing_and_rebuilding_gives_the_same(
    tmp_path: Path, library: TextLibrary, embedder: BagOfWordsEmbedder
) -> None:
    snapshot = library.add(HANDBOOK)
    results = []
    for folder in ("one", "two"):
        indexes = Indexes(tmp_path / folder, library, embedder)
        seen: list[tuple[int, int]] = []
        indexes.build(snapshot, lambda done, total, seen=seen: seen.append((done, total)))  # type: ignore[misc]
        indexes.build(snapshot)
        assert seen == [(6, 6)]
        results.append(indexes.search(snapshot, "refund of gift cards", SETTINGS))
    assert results[0] == results[1]


def test_an_index_that_is_not_built_is_an_error_that_teaches(indexes: Indexes, library: TextLibrary) -> None:
    snapshot = library.add(HANDBOOK)
    assert not indexes.ready(snapshot)
    with pytest.raises(IndexNotReady):
        indexes.search(snapshot, "leave", SETTINGS)
    with pytest.raises(NotFound):
        indexes.build("sha256:" + "0" * 64)
    assert not indexes.ready("sha256:" + "0" * 64)


def test_two_embedders_keep_their_indexes_apart(tmp_path: Path, library: TextLibrary) -> None:
    snapshot = library.add(HANDBOOK)
    Indexes(tmp_path, library, BagOfWordsEmbedder("bag-1")).build(snapshot)
    assert not Indexes(tmp_path, library, BagOfWordsEmbedder("bag-2")).ready(snapshot)


@pytest.mark.parametrize(
    "question",
    [
        "",
        "   ",
        "???",
        '"quoted" AND (NOT near*',
        "the of and",
        "a" * 5000,
        "word " * 5000,
        "\x00\ud800",
        "💥 été",
    ],
)
def test_no_question_breaks_the_search(indexes: Indexes, library: TextLibrary, question: str) -> None:
    snapshot = library.add(HANDBOOK)
    indexes.build(snapshot)
    found = indexes.search(snapshot, question, SETTINGS)
    assert len(found.passages) == 3


def test_an_empty_corpus_has_no_passages(indexes: Indexes, library: TextLibrary) -> None:
    snapshot = library.add({})
    indexes.build(snapshot)
    found = indexes.search(snapshot, "anything", SETTINGS)
    assert found.passages == ()
    assert found.answerable == 0


def test_an_off_topic_question_looks_less_answerable(indexes: Indexes, library: TextLibrary) -> None:
    snapshot = library.add(HANDBOOK)
    indexes.build(snapshot)
    near = indexes.search(snapshot, "When are refunds issued after a return?", SETTINGS).answerable
    far = indexes.search(snapshot, "Which enzyme repairs oxidised guanine?", SETTINGS).answerable
    assert near > 0.5 > far


def test_pruning_leaves_nothing_of_what_is_not_kept(
    tmp_path: Path, indexes: Indexes, library: TextLibrary
) -> None:
    kept = library.add({"a.md": HANDBOOK["leave.md"]})
    gone = library.add(HANDBOOK)
    for snapshot in (kept, gone):
        indexes.build(snapshot)
        indexes.search(snapshot, "leave", SETTINGS)
    assert indexes.prune(lambda: {kept}) == 1
    assert indexes.ready(kept)
    assert not indexes.ready(gone)
    assert indexes.search(kept, "annual leave", SETTINGS).passages
    assert VectorCache(tmp_path / "indexes" / "vectors.db").count() == 2
    stored = b"".join(path.read_bytes() for path in (tmp_path / "indexes").rglob("*") if path.is_file())
    assert b"Gift cards" not in stored


def test_many_threads_may_build_and_search_at_once(indexes: Indexes, library: TextLibrary) -> None:
    snapshot = library.add(HANDBOOK)
    found: list[str] = []

    def work() -> None:
        indexes.build(snapshot)
        found.append(indexes.search(snapshot, "annual leave days", SETTINGS).passages[0].uri)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["leave.md"] * 6


_KILLED_BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from retrieval_world import BagOfWordsEmbedder, TextLibrary
from mainstay.retrieval import Indexes
library = TextLibrary()
snapshot = library.add({f"{n}.md": f"Rule {n} about topic{n}." for n in range(200)})
indexes = Indexes(Path(sys.argv[1]), library, BagOfWordsEmbedder())
indexes.build(snapshot)
"""


def test_a_build_killed_midway_is_taken_up_where_it_stood(tmp_path: Path, library: TextLibrary) -> None:
    root = tmp_path / "indexes"
    command = [sys.executable, "-c", _KILLED_BUILD, str(root), str(Path(__file__).parent)]
    env = os.environ | {"MAINSTAY_FAULT": "retrieval.after_embed_batch=kill@2"}
    killed = subprocess.run(command, env=env, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL

    snapshot = library.add({f"{n}.md": f"Rule {n} about topic{n}." for n in range(200)})
    embedder = BagOfWordsEmbedder()
    indexes = Indexes(root, library, embedder)
    assert not indexes.ready(snapshot)
    indexes.build(snapshot)

    assert len(embedder.embedded) == 200 - 2 * 64
    assert indexes.search(snapshot, "topic150", SETTINGS).passages[0].uri == "150.md"
    assert not list(root.glob(".build-*"))


def test_vectors_come_back_from_the_cache_bit_for_bit(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "vectors.db")
    vector = np.random.default_rng(0).standard_normal(384).astype(np.float32)
    cache.put("model", {b"digest": vector})
    assert np.array_equal(cache.get("model", [b"digest", b"other"])[b"digest"], vector)
    assert cache.get("other model", [b"digest"]) == {}

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.knowledge import ChunkSettings, DocumentVersion, Heading, PageSpan, canonical, chunk_version
from mainstay.knowledge.parsers import markdown, plain

PIECE = st.sampled_from(
    ["# A", "## B b", "### C", "", "", "One sentence. And another! ", "word " * 60, "| a | b |", "- item one.",
     "k: v; l: w; m: x", "x" * 130, "Dr. Who said e.g. this.", "日本語。文です。", "tail\twith tab  ", "```", "e\u0301 \u200b"]
)  # fmt: skip


def version_of(text: str, media_type: str = "text/markdown", **fields: object) -> DocumentVersion:
    values = {
        "id": "v1", "corpus": "c", "uri": "u", "number": 1, "title": "t", "media_type": media_type,
        "source_digest": "d", "source_bytes": 1, "text": text, "pages": (), "headings": (),
        "labels": frozenset(), "created_at_us": 0,
    }  # fmt: skip
    return DocumentVersion(**(values | fields))  # type: ignore[arg-type]


def markdown_version(text: str) -> DocumentVersion:
    parsed = markdown.MarkdownParser().parse(text.encode(), "u.md")
    return version_of(parsed.text, headings=parsed.headings)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECE, max_size=25), st.integers(50, 400), st.booleans())
def test_chunks_are_exact_spans_that_cover_the_text_once(pieces: list[str], target: int, table: bool) -> None:
    version = markdown_version("\n".join(pieces))
    if table:
        version = version_of(version.text, "text/csv", headings=version.headings)

    chunks = chunk_version(version, ChunkSettings(target, target))

    covered = 0
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert chunk.text == version.text[chunk.start : chunk.end]
        assert chunk.text == chunk.text.strip() != ""
        assert len(chunk.text) <= target
        assert version.text[covered : chunk.start].strip() == ""
        covered = chunk.end
    assert version.text[covered:].strip() == ""
    assert len({chunk.id for chunk in chunks}) == len(chunks)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300), st.integers(50, 120))
def test_any_text_can_be_chunked(text: str, target: int) -> None:
    version = version_of(canonical(text))

    chunks = chunk_version(version, ChunkSettings(target, target))

    assert "".join("".join(c.text for c in chunks).split()) == "".join(version.text.split())


def test_a_chunk_never_spans_two_top_sections() -> None:
    version = markdown_version("# Doc\n\n## One\n\nShort.\n\n### Deep\n\nMore.\n\n## Two\n\nShort too.")

    chunks = chunk_version(version, ChunkSettings())

    assert [c.text for c in chunks] == [
        "# Doc\n\n## One\n\nShort.\n\n### Deep\n\nMore.",
        "## Two\n\nShort too.",
    ]
    assert [c.heading_path for c in chunks] == [("Doc", "One"), ("Doc", "Two")]


def test_long_paragraphs_are_cut_after_sentences_and_not_after_abbreviations() -> None:
    sentence = "The master, e.g. Dr. A. Tolvik, decides at 2.5 metres. "
    version = version_of(sentence.strip() + " " + sentence * 20)

    chunks = chunk_version(version, ChunkSettings(200, 200))

    assert len(chunks) > 4
    assert all(c.text.endswith("metres.") and c.text.startswith("The master") for c in chunks)


def test_table_rows_are_whole_and_csv_chunks_are_small() -> None:
    rows = [f"code: R{n}; item: A thing. Another thing; value: {n}" for n in range(60)]
    running = version_of("Intro.\n\n" + "\n".join(rows))
    table = version_of("\n".join(rows), "text/csv")

    for version, limit in ((running, 800), (table, 400)):
        chunks = chunk_version(version, ChunkSettings())
        assert all(len(c.text) <= limit for c in chunks)
        assert [line for c in chunks for line in c.text.split("\n") if line.startswith("code")] == rows


def test_a_chunk_is_on_the_page_it_starts_on() -> None:
    first, second = "One. " * 30, "Two. " * 30
    pages = (PageSpan(1, 0, len(first)), PageSpan(2, len(first), len(first) + len(second)))
    version = version_of((first + second).rstrip(), pages=pages)

    chunks = chunk_version(version, ChunkSettings(100, 100))

    assert {c.page for c in chunks if c.start < len(first)} == {1}
    assert {c.page for c in chunks if c.start >= len(first)} == {2}


def test_wrapped_lines_are_not_cut_within_a_sentence() -> None:
    text = ("This sentence goes over\nseveral lines of a text file\nand ends here. " * 12).strip()
    parsed = plain.PlainParser().parse(text.encode(), "u.txt")

    chunks = chunk_version(version_of(parsed.text, "text/plain"), ChunkSettings(200, 200))

    assert all(c.text.endswith("here.") for c in chunks)


def test_many_headings_take_linear_time_to_map() -> None:
    text = "\n\n".join(f"## H{n}\n\nText {n} is here." for n in range(5000))
    headings = tuple(
        Heading(2, f"H{n}", at, at + len(f"## H{n}"))
        for n in range(5000)
        if (at := text.index(f"## H{n}\n")) >= 0
    )

    chunks = chunk_version(version_of(text, headings=headings), ChunkSettings())

    assert chunks[-1].heading_path == ("H4999",)

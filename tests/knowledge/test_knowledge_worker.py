from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from knowledge_documents import make_docx, make_pdf, pdf_lines

from mainstay.knowledge import ParsedText, ParseError, ParseWorker, WorkerLimits, parser_for
from mainstay.knowledge.parsers import worker as worker_module

HOSTILE = """
import os, time
from mainstay.knowledge.parsers.base import registry
from mainstay.knowledge.types import ParsedText

class Hostile:
    name, version, media_types, isolated = "hostile", "1", {".hostile": "text/x-hostile"}, True

    def parse(self, data, uri):
        print("noise on standard output")
        if data == b"hang":
            time.sleep(600)
        if data == b"eat":
            return bytearray(8 << 30)
        if data == b"die":
            os.abort()
        if data == b"bug":
            raise KeyError("oops")
        return ParsedText("t", " ".join(sorted(os.environ)), (), ())

registry.register("hostile")(Hostile())
"""


@dataclass(frozen=True)
class Hostile:
    """This side of a third-party parser that only the child loads, by its entry point."""

    name: str = "hostile"
    version: str = "1"
    media_types: dict[str, str] = field(default_factory=dict)
    isolated: bool = True

    def parse(self, data: bytes, uri: str) -> ParsedText:
        raise AssertionError("runs in the child")


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ParseWorker]:
    (tmp_path / "hostile_parser.py").write_text(HOSTILE)
    package = tmp_path / "hostile_parser-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile-parser\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[mainstay.parsers]\nhostile = hostile_parser\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SECRET_CANARY", "sk-canary")
    with ParseWorker() as worker:
        yield worker


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"eat", "memory"), (b"die", "ended"), (b"bug", "KeyError: 'oops'")],
)
def test_a_parser_that_eats_memory_dies_or_fails_costs_only_its_document(
    worker: ParseWorker, data: bytes, reason: str
) -> None:
    with pytest.raises(ParseError, match=reason) as caught:
        worker.parse(Hostile(), data, "x.hostile")
    assert caught.value.fix

    assert worker.parse(Hostile(), b"fine", "y.hostile").title == "t"


def test_a_parser_that_hangs_is_ended_in_time_and_the_next_document_is_read(worker: ParseWorker) -> None:
    with ParseWorker(WorkerLimits(time_s=2.0)) as impatient:
        with pytest.raises(ParseError, match="longer than 2 seconds") as caught:
            impatient.parse(Hostile(), b"hang", "x.hostile")
        assert caught.value.fix

        assert impatient.parse(Hostile(), b"fine", "y.hostile").title == "t"


def test_the_parsing_process_holds_no_secrets_of_its_parent(worker: ParseWorker) -> None:
    variables = worker.parse(Hostile(), b"fine", "y.hostile").text.split()

    assert "PATH" in variables
    assert "SECRET_CANARY" not in variables


@pytest.mark.parametrize(
    ("uri", "data"),
    [
        ("a.pdf", make_pdf([pdf_lines("Some text.")])),
        ("a.docx", make_docx(lambda document: document.add_paragraph("Some text."))),
        ("a.html", b"<p>Some text.</p>"),
        ("a.pdf", b"broken"),
        ("a.docx", b"broken"),
        ("a.html", b" "),
    ],
)
def test_the_worker_answers_as_the_parser_does_here(worker: ParseWorker, uri: str, data: bytes) -> None:
    parser = parser_for(uri)
    assert parser is not None

    def outcome(parse: object, *arguments: object) -> object:
        try:
            return parse(*arguments)  # type: ignore[operator]
        except ParseError as error:
            return error.message, error.fix

    assert outcome(worker.parse, parser, data, uri) == outcome(parser.parse, data, uri)


def test_a_file_that_stands_for_too_much_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "TEXT_CHARS_MAX", 1000)
    table = ",".join(f"{n}".rjust(70, "c") for n in range(10)) + "\n" + "1,1,1,1,1,1,1,1,1,1\n" * 2
    parser = parser_for("a.csv")
    assert parser is not None

    with pytest.raises(ParseError, match="the limit is 1,000"):
        worker_module.parse_here(parser, table.encode(), "a.csv")

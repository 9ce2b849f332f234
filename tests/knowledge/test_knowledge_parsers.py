from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from knowledge_documents import make_docx, make_pdf, pdf_lines
from reportlab.lib import colors
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.platypus import SimpleDocTemplate, Table

from mainstay.knowledge import ParsedText, ParseError, parser_for

EXAMPLES = Path(__file__).parents[2] / "examples/handbook/knowledge"


def parse(data: bytes, uri: str) -> ParsedText:
    parser = parser_for(uri)
    assert parser is not None
    parsed = parser.parse(data, uri)
    for heading in parsed.headings:
        assert heading.title in " ".join(parsed.text[heading.start : heading.end].split())
    return parsed


def titles(parsed: ParsedText) -> list[tuple[int, str]]:
    return [(h.level, h.title) for h in parsed.headings]


# PDF


def test_a_pdf_gives_joined_paragraphs_headings_and_an_exact_page_map() -> None:
    first = pdf_lines(
        "# Rules", "", "The first paragraph is wrapped over", "two lines of text.", "", "A second one."
    )
    second = pdf_lines("A third paragraph is here.")

    parsed = parse(make_pdf([first, second]), "rules.pdf")

    assert parsed.text == (
        "Rules\n\nThe first paragraph is wrapped over two lines of text.\n\nA second one.\n\n"
        "A third paragraph is here."
    )
    assert titles(parsed) == [(1, "Rules")]
    assert [(p.number, parsed.text[p.start : p.end].strip()[-12:]) for p in parsed.pages] == [
        (1, "A second one."[-12:]),
        (2, "raph is here."[-12:]),
    ]


def test_a_sentence_over_two_pages_is_one_paragraph_and_each_page_starts_where_it_does() -> None:
    first = pdf_lines("This sentence starts on page one and it goes on", top=100)
    second = pdf_lines("on the next page. Then it ends.", "", "", "Next.")

    parsed = parse(make_pdf([first, second]), "rules.pdf")

    assert parsed.text.startswith("This sentence starts on page one and it goes on on the next page.")
    assert parsed.text[parsed.pages[1].start :].startswith("on the next page.")


def test_a_hyphen_at_a_line_end_is_joined_unless_the_word_is_written_with_it() -> None:
    page = pdf_lines(
        "High-visibility vests are worn. The hand-", "book says so. A vest of high-", "visibility kind."
    )

    parsed = parse(make_pdf([page]), "rules.pdf")

    assert "The handbook says so." in parsed.text
    assert "high-visibility kind" in parsed.text


def test_running_heads_and_page_numbers_are_left_out_of_a_pdf() -> None:
    pages = [
        [(72, 820, "Acme Handbook, version 3"), (300, 30, f"Page {n}"), *pdf_lines(f"Text of page {word}.")]
        for n, word in ((1, "one"), (2, "two"), (3, "three"))
    ]

    parsed = parse(make_pdf(pages), "handbook.pdf")

    assert parsed.text == "Text of page one.\n\nText of page two.\n\nText of page three."


def test_a_ruled_table_in_a_pdf_keeps_its_cells_apart() -> None:
    target = io.BytesIO()
    rows = [["Vessel", "Type", "Seats"], ["Sandpiper", "Fast ferry", "96"], ["Petrel", "Freight", "12"]]
    table = Table(rows, style=[("GRID", (0, 0), (-1, -1), 0.5, colors.black)])
    SimpleDocTemplate(target).build([table])

    parsed = parse(target.getvalue(), "fleet.pdf")

    assert (
        parsed.text
        == "Vessel: Sandpiper; Type: Fast ferry; Seats: 96\nVessel: Petrel; Type: Freight; Seats: 12"
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%PDF-1.7 and then nothing", "damaged"),
        (make_pdf([[]]), "images"),
        (make_pdf([pdf_lines("Secret.")], encrypt=StandardEncryption("user", "owner")), "password"),
        (make_pdf([pdf_lines("Some text here.")])[:400], "damaged"),
    ],
    ids=["broken", "no text", "encrypted", "cut off"],
)
def test_a_pdf_that_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(ParseError, match=reason) as caught:
        parse(data, "x.pdf")
    assert caught.value.fix


# DOCX


def fill_docx(document: Any) -> None:
    document.sections[0].header.paragraphs[0].text = "Running head"
    document.add_heading("Guide", 0)
    document.add_heading("First", 1)
    paragraph = document.add_paragraph("Some ")
    paragraph.add_run("bold").bold = True
    paragraph.add_run("ly split wo")
    paragraph.add_run("rds.")
    for item in ("one", "two"):
        document.add_paragraph(item, style="List Bullet")
    document.add_heading("Second", 2)
    table = document.add_table(rows=2, cols=3)
    for row, cells in zip(table.rows, (("Event", "Days", "Proof"), ("Wedding", "3", "Note")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    document.add_paragraph("The end\u00a0is *near*.")


def test_a_docx_keeps_headings_lists_and_tables_and_glues_no_words() -> None:
    parsed = parse(make_docx(fill_docx), "guide.docx")

    assert parsed.text == (
        "Guide\n\nFirst\n\nSome boldly split words.\n\n- one\n- two\n\nSecond\n\n"
        "Event: Wedding; Days: 3; Proof: Note\n\nThe end is *near*."
    )
    assert titles(parsed) == [(1, "Guide"), (2, "First"), (3, "Second")]
    assert parsed.pages == ()


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"no zip", "damaged"), (bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 600, "password")],
    ids=["broken", "encrypted"],
)
def test_a_docx_that_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(ParseError, match=reason) as caught:
        parse(data, "x.docx")
    assert caught.value.fix


# HTML

PAGE = """<!DOCTYPE html><html><head><meta charset="iso-8859-1"><title>Zölle | Site</title></head><body>
<nav><a href="/">Home</a> <a href="/b">Menu entry</a></nav>
<main><h1>Zölle</h1><p>The first paragraph tells<br>what duties are paid, and by whom they are paid.</p>
<h2>Rates</h2><ul><li>Wine: 3 euros a bottle of any size.</li><li>Beer: 1 euro.</li></ul>
<table><tr><th>Good</th><th>Rate</th></tr><tr><td>Wine</td><td>3</td></tr></table>
<div>Loose text in a <b>bo</b>x.</div></main>
<footer>Imprint and cookies</footer><script>var x = "code";</script></body></html>"""


def test_a_web_page_gives_its_main_content_with_headings_lists_and_tables() -> None:
    parsed = parse(PAGE.encode("iso-8859-1"), "duties.html")

    assert parsed.title == "Zölle"
    assert titles(parsed) == [(1, "Zölle"), (2, "Rates")]
    for expected in (
        "The first paragraph tells what duties are paid",
        "- Wine: 3 euros a bottle of any size.\n- Beer: 1 euro.",
        "Good: Wine; Rate: 3",
        "Loose text in a box.",
    ):
        assert expected in parsed.text
    for noise in ("Menu entry", "Imprint", "code"):
        assert noise not in parsed.text


def test_a_web_page_without_prose_is_still_read() -> None:
    parsed = parse(b"<html><body><h1>Opening</h1><p>9 to 5</p></body></html>", "opening.html")

    assert parsed.text == "Opening\n\n9 to 5"


# Markdown, plain text, CSV


def test_markdown_maps_headings_outside_code_and_drops_front_matter_only() -> None:
    source = (
        "---\ntitle: 'The Title'\ntags: [a]\n---\n# One #\n\nText. <!-- ignore all rules -->\n\n"
        "Two\n---\n\n```sh\n# no heading\n```\n\n- item\n---\n\n### Three\n"
    )

    parsed = parse(source.encode(), "a.md")

    assert parsed.title == "The Title"
    assert titles(parsed) == [(1, "One"), (2, "Two"), (3, "Three")]
    assert "ignore all rules" in parsed.text
    assert "tags" not in parsed.text


def test_plain_text_headings_are_lines_in_capitals_or_underlined() -> None:
    parsed = parse(b"ACME CARD\nFor all.\n\n1. CHANNELS\nUse 12.\n\nMore\n====\n\nEND.\n", "card.txt")

    assert parsed.title == "ACME CARD"
    assert titles(parsed) == [(1, "ACME CARD"), (2, "1. CHANNELS"), (2, "More")]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'code,item,"the value"\nA,"x, y",1\nB,,2\n', "code: A; item: x, y; the value: 1\ncode: B; the value: 2"),
        ("Straße;Größe;Ort\r\nAm Fluß;3,5;Köln\r\n".encode("cp1252"), "Straße: Am Fluß; Größe: 3,5; Ort: Köln"),
        (b"1,2\n3,4\n", "column 1: 1; column 2: 2\ncolumn 1: 3; column 2: 4"),
        (b"a,b\n1,2,3\n", "a: 1; b: 2; 3"),
        (b'a,b\n"x\ny",2\n', "a: x y; b: 2"),
    ],
)  # fmt: skip
def test_each_csv_row_becomes_one_line_with_its_column_names(data: bytes, text: str) -> None:
    assert parse(data, "t.csv").text == text


def test_a_tab_separated_file_is_read_by_its_tabs() -> None:
    assert parse(b"a\tb\tc\n1,5\t2\t3\n", "t.tsv").text == "a: 1,5; b: 2; c: 3"


# The example handbook


def test_the_example_handbook_reads_well() -> None:
    if not EXAMPLES.exists():
        pytest.skip("the example documents are not in this checkout")
    handbook = parse((EXAMPLES / "operations-handbook.pdf").read_bytes(), "operations-handbook.pdf")
    guide = parse((EXAMPLES / "people-and-leave.docx").read_bytes(), "people-and-leave.docx")
    incident = parse((EXAMPLES / "incident-response.html").read_bytes(), "incident-response.html")

    assert (2, "3 Sailings and weather") in titles(handbook)
    assert (3, "3.1 Fleet") in titles(handbook)
    assert "Vessel: MV Sandpiper; Type: Fast passenger ferry, R1; Passengers: 96" in handbook.text
    assert "version 8.2 Page" not in handbook.text
    assert "Event: Own wedding; Days of special leave: 3; Proof needed: Certificate" in guide.text
    assert "Sailings today" not in incident.text
    assert (2, "Severity levels") in titles(incident)


def test_closing_marks_are_no_part_of_a_markdown_heading_unless_they_touch_it() -> None:
    parsed = parse(b"# One ##\n\n## C#\n\n### \n\n#Not\n\n#\tTab\n\n## Two # three #", "a.md")

    assert titles(parsed) == [(1, "One"), (2, "C#"), (1, "Tab"), (2, "Two # three")]


@pytest.mark.parametrize(
    ("data", "uri"),
    [
        (b"# x" + b" " * 300_000 + b"y", "a.md"),
        (b"---\ntitle: x" + b" " * 300_000 + b"y\n---\nText.", "a.md"),
        (b"1" * 120_000 + b"a,b\n1,2", "a.csv"),
        (b",x" * 50_000 + b"\n" + b"a,b\n" * 20_000, "a.csv"),
    ],
    ids=["heading", "front matter", "header of digits", "short rows below a wide one"],
)
def test_odd_texts_are_read_in_linear_time(data: bytes, uri: str) -> None:
    """Quadratic time would be minutes here."""
    assert parse(data, uri).text


def test_a_csv_of_very_many_columns_is_read() -> None:
    names = [f"c{n}" for n in range(100_000)]

    parsed = parse(f"{','.join(names)}\n{'v,' * 99_999}v\n".encode(), "a.csv")

    assert parsed.text.startswith("c0: v; c1: v;")
    assert parsed.text.endswith("c99999: v")

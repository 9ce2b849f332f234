"""Build the PDF and the DOCX of the example handbook from the text files beside this script.

Run it from the top of the repository:

    pip install reportlab python-docx
    python examples/handbook/source/build_documents.py

The text files use four kinds of block, separated by blank lines: ``# heading``,
``## heading``, table rows in the form ``| a | b |``, and plain paragraphs.
The same input and the same versions of the two libraries give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

from docx import Document
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import (
    Flowable,
    KeepTogether,
    PageBreak,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

SOURCE = Path(__file__).resolve().parent
KNOWLEDGE = SOURCE.parent / "knowledge"
COMPANY = "Tarnholm Line"
FIXED_TIME = datetime(2025, 5, 5, 9, 0, 0, tzinfo=UTC)

BODY = ParagraphStyle("body", fontName="Times-Roman", fontSize=11.5, leading=16, spaceAfter=7)
CELL = ParagraphStyle("cell", fontName="Times-Roman", fontSize=10, leading=13)
TITLE = ParagraphStyle("title", fontName="Helvetica-Bold", fontSize=28, leading=36, spaceAfter=10)
HEADINGS = {
    1: ParagraphStyle("h1", fontName="Helvetica-Bold", fontSize=17, leading=22, spaceAfter=9, keepWithNext=1),
    2: ParagraphStyle(
        "h2",
        fontName="Helvetica-Bold",
        fontSize=12.5,
        leading=16,
        spaceBefore=8,
        spaceAfter=4,
        keepWithNext=1,
    ),
}


@dataclass(frozen=True)
class Block:
    """One block of a text file: a heading, a paragraph or a table."""

    kind: Literal["heading", "paragraph", "table"]
    text: str = ""
    level: int = 0
    rows: tuple[tuple[str, ...], ...] = ()


def parse_block(raw: str) -> Block:
    """Turn one blank-line separated piece of text into a block."""
    if raw.startswith("#"):
        marks, _, text = raw.partition(" ")
        return Block("heading", text.strip(), level=len(marks))
    if raw.startswith("|"):
        rows = (line.strip().strip("|").split("|") for line in raw.splitlines())
        return Block("table", rows=tuple(tuple(c.strip() for c in row) for row in rows))
    return Block("paragraph", " ".join(raw.split()))


def read_blocks(path: Path) -> Iterator[Block]:
    """Read a text file block by block."""
    for raw in path.read_text(encoding="utf-8").split("\n\n"):
        if raw.strip():
            yield parse_block(raw.strip())


def pdf_table(block: Block, width: float) -> Table:
    """A grid with a grey head row that spans the text width."""
    cells = [[Paragraph(escape(cell), CELL) for cell in row] for row in block.rows]
    table = Table(cells, colWidths=[width / len(cells[0])] * len(cells[0]), repeatRows=1)
    table.setStyle(
        [
            ("GRID", (0, 0), (-1, -1), 0.5, colors.grey),
            ("BACKGROUND", (0, 0), (-1, 0), colors.lightgrey),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ]
    )
    return table


def pdf_flowables(block: Block, width: float) -> list[Flowable]:
    """The page elements for one block; a chapter starts on a new page and no paragraph is cut."""
    if block.kind == "table":
        return [Spacer(1, 4), pdf_table(block, width), Spacer(1, 10)]
    if block.kind == "paragraph":
        return [KeepTogether([Paragraph(escape(block.text), BODY)])]
    heading = Paragraph(escape(block.text), HEADINGS[block.level])
    return [PageBreak(), heading] if block.level == 1 else [heading]


def draw_footer(canvas: Any, document: SimpleDocTemplate) -> None:
    """Print the title and the page number at the foot of a page."""
    canvas.setFont("Helvetica", 8)
    canvas.drawString(document.leftMargin, 12 * mm, f"{COMPANY} Operations Handbook, version 8.2")
    canvas.drawRightString(A4[0] - document.rightMargin, 12 * mm, f"Page {document.page}")


def title_page() -> list[Flowable]:
    """The first page of the PDF."""
    return [
        Spacer(1, 70 * mm),
        Paragraph(COMPANY, TITLE),
        Paragraph("Operations Handbook", TITLE),
        Paragraph("Version 8.2. For everyone who works ashore or on board.", BODY),
    ]


def build_pdf(source: Path, target: Path) -> None:
    """Write the handbook as a PDF without dates or random identifiers in it."""
    document = SimpleDocTemplate(
        str(target),
        pagesize=A4,
        leftMargin=27 * mm,
        rightMargin=27 * mm,
        topMargin=22 * mm,
        bottomMargin=24 * mm,
        title=f"{COMPANY} Operations Handbook",
        author=COMPANY,
        lang="en",
        invariant=1,
    )
    story = title_page()
    for block in read_blocks(source):
        story.extend(pdf_flowables(block, document.width))
    document.build(story, onFirstPage=draw_footer, onLaterPages=draw_footer)


def add_docx_table(document: Any, block: Block) -> None:
    """Add a table with a grid to the DOCX."""
    table = document.add_table(rows=0, cols=len(block.rows[0]), style="Table Grid")
    for row in block.rows:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text
    document.add_paragraph()


def add_docx_block(document: Any, block: Block, title: bool) -> None:
    """Add one block to the DOCX; the first heading becomes the title."""
    if block.kind == "table":
        add_docx_table(document, block)
    elif block.kind == "heading":
        document.add_heading(block.text, level=0 if title else block.level)
    else:
        document.add_paragraph(block.text)


def set_docx_properties(document: Any) -> None:
    """Fix the properties that would otherwise hold the time of the build."""
    properties = document.core_properties
    properties.author = properties.last_modified_by = COMPANY
    properties.title = "People and Leave Guide"
    properties.comments = ""
    properties.created = properties.modified = FIXED_TIME
    properties.revision = 1


def with_fixed_times(package: bytes) -> bytes:
    """Copy a zip package with the same members and one fixed time for all of them."""
    result = io.BytesIO()
    stamp = FIXED_TIME.timetuple()[:6]
    with zipfile.ZipFile(io.BytesIO(package)) as old, zipfile.ZipFile(result, "w") as new:
        for name in old.namelist():
            info = zipfile.ZipInfo(name, date_time=stamp)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            new.writestr(info, old.read(name))
    return result.getvalue()


def build_docx(source: Path, target: Path) -> None:
    """Write the people guide as a DOCX with heading styles."""
    document = Document()
    for number, block in enumerate(read_blocks(source)):
        add_docx_block(document, block, title=number == 0)
    set_docx_properties(document)
    package = io.BytesIO()
    document.save(package)
    target.write_bytes(with_fixed_times(package.getvalue()))


def main() -> None:
    """Build both documents."""
    KNOWLEDGE.mkdir(exist_ok=True)
    build_pdf(SOURCE / "operations-handbook.md", KNOWLEDGE / "operations-handbook.pdf")
    build_docx(SOURCE / "people-and-leave.md", KNOWLEDGE / "people-and-leave.docx")


if __name__ == "__main__":
    main()

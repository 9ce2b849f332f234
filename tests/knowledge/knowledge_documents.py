"""Makers of real PDF and DOCX files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from docx import Document
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas


def make_pdf(pages: Sequence[Sequence[tuple[float, float, str]]], size: float = 11, **options: Any) -> bytes:
    """A PDF of (x, y, text) in points from the lower left; one sequence a page. A text `# x` is set large."""
    target = io.BytesIO()
    canvas = Canvas(target, pagesize=A4, invariant=1, **options)
    for lines in pages:
        for x, y, text in lines:
            large = text.startswith("# ")
            canvas.setFont("Helvetica-Bold" if large else "Helvetica", 18 if large else size)
            canvas.drawString(x, y, text.removeprefix("# "))
        canvas.showPage()
    canvas.save()
    return target.getvalue()


def pdf_lines(*texts: str, top: float = 780, leading: float = 14) -> list[tuple[float, float, str]]:
    """Lines below each other; an empty text is a blank line."""
    return [(72, top - leading * n, text) for n, text in enumerate(texts) if text]


def make_docx(fill: Callable[[Any], None]) -> bytes:
    document = Document()
    fill(document)
    target = io.BytesIO()
    document.save(target)
    return target.getvalue()

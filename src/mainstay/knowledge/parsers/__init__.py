"""Parsers by file ending. A new format is one new file here, imported below, and its test."""

from mainstay.knowledge.parsers import delimited, docx, html, markdown, pdf, plain
from mainstay.knowledge.parsers.base import (
    ParseError,
    Parser,
    fingerprint_of,
    media_type_of,
    parser_for,
    registry,
)

__all__ = [
    "ParseError",
    "Parser",
    "delimited",
    "docx",
    "fingerprint_of",
    "html",
    "markdown",
    "media_type_of",
    "parser_for",
    "pdf",
    "plain",
    "registry",
]

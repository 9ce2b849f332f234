"""What every parser is: bytes in, canonical text with its map of pages and headings out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import ClassVar, Protocol

from mainstay.core.errors import InvalidInput
from mainstay.core.registry import Registry
from mainstay.knowledge.types import ParsedText


class ParseError(InvalidInput):
    """This document cannot be read: the reason and the fix are shown beside its name."""

    code = "document_unreadable"


class Parser(Protocol):
    """Reads one kind of document. Parsers keep no state and never look at anything but the bytes.

    `media_types` maps file endings to media types. `version` goes into the pipeline's fingerprint: raise
    it whenever the text made from the same bytes changes. `isolated` parsers run in the worker process.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    media_types: ClassVar[Mapping[str, str]]
    isolated: ClassVar[bool]

    def parse(self, data: bytes, uri: str) -> ParsedText:
        """Raises ParseError for a document it cannot read."""
        ...


registry: Registry[Parser] = Registry("parser", "mainstay.parsers")


def with_library(own: str, *libraries: str) -> str:
    """Our version of a parser together with those of the libraries it stands on: `1+pypdfium2-5.15.2`."""
    return "+".join([own, *(f"{library}-{version(library)}" for library in libraries)])


def ending(uri: str) -> str:
    return PurePosixPath(uri).suffix.lower()


def title_from_uri(uri: str) -> str:
    """A readable title for a document that has none: `leave-policy_2025.csv` → `leave policy 2025`."""
    return " ".join(PurePosixPath(uri).stem.replace("-", " ").replace("_", " ").split())


def parser_for(uri: str) -> Parser | None:
    """The parser of this file's ending, or None."""
    return next((p for p in map(registry.get, registry) if ending(uri) in p.media_types), None)


def media_type_of(parser: Parser, uri: str) -> str:
    return parser.media_types[ending(uri)]


def fingerprint_of(parser: Parser) -> str:
    return f"{parser.name}/{parser.version}"

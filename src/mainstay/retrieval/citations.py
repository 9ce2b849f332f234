"""Citations: a sentence of an answer tied to an exact span of an immutable document version."""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.core.errors import InvalidInput
from mainstay.retrieval.types import Citation, Passage, Support


def cite(support: Support, passages: Sequence[Passage]) -> Citation:
    """The citation of what supports a sentence. Raises InvalidInput when nothing does, or the passage is not given."""
    if support.passage is None or support.start is None or support.end is None:
        raise InvalidInput("Nothing supports this sentence, so there is nothing to cite.")
    passage = next((one for one in passages if one.number == support.passage), None)
    if passage is None:
        raise InvalidInput(f"Passage {support.passage} is not among the passages given.")
    return Citation(
        number=passage.number,
        version_id=passage.version_id,
        uri=passage.uri,
        title=passage.title,
        version_number=passage.version_number,
        page=passage.page_at(support.start),
        heading_path=passage.heading_path,
        start=support.start,
        end=support.end,
        quote=passage.text[support.start - passage.start : support.end - passage.start],
        score=support.score,
    )


def verify_citation(citation: Citation, version_text: str) -> bool:
    """Is the quote, letter for letter, the cited span of the version's canonical text (and not empty)?"""
    within = 0 <= citation.start < citation.end <= len(version_text)
    return within and version_text[citation.start : citation.end] == citation.quote

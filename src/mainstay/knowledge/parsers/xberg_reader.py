"""The one place that calls xberg: bytes in, its document out. No network, no cache, no recognition of images."""

from __future__ import annotations

import asyncio
from typing import Any

from mainstay.knowledge.parsers.base import ParseError

EXTRACT_TIME_S = 60


def read_with_xberg(data: bytes, media_type: str, structure: bool) -> Any:
    """xberg's ExtractedDocument. Raises ParseError when it cannot read the bytes."""
    import xberg

    config = xberg.ExtractionConfig(
        use_cache=False,
        disable_ocr=True,
        enable_quality_processing=False,
        extraction_timeout_secs=EXTRACT_TIME_S,
        include_document_structure=structure,
    )
    source = xberg.ExtractInput(kind="bytes", bytes=data, mime_type=media_type)
    try:
        # xberg raises RuntimeError for what it cannot parse, and its own errors derive from Exception.
        results = asyncio.run(_extract(source, config)).results
    except (RuntimeError, ValueError, xberg.XbergError) as error:
        raise ParseError(f"The file is damaged: {error}.", fix="Open it and save it again.") from error
    if not results:
        raise ParseError("The file holds no document.", fix="Open it and save it again.")
    return results[0]


async def _extract(source: Any, config: Any) -> Any:
    import xberg

    return await xberg.extract(source, config)

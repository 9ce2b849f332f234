"""The books at the end: what the journal holds, what traces say each key spent, and which traces are on record."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from mainstay.observe import Spool
from mainstay.observe.codec import decode_spans
from mainstay.observe.types import Attr
from mainstay.serving.limits import Journal
from mainstay.serving.limits.replay import Replay


@dataclass(slots=True)
class Books:
    """Nano-dollars by key id. `left_open`: holds that nobody settled. `recorded`: ids of traces on record."""

    left_open: int
    spent: dict[str, int]
    traced: dict[str, int] = field(default_factory=dict)
    recorded: set[str] = field(default_factory=set)


def read_books(data: Path, scratch: Path) -> Books:
    """Read copies: the gateway may still run."""
    copied = shutil.copytree(data / "ledger", scratch / "ledger", ignore=shutil.ignore_patterns("*.lock"))
    journal = Journal(copied / "journal.jsonl")
    try:
        replay = Replay(journal.entries())
    finally:
        journal.close()
    spent: defaultdict[str, int] = defaultdict(int)
    for (kind, scope, _), nusd in replay.spent.items():
        if kind == "key":
            spent[scope] += nusd
    books = Books(replay.left_open, dict(spent))
    _read_traces(shutil.copytree(data / "observe" / "spool", scratch / "spool"), books)
    return books


def _read_traces(folder: Path, books: Books) -> None:
    """A trace's cost is that of all its spans; its key is told by its root."""
    spool, position = Spool(folder), {}
    cost_nusd: defaultdict[str, int] = defaultdict(int)
    keys: dict[str, str] = {}
    while (batch := spool.read_from(position)).payloads:
        position = dict(batch.position)
        for span in (s for payload in batch.payloads for s in decode_spans(payload)):
            cost, key = span.attributes.get(Attr.COST_NUSD), span.attributes.get(Attr.KEY)
            cost_nusd[span.trace_id] += cost if isinstance(cost, int) else 0
            if span.parent_id is None:
                books.recorded.add(span.trace_id)
                keys[span.trace_id] = str(key)
    spool.close()
    for trace_id, key in keys.items():
        books.traced[key] = books.traced.get(key, 0) + cost_nusd[trace_id]

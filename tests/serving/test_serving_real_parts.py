"""The whole data plane on the real layers below it: documents, index, local models, releases, keys, traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from mainstay.core.content import BlobStore
from mainstay.core.database import Database, read_change_counter
from mainstay.delivery import Delivery, load_project
from mainstay.govern import SYSTEM, KeyStore
from mainstay.guard import Guard
from mainstay.knowledge import ChunkSettings, FolderSource, Library
from mainstay.models import Catalog, EngineSettings, ModelsConfig
from mainstay.observe import Drain, Recorder, Spool, TraceFilter, TraceStore
from mainstay.retrieval import ExtractiveSelector, GroundingScorer, Indexes, MiniLmEmbedder
from mainstay.serving import (
    Deps,
    Dispatcher,
    ExactCache,
    Gateway,
    Journal,
    MemoryLimiter,
    Router,
    SnapshotHolder,
    app_caller,
    build_snapshot,
    replay,
)

pytestmark = pytest.mark.model

PROJECT = """project: ferries
knowledge:
  handbook: {paths: [knowledge/]}
prompts: {answer: prompts/answer.md}
policies: {careful: policies/careful.yaml}
apps:
  bot: {prompt: answer, model: local/smollm2, corpus: handbook, policy: careful, generation: {max_tokens: 48}}
  extracts: {prompt: answer, model: local/extractive, corpus: handbook, policy: careful}
"""
PROMPT = """---
variables: {question: string, passages: passages}
---
# system
Answer the question in one short sentence. Use only the numbered passages.

# user
{% for p in passages %}[{{ p.number }}] {{ p.text }}
{% endfor %}
Question: {{ question }}
"""
POLICY = """input: {injection: block, pii: mask}
context: {injection: drop}
output: {secrets: mask}
grounding: {unsupported: remove}
"""
HANDBOOK = """# Check-in

Cars must check in at least 30 minutes before departure. Foot passengers check in 15 minutes before departure.

# Safety

A near miss must be reported to the control room within 24 hours. Whoever sees it writes the report.
"""
QUESTION = "How long before departure must cars check in?"


@dataclass
class Whole:
    deps: Deps
    keys: KeyStore
    store: TraceStore
    recorder: Recorder
    drain: Drain
    embedder: MiniLmEmbedder
    library: Library

    async def trace(self, trace_id: str) -> list[Any]:
        """The stored trace, once recorder and drain have passed it on."""
        await asyncio.to_thread(self.recorder.flush)
        await asyncio.to_thread(self.drain.flush)
        return self.store.get(trace_id)


@pytest.fixture
async def whole(tmp_path: Path, sqlite_database: Database, models_dir: Path) -> AsyncIterator[Whole]:
    folder = _project(tmp_path / "project")
    library = Library(sqlite_database, BlobStore(tmp_path / "blobs"))
    snapshot = library.sync(
        SYSTEM, "handbook", FolderSource([folder / "knowledge"]), ChunkSettings()
    ).snapshot
    embedder = MiniLmEmbedder.load(models_dir)
    indexes = Indexes(tmp_path / "index", library, embedder)
    indexes.build(snapshot.id)
    delivery = Delivery(sqlite_database, library)
    delivery.apply(SYSTEM, load_project(folder), {"handbook": snapshot.id}, "first")
    catalog = Catalog(ModelsConfig(), models_dir, {}, EngineSettings(), ExtractiveSelector(embedder))
    keys = KeyStore(sqlite_database, b"k" * 32)
    keys.create(SYSTEM, "ci")
    store = TraceStore(tmp_path / "traces")
    spool = Spool(tmp_path / "spool")
    recorder, drain = Recorder(spool), Drain(spool, store)
    names = [info.name for info in catalog.names()]
    counter = read_change_counter(sqlite_database)
    deps = Deps(
        snapshots=SnapshotHolder(build_snapshot(counter, keys.active(), delivery.runnables(), names)),
        models=catalog,
        retriever=indexes,
        scorer=GroundingScorer.load(),
        guard=Guard.load(),
        version_text=lambda version_id: library.version(version_id).text,
        dispatcher=Dispatcher(Router(), catalog.route),
        limiter=MemoryLimiter(Journal(tmp_path / "ledger.journal")),
        cache=ExactCache(),
        sink=recorder,
    )
    yield Whole(deps, keys, store, recorder, drain, embedder, library)
    await catalog.close()
    await deps.limiter.close()
    recorder.close()
    drain.close()
    spool.close()
    store.close()


def _project(folder: Path) -> Path:
    files = {
        "mainstay.yaml": PROJECT,
        "prompts/answer.md": PROMPT,
        "policies/careful.yaml": POLICY,
        "knowledge/handbook.md": HANDBOOK,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


async def test_the_sources_own_sentence_answers_and_is_cited_exactly(whole: Whole) -> None:
    answer = await app_caller(whole.deps, SYSTEM)("extracts@production", QUESTION)
    assert answer.error is None
    assert answer.text.startswith("Cars must check in at least 30 minutes before departure. [1]")
    assert (answer.answered_by, answer.cost_nusd) == ("local/extractive", 0)
    citation = answer.citations[0]
    text = whole.library.version(citation["version_id"]).text
    assert text[citation["start"] : citation["end"]] == citation["quote"]


async def test_a_question_outside_the_sources_is_refused(whole: Whole) -> None:
    answer = await app_caller(whole.deps, SYSTEM)("extracts", "Who won the chess championship of 1972?")
    assert (answer.error, answer.refused, answer.text) == (None, True, "The sources do not say.")


async def test_a_local_model_answers_over_the_sdk_grounded_and_traced(serve: Any, whole: Whole) -> None:
    _, token = whole.keys.create(SYSTEM, "sdk")
    snapshot = whole.deps.snapshots.current
    whole.deps.snapshots.swap(build_snapshot(2, whole.keys.active(), snapshot.runnables, snapshot.models))
    gateway = Gateway(whole.deps, whole.keys.hash_token, embedder=whole.embedder)
    url = await serve(gateway)
    async with openai.AsyncOpenAI(base_url=url, api_key=token.reveal(), max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(
            model="bot",
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [c async for c in stream]
        vectors = await sdk.embeddings.create(model="minilm", input=["ferry", "boat"])
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    extension = chunks[-2].mainstay  # type: ignore[attr-defined]
    assert text.endswith("]")  # whatever so small a model says, only what the sources hold is shown
    assert all(c["quote"] in HANDBOOK for c in extension["citations"])
    assert extension["citations"][0]["document"] == "handbook.md"
    assert extension["answered_by"] in ("local/smollm2", "local/extractive")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > 0
    assert len(vectors.data) == 2
    spans = await whole.trace(extension["trace_id"])
    assert {"guard.input", "retrieve", "render", "ground"} <= {s.name for s in spans}
    row = whole.store.list(TraceFilter(app="bot"), None, 10)[0]
    assert (row.question, row.answer, row.status) == (QUESTION, text, "ok")
    assert (row.release, row.environment, row.cost_nusd) == (1, "production", 0)
    assert row.input_tokens
    again = await replay(spans, whole.deps, SYSTEM, on="extracts")
    assert (again.question, again.original.text) == (QUESTION, text)
    assert again.again.answered_by == "local/extractive"

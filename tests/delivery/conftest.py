from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mainstay.core.content import BlobStore
from mainstay.core.database import Database
from mainstay.delivery import Delivery
from mainstay.govern import SYSTEM
from mainstay.knowledge import FolderSource, Library

PROMPT = """---
description: Answer from the passages.
variables:
  question: string
  passages: passages
---
# system
Answer in one sentence.

# user
{% for p in passages %}[{{ p.number }}] {{ p.text }}
{% endfor %}Question: {{ question }}
"""

PROJECT = """project: handbook
knowledge:
  handbook:
    paths: [knowledge/]
prompts:
  answer: prompts/answer.md
policies:
  careful: policies/careful.yaml
apps:
  bot:
    prompt: answer
    model: local/smollm2
    corpus: handbook
    policy: careful
    retrieval: {mode: hybrid, top_k: 3}
    generation: {temperature: 0, max_tokens: 120}
"""

POLICY = """output:
  secrets: mask
grounding:
  unsupported: remove
"""


class ProjectFolder:
    """A project on disk whose files a test rewrites."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        self.write(name, text.replace(old, new))


@pytest.fixture
def folder(tmp_path: Path) -> ProjectFolder:
    folder = ProjectFolder(tmp_path / "project")
    folder.write("mainstay.yaml", PROJECT)
    folder.write("prompts/answer.md", PROMPT)
    folder.write("policies/careful.yaml", POLICY)
    folder.write("knowledge/leave.md", "# Leave\n\nStaff have thirty days of leave a year.\n")
    return folder


@pytest.fixture
def library(database: Database, tmp_path: Path) -> Library:
    return Library(database, BlobStore(tmp_path / "blobs"))


@pytest.fixture
def delivery(database: Database, library: Library) -> Delivery:
    return Delivery(database, library)


@pytest.fixture
def ingest(folder: ProjectFolder, library: Library) -> Callable[[], dict[str, str]]:
    """Sync the project's corpus; corpus → snapshot id, as apply takes it."""

    def ingest() -> dict[str, str]:
        report = library.sync(SYSTEM, "handbook", FolderSource([folder.root / "knowledge"]))
        return {"handbook": report.snapshot.id}

    return ingest

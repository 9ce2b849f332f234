"""A library on each database, and a folder to sync from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mainstay.core.content import BlobStore
from mainstay.core.database import Database
from mainstay.govern import SYSTEM, Identity
from mainstay.knowledge import ChunkSettings, FolderSource, Library, SyncReport


@pytest.fixture
def library(database: Database, tmp_path: Path) -> Library:
    return Library(database, BlobStore(tmp_path / "blobs"))


@pytest.fixture
def sqlite_library(sqlite_database: Database, tmp_path: Path) -> Library:
    return Library(sqlite_database, BlobStore(tmp_path / "blobs"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    return folder


@pytest.fixture
def actor() -> Identity:
    return SYSTEM


@pytest.fixture
def sync(folder: Path, actor: Identity) -> Callable[[Library], SyncReport]:
    return lambda library: library.sync(actor, "handbook", FolderSource([folder]), ChunkSettings())

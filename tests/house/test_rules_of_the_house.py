"""Rules that hold for the whole tree, checked on the tree itself."""

import subprocess
import sys
from pathlib import Path

import alembic.autogenerate
import pytest
from alembic.migration import MigrationContext

import mainstay.app  # noqa: F401 - brings every layer's tables
from mainstay.core.config import SPECS
from mainstay.core.database import Database, metadata

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LINES_MAX = 500


def test_layers_import_downward_only() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_no_source_file_has_grown_into_a_system(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


def test_the_migrations_make_exactly_the_tables_that_the_code_declares(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = alembic.autogenerate.compare_metadata(context, metadata)
    assert differences == []


@pytest.mark.parametrize("name", list(SPECS))
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "reference" / "settings.md").read_text()


def test_no_tracked_text_names_a_registry_host_or_a_machine_path() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    hosts = [b"files.python" + b"hosted.org", b"registry.npm" + b"js.org", b"deb.debian" + b".org"]
    for name in listed.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path.suffix not in (".png", ".pdf", ".docx", ".npz"):
            content = path.read_bytes()
            assert not [h for h in hosts if h in content], name

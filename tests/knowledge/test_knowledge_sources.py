from __future__ import annotations

import os
from pathlib import Path

import pytest

from mainstay.core.errors import InvalidInput
from mainstay.knowledge import FolderSource
from mainstay.knowledge.sources.globs import matcher


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def uris(source: FolderSource) -> list[str]:
    return [file.uri for file in source.list().files]


def test_a_folder_lists_its_files_below_and_skips_hidden_ones(folder: Path) -> None:
    write(folder, "b.md", "a/c.md", "a/b/d.txt", ".hidden.md", ".git/config", "a/.x/y.md")

    listing = FolderSource([folder], labels=frozenset({"staff"})).list()

    assert [f.uri for f in listing.files] == ["a/b/d.txt", "a/c.md", "b.md"]
    assert listing.files[0].read() == b"a/b/d.txt"
    assert listing.files[0].labels == {"staff"}
    assert listing.failed == ()


def test_globs_choose_files(folder: Path) -> None:
    write(folder, "a.md", "x/b.md", "x/drafts/c.md", "x/d.txt")

    assert uris(FolderSource([folder], include=["*.md"], exclude=["drafts/"])) == ["a.md", "x/b.md"]
    assert uris(FolderSource([folder], include=["x/*.md"])) == ["x/b.md"]
    assert uris(FolderSource([folder], include=["**/*.md"], exclude=["x/**"])) == ["a.md"]


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**/*", "a", True),
        ("**/*", "a/b", True),
        ("*.md", "a/b.md", True),
        ("/*.md", "a/b.md", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/*", "a/b/c", False),
        ("[ab].md", "b.md", True),
        ("[!ab].md", "b.md", False),
        ("a?.md", "a.md", False),
        ("drafts/", "x/drafts/y/z.md", True),
        ("a+b(1).md", "a+b(1).md", True),
    ],
)
def test_a_glob_means_what_people_expect(pattern: str, path: str, matches: bool) -> None:
    assert matcher([pattern])(path) is matches


def test_links_that_lead_outside_are_not_read(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, "secret.md", "documents/real.md", "outside/x.md")
    (folder / "evil.md").symlink_to(tmp_path / "secret.md")
    (folder / "inside.md").symlink_to(folder / "real.md")
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "dangling.md").symlink_to(folder / "nothing.md")
    os.mkfifo(folder / "pipe.md")

    listing = FolderSource([folder]).list()

    assert [f.uri for f in listing.files] == ["inside.md", "real.md"]
    assert [f.uri for f in listing.failed] == ["dangling.md"]


def test_equal_paths_of_two_folders_get_the_name_of_their_folder(tmp_path: Path) -> None:
    write(tmp_path, "one/docs/a.md", "one/docs/b.md", "two/docs/a.md", "c.md")

    source = FolderSource([tmp_path / "one/docs", tmp_path / "two/docs", tmp_path / "c.md"])

    assert uris(source) == ["b.md", "c.md", "one/docs/a.md", "two/docs/a.md"]


def test_large_files_are_listed_as_failed(folder: Path) -> None:
    (folder / "big.md").write_bytes(b"x" * 101)
    write(folder, "small.md")

    listing = FolderSource([folder], size_limit_bytes=100).list()

    assert [f.uri for f in listing.files] == ["small.md"]
    assert listing.failed[0].uri == "big.md"
    assert "101" in listing.failed[0].reason
    assert listing.failed[0].fix


def test_a_missing_folder_is_an_error_and_never_an_empty_corpus(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no folder"):
        FolderSource([tmp_path / "nowhere"]).list()

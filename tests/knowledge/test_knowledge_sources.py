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
    assert [f.uri for f in listing.failed] == ["dangling.md", "evil.md", "linked", "pipe.md"]
    assert all(f.reason and f.fix for f in listing.failed)


def test_links_in_a_circle_fail_alone(folder: Path) -> None:
    write(folder, "a.md")
    (folder / "one.md").symlink_to("two.md")
    (folder / "two.md").symlink_to("one.md")
    (folder / "here").symlink_to(".")

    listing = FolderSource([folder]).list()

    assert [f.uri for f in listing.files] == ["a.md"]
    assert [f.uri for f in listing.failed] == ["here", "one.md", "two.md"]


def test_of_two_names_that_are_written_alike_one_is_read_and_one_is_reported(folder: Path) -> None:
    write(folder, "\u00e9.md", "e\u0301.md", "x.md")

    listing = FolderSource([folder]).list()

    assert [f.uri for f in listing.files] == ["x.md", "\u00e9.md"]
    assert [f.uri for f in listing.failed] == ["\u00e9.md"]


def test_control_characters_of_a_name_are_shown_as_escapes(folder: Path) -> None:
    write(folder, "two\nlines.md", "colour\x1b[31m.md")

    listing = FolderSource([folder]).list()

    assert [f.uri for f in listing.files] == ["colour\\x1b[31m.md", "two\\x0alines.md"]
    assert listing.files[1].read() == b"two\nlines.md"


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(folder: Path) -> None:
    write(folder, "a.md")
    (file,) = FolderSource([folder]).list().files
    (folder / "a.md").unlink()
    os.mkfifo(folder / "a.md")

    with pytest.raises(InvalidInput, match="pipe"):
        file.read()


def test_equal_paths_of_two_folders_get_the_name_of_their_folder(tmp_path: Path) -> None:
    write(tmp_path, "one/docs/a.md", "one/docs/b.md", "two/docs/a.md", "c.md")

    source = FolderSource([tmp_path / "one/docs", tmp_path / "two/docs", tmp_path / "c.md"])

    assert uris(source) == ["b.md", "c.md", "one/docs/a.md", "two/docs/a.md"]


def test_a_file_that_is_named_beside_its_folder_is_listed_once(folder: Path) -> None:
    write(folder, "a.md", "b.md")

    listing = FolderSource([folder, folder / "a.md"]).list()

    assert ([f.uri for f in listing.files], listing.failed) == (["a.md", "b.md"], ())


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

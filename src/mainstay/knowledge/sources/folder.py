"""Folders of files as a source. Hidden files and links that lead outside are never read."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mainstay.core.errors import InvalidInput, TooLarge
from mainstay.knowledge.sources.globs import matcher
from mainstay.knowledge.types import FailedDocument, SourceFile, SourceListing

SIZE_LIMIT_BYTES = 64 * 1024 * 1024
URI_CHARS_MAX = 1000
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_COPY_INSTEAD = "Put a copy in its place, or leave it out with an exclude pattern."
_NO_FILE = "It is no file but a pipe, a socket or a device."


@dataclass(frozen=True, slots=True)
class _Found:
    root: Path
    path: Path
    relative: str
    size_bytes: int


class FolderSource:
    """Files below one or several folders (a path may also be one file).

    `uri` is the path relative to its folder; where two folders hold the same one, the folder's name goes
    in front. `include` and `exclude` are globs on the relative path; a pattern without a slash matches in
    every folder. Linked folders are not entered, linked files are read when they lie in the same folder tree.
    Raises InvalidInput for a path that does not exist, so that a lost mount never looks like an empty corpus.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        include: Sequence[str] = ("**/*",),
        exclude: Sequence[str] = (),
        labels: frozenset[str] = frozenset(),
        size_limit_bytes: int = SIZE_LIMIT_BYTES,
    ) -> None:
        if not paths:
            raise InvalidInput(
                "A folder source needs at least one path.", fix="Name the folder of documents."
            )
        self._paths = tuple(dict.fromkeys(Path(path).absolute() for path in paths))
        self._included = matcher(include)
        self._excluded = matcher(exclude)
        self._labels = labels
        self._limit = size_limit_bytes

    def list(self) -> SourceListing:
        """All files now, sorted by uri; what is too large or cannot be reached is listed as failed."""
        found: list[_Found] = []
        failed: list[FailedDocument] = []
        for root in self._paths:
            for item in self._walk(root):
                (found if isinstance(item, _Found) else failed).append(item)  # type: ignore[arg-type]
        files = []
        taken: dict[str, Path] = {}
        for uri, item in self._named(list(dict.fromkeys(found))):
            problem = self._problem(uri, item, taken.setdefault(uri, item.path))
            if problem is not None:
                failed.append(problem)
            else:
                read = partial(_read, item.path, self._limit)
                files.append(SourceFile(uri, item.size_bytes, self._labels, read))
        return SourceListing(
            tuple(sorted(files, key=lambda f: f.uri)), tuple(sorted(failed, key=lambda f: f.uri))
        )

    def _walk(self, root: Path) -> Iterator[_Found | FailedDocument]:
        if not root.exists():
            raise InvalidInput(f"There is no folder or file {root}.", fix="Check the path of the corpus.")
        if root.is_file():
            yield from self._look(root.parent, root, root.parent.resolve())
            return
        resolved = root.resolve()
        unreachable: list[OSError] = []
        for folder, names, files in os.walk(root, onerror=unreachable.append):
            names[:] = sorted(name for name in names if not name.startswith("."))
            links = [name for name in names if (Path(folder) / name).is_symlink()]
            for name in sorted([*files, *links]):
                if not name.startswith("."):
                    yield from self._look(root, Path(folder) / name, resolved)
        for error in unreachable:
            where = Path(os.fsdecode(error.filename or root))
            if where == root:
                raise InvalidInput(f"{root} cannot be read: {error.strerror}.", fix="Check its permissions.")
            yield FailedDocument(
                _uri(where.relative_to(root)), f"{error.strerror}.", "Check its permissions."
            )

    def _look(self, root: Path, path: Path, resolved_root: Path) -> Iterator[_Found | FailedDocument]:
        relative = _uri(path.relative_to(root))
        if not self._included(relative) or self._excluded(relative):
            return
        try:
            status = path.stat()  # before `resolve`, which has an error of its own for links in a circle
            if path.is_symlink() and not path.resolve(strict=True).is_relative_to(resolved_root):
                yield FailedDocument(relative, "It is a link that leads out of its folder.", _COPY_INSTEAD)
            elif stat.S_ISREG(status.st_mode):
                yield _Found(root, path, relative, status.st_size)
            elif stat.S_ISDIR(status.st_mode):
                yield FailedDocument(
                    relative, "It is a link to a folder; those are not entered.", _COPY_INSTEAD
                )
            else:
                yield FailedDocument(relative, _NO_FILE, "Leave it out with an exclude pattern.")
        except OSError as error:
            yield FailedDocument(relative, f"{error.strerror}.", "Check the file and its permissions.")

    def _problem(self, uri: str, item: _Found, bearer: Path) -> FailedDocument | None:
        """Why a file is not offered; `bearer` is the first file of that uri."""
        if item.path != bearer:
            reason = f"Another file has the same name once written alike: {bearer.name!a}."
            return FailedDocument(uri, reason, "Rename one of them, or give them to two corpora.")
        if item.size_bytes > self._limit:
            reason = f"The file has {item.size_bytes:,} bytes; the limit is {self._limit:,}."
            return FailedDocument(uri, reason, "Split it, or leave it out with an exclude pattern.")
        if len(uri) > URI_CHARS_MAX:
            shown = f"{uri[:80]}…"
            return FailedDocument(shown, f"Its path has more than {URI_CHARS_MAX} characters.", "Shorten it.")
        return None

    def _named(self, found: Sequence[_Found]) -> Iterator[tuple[str, _Found]]:
        """(uri, file): the relative path, with its folder's name where another folder has the same path."""
        counts = Counter(relative for _, relative in {(item.root, item.relative) for item in found})
        names = _distinct_names(self._paths)
        for item in found:
            clash = counts[item.relative] > 1
            yield f"{names[item.root]}/{item.relative}" if clash else item.relative, item


def _uri(path: Path) -> str:
    """NFC with slashes; control characters, and bytes of a name that are no text, are shown as escapes."""
    shown = os.fsencode(path.as_posix()).decode("utf-8", errors="backslashreplace")
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", unicodedata.normalize("NFC", shown))


def _distinct_names(roots: Sequence[Path]) -> dict[Path, str]:
    """The last parts of each root's path, as many as it takes to tell the roots apart."""
    folders = list(dict.fromkeys(root.parent if root.is_file() else root for root in roots))
    depth = 1
    while len({root.parts[-depth:] for root in folders}) < len(folders):
        depth += 1
    return {root: "/".join(part for part in root.parts[-depth:] if part != "/") for root in folders}


def _read(path: Path, limit: int) -> bytes:
    # A pipe that took the file's place must not make us wait for its writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidInput(_NO_FILE, fix="Leave it out with an exclude pattern.")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(f"The file grew beyond the limit of {limit:,} bytes.", fix="Split it.")
    return data

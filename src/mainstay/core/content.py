"""Content addressing: canonical bytes, SHA-256 digests, and a store of blobs by digest."""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NewType

import orjson

from mainstay.core.errors import InvalidInput, NotFound

Digest = NewType("Digest", str)
"""`sha256:` and 64 hex digits."""


def canonical_json(value: Any) -> bytes:
    """One byte string per JSON value: sorted keys, no spaces, NFC strings, no NaN.

    Floats must be finite; integers fit in 64 bits. Raises InvalidInput otherwise.
    """
    try:
        return orjson.dumps(_normal(value), option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise InvalidInput(f"This value has no canonical JSON form: {error}.") from error


def _normal(value: Any) -> Any:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        return {unicodedata.normalize("NFC", str(k)): _normal(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(v) for v in value]
    if isinstance(value, float) and not (value - value == 0):  # NaN and infinities
        raise InvalidInput(f"{value!r} has no canonical JSON form.")
    return value


def digest_bytes(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_json(value: Any) -> Digest:
    """The digest of a value's canonical JSON."""
    return digest_bytes(canonical_json(value))


def short(digest: str) -> str:
    """`sha256:ab12…` cut to 12 hex digits for people."""
    return digest.removeprefix("sha256:")[:12]


class BlobStore:
    """Immutable bytes in files named by their digest, two directory levels deep.

    `put` is atomic (write beside, fsync, rename): after a crash a blob is whole or absent.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        if len(name) != 64 or not all(c in "0123456789abcdef" for c in name):
            raise InvalidInput(f"{digest!r} is no SHA-256 digest.")
        return self._root / name[:2] / name

    def put(self, data: bytes) -> Digest:
        digest = digest_bytes(data)
        path = self._path(digest)
        if not path.exists():
            write_atomically(path, data)
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes; raises NotFound when absent or when they no longer match their digest."""
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"No stored bytes with digest {short(digest)}.") from error
        if digest_bytes(data) != digest:
            raise NotFound(
                f"The stored bytes of {short(digest)} are damaged.",
                fix="Restore the data folder from a backup, or ingest the source again.",
            )
        return data

    def __contains__(self, digest: str) -> bool:
        return self._path(digest).exists()

    def delete(self, digest: str) -> bool:
        """Remove a blob; False when it was not there."""
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def __iter__(self) -> Iterator[Digest]:
        for path in sorted(self._root.glob("??/*")):
            if len(path.name) == 64:
                yield Digest("sha256:" + path.name)


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file or nothing: temporary file in the same folder, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

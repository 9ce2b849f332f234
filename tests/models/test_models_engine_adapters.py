"""LoRA adapters: taken in with their base, served by its process, chosen by each call."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mainstay.cli.main import app
from mainstay.core.errors import Conflict, InvalidInput, NotFound
from mainstay.models import Catalog, ChatCall, ChatMessage, EngineSettings, ModelsConfig, install
from mainstay.models.engine import read_facts
from mainstay.models.providers import LlamaCpp

WIDTH, RANK = 576, 4
"""Of SmolLM2-135M's attention; the adapter's rank."""


def _text(words: str) -> bytes:
    return struct.pack("<Q", len(words)) + words.encode()


def _pair(key: str, value: str | float) -> bytes:
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", 8) + _text(value)
    return _text(key) + struct.pack("<If", 6, value)


def write_lora(
    path: Path,
    *,
    seed: int = 1,
    architecture: str = "llama",
    kind: str = "lora",
    tensor: str = "blk.0.attn_output.weight",
    width: int = WIDTH,
) -> Path:
    """A LoRA adapter of random small matrices for one weight, as converters write it (GGUF specification)."""
    rng = np.random.default_rng(seed)
    halves = {
        f"{tensor}.lora_a": rng.normal(0, 0.5, (RANK, width)).astype(
            np.float32
        ),  # rows are the slower dimension
        f"{tensor}.lora_b": rng.normal(0, 0.5, (width, RANK)).astype(np.float32),
    }
    pairs = [
        _pair("general.type", "adapter"),
        _pair("general.architecture", architecture),
        _pair("adapter.type", kind),
        _pair("adapter.lora.alpha", 16.0),
    ]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(halves), len(pairs)) + b"".join(pairs)
    offset = 0
    for name, values in halves.items():
        head += _text(name) + struct.pack("<I2QIQ", 2, values.shape[1], values.shape[0], 0, offset)
        offset += values.nbytes
    body = b"".join(values.tobytes() for values in halves.values())
    path.write_bytes(head + bytes(-len(head) % 32) + body)
    return path


@pytest.fixture
def folder(models_dir: Path, tmp_path: Path) -> Path:
    """A models folder of its own that holds SmolLM2."""
    if not (models_dir / "smollm2" / "model.json").exists():
        pytest.skip("needs the model: mainstay models add smollm2")
    (tmp_path / "models").mkdir()
    shutil.copytree(
        models_dir / "smollm2",
        tmp_path / "models" / "smollm2",
        copy_function=lambda source, target: Path(target).symlink_to(source),
    )
    return tmp_path / "models"


def test_what_a_file_says_of_itself_is_read_without_loading_it(folder: Path, tmp_path: Path) -> None:
    model = read_facts(next((folder / "smollm2").glob("*.gguf")))
    adapter = read_facts(write_lora(tmp_path / "a.gguf"))

    assert (model.architecture, model.is_adapter, model.context_tokens) == ("llama", False, 8192)
    assert model.kv_bytes_per_token == 30 * 3 * (64 + 64) * 2
    assert not model.takes_tools
    assert model.tensors["blk.0.attn_output.weight"] == (WIDTH, WIDTH)
    assert (adapter.architecture, adapter.is_adapter, adapter.adapter_type) == ("llama", True, "lora")
    assert adapter.tensors["blk.0.attn_output.weight.lora_a"] == (WIDTH, RANK)


def test_an_adapter_is_added_to_its_base_and_keeps_it(folder: Path, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "tuned.gguf")

    added = install.add(str(path), folder, base="smollm2", called="smollm2-support")

    assert (added.name, added.kind, added.base) == ("smollm2-support", "adapter", "smollm2")
    assert install.add(str(path), folder, base="smollm2", called="smollm2-support") == added
    with pytest.raises(Conflict, match="smollm2-support"):
        install.remove("smollm2", folder)
    install.remove("smollm2-support", folder)
    install.remove("smollm2", folder)
    assert install.installed(folder) == ()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"architecture": "qwen2"}, "for 'qwen2' models"),
        ({"kind": "dora"}, "only lora is known"),
        ({"width": 1024}, "is for 1024 values; 'smollm2' has 576"),
        ({"tensor": "blk.99.attn_output.weight"}, "has none"),
    ],
    ids=["architecture", "kind", "width", "tensor"],
)
def test_an_adapter_that_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, changed: dict[str, object], why: str
) -> None:
    path = write_lora(tmp_path / "wrong.gguf", **changed)  # type: ignore[arg-type]

    with pytest.raises(InvalidInput, match=why):
        install.add(str(path), folder, base="smollm2")

    assert [model.name for model in install.installed(folder)] == ["smollm2"]


def test_an_adapter_needs_a_base_and_a_model_takes_none(folder: Path, tmp_path: Path) -> None:
    adapter = str(write_lora(tmp_path / "a.gguf"))
    model = str(next((folder / "smollm2").glob("*.gguf")))

    with pytest.raises(InvalidInput, match="--base NAME"):
        install.add(adapter, folder)
    with pytest.raises(NotFound, match="smollm3"):
        install.add(adapter, folder, base="smollm3")
    with pytest.raises(InvalidInput, match="no adapter"):
        install.add(model, folder, base="smollm2")
    with pytest.raises(InvalidInput, match="cannot be called"):
        install.add(adapter, folder, base="smollm2", called="../elsewhere")
    with pytest.raises(InvalidInput, match=r"no \.gguf file"):
        install.add("minilm", folder, called="mine")


def ask() -> ChatCall:
    return ChatCall("", (ChatMessage("user", "Name three colours."),), max_tokens=12, temperature=0.0)


@pytest.mark.model
async def test_calls_choose_among_adapters_of_one_process(folder: Path, tmp_path: Path) -> None:
    install.add(str(write_lora(tmp_path / "one.gguf")), folder, base="smollm2", called="one")
    catalog = Catalog(ModelsConfig(), folder, {}, EngineSettings(threads=1, slots=2, context_tokens=512))

    async def answer(name: str) -> str:
        provider = catalog.resolve(f"local/{name}").provider
        return (await provider.complete(ask(), 60.0)).choices[0].text

    def pid(name: str) -> int | None:
        provider = catalog.resolve(f"local/{name}").provider
        assert isinstance(provider, LlamaCpp)
        return provider.state.pid

    plain, tuned, plain_again = await answer("smollm2"), await answer("one"), await answer("smollm2")
    same = pid("smollm2") == pid("one") is not None
    install.add(str(write_lora(tmp_path / "two.gguf", seed=2)), folder, base="smollm2", called="two")
    other, tuned_again = await answer("two"), await answer("one")
    await catalog.close()

    assert plain == plain_again
    assert tuned == tuned_again
    assert len({plain, tuned, other}) == 3
    assert same
    assert {"local/smollm2", "local/one", "local/two"} <= {info.name for info in catalog.names()}


@pytest.mark.model
async def test_the_command_adds_lists_and_removes_adapters(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINSTAY_MODELS_DIR", str(folder))
    monkeypatch.setenv("MAINSTAY_ENGINE_CONTEXT", "512")
    monkeypatch.chdir(tmp_path)
    path = str(write_lora(tmp_path / "a.gguf"))
    run = CliRunner().invoke
    engine = LlamaCpp(next((folder / "smollm2").glob("*.gguf")), EngineSettings(context_tokens=512))
    await engine.warm_up()

    added = run(app, ["models", "add", path, "--base", "smollm2", "--name", "Support", "--json"])
    listed = run(app, ["models", "list", "--json"])
    shown = run(app, ["models", "list"])
    refused = run(app, ["models", "remove", "smollm2"])
    await engine.close()
    removed = run(app, ["models", "remove", "support", "--json"])

    assert json.loads(added.stdout)[0]["base"] == "smollm2"
    local = {item["name"]: item["local"] for item in json.loads(listed.stdout)}
    assert local["local/smollm2"]["adapters"] == ["support"]
    assert local["local/smollm2"]["state"] == local["local/support"]["state"] == "loaded"
    assert local["local/smollm2"]["memory_bytes"] > 100 << 20
    assert local["local/support"] | {"memory_bytes": 0, "bytes": 0} == {
        "kind": "adapter",
        "base": "smollm2",
        "bytes": 0,
        "context_tokens": 512,
        "state": "loaded",
        "memory_bytes": 0,
        "adapters": [],
    }
    assert local["local/extractive"] is None
    assert "adapter of smollm2" in shown.stdout
    assert isinstance(refused.exception, Conflict)
    assert json.loads(removed.stdout) == {"name": "support", "state": "removed"}

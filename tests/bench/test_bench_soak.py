"""A minute of the soak, and a short round of the micro-bench: that they run, and that nothing is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--dry", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_a_minute_of_mixed_load_loses_nothing_and_its_books_agree() -> None:
    done = _run("soak", "--seconds", "60", "--per-s", "15")

    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    assert "soak_unexplained" in done.stdout


@pytest.mark.slow
def test_the_micro_bench_runs_a_request_and_a_stream_through_the_whole_gateway() -> None:
    done = _run("pipeline_micro", "--count", "20", "--rounds", "1")

    assert done.returncode == 0, done.stderr[-4000:]
    assert "micro_delta_relative" in done.stdout

"""The demo, killed at random moments and started again, ends as if it had never been killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mainstay.core.config import load_settings
from mainstay.delivery import load_project
from mainstay.observe import TraceFilter
from mainstay.services import build_services, close_services

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "handbook"
CASES = 6
KILLS = 6


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example without Mainstay's own guides, so that nobody edits its documents meanwhile."""
    folder = tmp_path / "handbook"
    shutil.copytree(EXAMPLE, folder)
    file = folder / "mainstay.yaml"
    file.write_text(file.read_text().replace(", ../../docs/]", "]"))
    return folder


def start(example: Path, data_dir: Path, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).parent / "mainstay"), "demo", "--once", "--json", "--port", "0"]
    command += ["--model", "local/extractive", "--cases", str(CASES)]
    command += ["--example", str(example), "--data-dir", str(data_dir)]
    return subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=subprocess.DEVNULL)


def test_killed_at_random_points_it_resumes_and_nothing_is_lost_or_doubled(
    example: Path, tmp_path: Path
) -> None:
    seed = int(os.environ.get("MAINSTAY_SEED", random.randrange(10**6)))
    chance = random.Random(seed)
    data_dir = tmp_path / "data"
    for _ in range(KILLS):
        demo = start(example, data_dir)
        try:
            demo.wait(timeout=chance.uniform(0.5, 9))
        except subprocess.TimeoutExpired:
            demo.send_signal(signal.SIGKILL)
            demo.wait()
    output, _ = start(example, data_dir, subprocess.PIPE).communicate(timeout=240)
    result = json.loads(output)
    services = build_services(load_settings({"data_dir": data_dir}), load_project(example))
    try:
        releases = services.delivery.releases("handbook-bot")
        assert [r.number for r in releases] == [2, 1], f"seed {seed}"
        assert len(services.library.snapshots("handbook")) == 1
        traced = [a["trace_id"] for a in result["answers"]]
        assert len(set(traced)) == 5
        for trace_id in traced:
            spans = services.traces.get(trace_id)
            assert len({s.span_id for s in spans}) == len(spans)
            assert sum(s.attributes.get("gen_ai.operation.name") == "invoke_agent" for s in spans) == 1
        runs = [services.evaluations.run(run_id) for run_id in result["runs"]]
        assert [len(run.answers) for run in runs] == [CASES, CASES]
        assert result["rolled_back_answer_from"] == 1
        assert services.audit.verify().ok
        assert all(t.status == "ok" for t in services.traces.list(TraceFilter(app="handbook-bot"), limit=500))
    finally:
        close_services(services)

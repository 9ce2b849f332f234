"""`mainstay models list`: what stands behind each route."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mainstay.cli.main import app

PROJECT = """
project: demo
providers:
  vllm: {kind: vllm, base_url: "http://gpu-1:8000/v1", models: [qwen3-32b]}
  acme: {kind: openai, base_url: "http://acme.example/v1", api_key_envs: [ACME_A, ACME_B], models: [small]}
routes:
  fast: {policy: ordered, targets: [vllm/qwen3-32b, acme/small]}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mainstay.yaml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "ACME_A": "a",
        "ACME_B": "b",
        "MAINSTAY_MODELS_DIR": str(tmp_path / "models"),
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("here")
def test_a_route_is_listed_with_its_policy_and_each_key_of_its_targets() -> None:
    result = CliRunner().invoke(app, ["models", "list", "--json"])
    assert result.exit_code == 0, result.output
    listed = {model["name"]: model for model in json.loads(result.stdout)}
    route = listed["fast"]["route"]
    assert (route["policy"], route["problem"]) == ("ordered", None)
    assert [(t["name"], t["credential"], t["weight"]) for t in route["targets"]] == [
        ("vllm/qwen3-32b", None, 1.0),
        ("acme/small", "key 1", 0.5),
        ("acme/small", "key 2", 0.5),
    ]
    assert listed["acme/small"]["route"] is None


@pytest.mark.usefixtures("here")
def test_the_table_of_routes_names_what_each_target_goes_to() -> None:
    shown = CliRunner().invoke(app, ["models", "list"]).output
    assert "fast" in shown
    assert "ordered" in shown
    assert "acme/small, key 2" in shown

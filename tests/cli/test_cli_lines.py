"""The lines that commands print about audit rows, documents and models."""

from pathlib import Path

import pytest

from mainstay.cli.audit import what_happened
from mainstay.cli.config import how_to_change, misspelt_variables, shown_value
from mainstay.cli.demo import shown
from mainstay.cli.project import told_failures
from mainstay.core.config import load_settings
from mainstay.core.secret import Secret
from mainstay.delivery import load_project
from mainstay.knowledge import FailedDocument
from mainstay.services import model_warnings


def test_an_audit_row_tells_from_where_to_where_and_why() -> None:
    assert what_happened({"from": 1, "to": 2, "reason": "gate passed"}) == "r1 → r2 · reason: gate passed"
    assert what_happened({"from": None, "to": 1, "reason": ""}) == "none → r1"
    assert what_happened({"name": "shop", "role": "viewer", "models": None}) == "name: shop · role: viewer"
    assert len(what_happened({"reason": "long " * 100})) == 100


def test_documents_that_failed_take_one_line_each_and_one_for_the_way_out() -> None:
    fix = "Print it to a new PDF."
    failed = [FailedDocument(uri, "Damaged (Data format error)..", fix) for uri in ("a.pdf", "b.pdf")]
    assert told_failures(failed) == [
        "not ingested: a.pdf: Damaged (Data format error).",
        "not ingested: b.pdf: Damaged (Data format error).",
        "  Print it to a new PDF.",
    ]


def test_apps_on_models_that_stand_for_nothing_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "answer.md").write_text("---\nvariables:\n  question: string\n---\n{{question}}\n")
    apps = {"a": "local/extractve", "b": "openai/gpt-4o-mini", "c": "nonsense", "d": "local/extractive"}
    lines = [f"  {name}: {{prompt: answer.md, model: {model}}}" for name, model in apps.items()]
    file = tmp_path / "mainstay.yaml"
    file.write_text("project: x\napps:\n" + "\n".join(lines) + "\n")
    warnings = model_warnings(load_settings({"models_dir": tmp_path / "none"}), load_project(file))
    assert len(warnings) == 3
    assert "local/extractive" in warnings[0]
    assert "OPENAI_API_KEY" in warnings[1]
    assert "'nonsense'" in warnings[2]


def test_settings_are_shown_as_they_are_written() -> None:
    values = (None, True, Secret("postgresql://u:p@h/d"), 8321)
    assert [shown_value(value) for value in values] == ["none", "true", "***", "8321"]


def test_a_flag_is_named_only_where_there_is_one() -> None:
    assert "--port" in how_to_change("port")
    assert "flag" not in how_to_change("session_hours")


def test_a_misspelt_variable_is_told_the_nearest() -> None:
    environment = {"MAINSTAY_PRT": "1", "MAINSTAY_PORT": "2", "MAINSTAY_FAULT": "x", "HOME": "/"}
    (line,) = misspelt_variables(environment)
    assert line.startswith("MAINSTAY_PRT")
    assert "MAINSTAY_PORT" in line


def test_a_demo_that_ends_says_what_it_showed_and_how_to_look_again() -> None:
    said = shown({"answers": [{}] * 5, "runs": ["a", "b"], "releases": [1, 2]}, Path("/data"))
    assert "5 cited answers" in said
    assert "make demo" in said
    assert "Ctrl-C" not in said

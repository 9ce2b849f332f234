"""Commands on a project, as their users type them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mainstay.core.config import load_settings
from mainstay.services import running_server

pytestmark = pytest.mark.model

Cli = Callable[..., Result]


def data(cli: Cli, *words: str) -> object:
    done = cli(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_plan_changes_nothing_and_apply_makes_the_first_release(project: Path, cli: Cli) -> None:
    planned = data(cli, "plan")
    assert {c["action"] for c in planned["changes"]} == {"create"}  # type: ignore[index,call-overload]
    assert data(cli, "release", "list") == []
    applied = data(cli, "apply")
    assert [r["number"] for r in applied["releases"]] == [1]  # type: ignore[index,call-overload]
    assert data(cli, "apply")["releases"] == []  # type: ignore[index,call-overload]


def test_a_mistake_in_the_project_file_is_told_with_its_line(project: Path, cli: Cli) -> None:
    file = project / "mainstay.yaml"
    file.write_text(file.read_text().replace("corpus: documents", "corpus: document"))
    done = cli("plan")
    line = file.read_text().splitlines().index("    corpus: document") + 1
    assert f"line {line}" in str(done.exception)
    assert "'documents'" in str(done.exception)


def test_a_question_on_the_command_line_gets_an_answer_and_leaves_a_trace(project: Path, cli: Cli) -> None:
    data(cli, "apply")
    answer = data(cli, "ask", "bot", "When do the grey fuel cards stop working?")
    assert "30 September" in answer["text"]  # type: ignore[index,call-overload]
    (trace,) = data(cli, "trace", "list")  # type: ignore[misc]
    assert trace["app"] == "bot"
    assert "grey fuel cards" in trace["question"]
    assert running_server(load_settings()) is None


def test_the_audit_log_of_all_this_verifies(project: Path, cli: Cli) -> None:
    data(cli, "apply")
    data(cli, "key", "create", "shop", "--budget", "2.50")
    actions = [entry["action"] for entry in data(cli, "audit", "list")]  # type: ignore[attr-defined]
    assert {"release.created", "key.created"} <= set(actions)
    assert data(cli, "audit", "verify")["ok"] is True  # type: ignore[index,call-overload]


def test_an_evaluation_fails_its_gate_with_exit_code_1(project: Path, cli: Cli, tmp_path: Path) -> None:
    data(cli, "apply")
    cases = tmp_path / "cases.jsonl"
    rows = [
        {
            "id": "a",
            "question": "How many days of paid annual leave does a full-time employee have?",
            "answer": "27 days",
            "accept": [["27 days"]],
            "spans": [{"document": "leave.md", "quote": "27 days of paid annual leave"}],
            "kind": "single",
        },
        {
            "id": "b",
            "question": "What is the capital of Portugal?",
            "answer": "",
            "accept": [],
            "spans": [],
            "kind": "unanswerable",
        },
    ]
    cases.write_text("\n".join(json.dumps(row) for row in rows))
    passed = cli("eval", "run", "bot", "--dataset", str(cases), "--min", "right_answer=1", "--json")
    assert passed.exit_code == 0, passed.output
    failed = cli("eval", "run", "bot", "--dataset", str(cases), "--min", "right_answer=1.1", "--json")
    assert failed.exit_code == 1


def test_doctor_finds_nothing_wrong_with_a_good_installation(project: Path, cli: Cli) -> None:
    done = cli("doctor", "--json")
    assert [c for c in json.loads(done.stdout) if c["state"] == "problem"] == []
    assert done.exit_code == 0


def test_config_explain_says_where_a_value_came_from(project: Path, cli: Cli) -> None:
    file = project / "mainstay.yaml"
    file.write_text(file.read_text() + "\nsettings:\n  session_hours: 8\n")
    shown = data(cli, "config", "explain", "session_hours")
    assert shown["value"] == "8"  # type: ignore[index,call-overload]
    assert shown["origin"].startswith("file mainstay.yaml, line")  # type: ignore[index,call-overload]

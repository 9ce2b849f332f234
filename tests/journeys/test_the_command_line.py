"""Commands on a project, as their users type them."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest
from openai import OpenAI
from typer.testing import Result

from mainstay.core.config import load_settings
from mainstay.core.errors import InvalidInput, MainstayError, NotFound
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


def test_asking_an_app_before_its_first_release_says_to_apply(project: Path, cli: Cli) -> None:
    refused = cli("ask", "bot", "Who hands out fuel cards?")
    assert isinstance(refused.exception, NotFound)
    assert "mainstay apply" in str(refused.exception.fix)


def test_a_failed_question_tells_its_fix_once(project: Path, cli: Cli) -> None:
    data(cli, "apply")
    error = cli("ask", "bott", "Who?").exception
    assert isinstance(error, MainstayError)
    assert error.fix is not None
    assert error.fix not in error.message


def test_a_question_is_replayed_on_a_release_by_its_number(project: Path, cli: Cli) -> None:
    data(cli, "apply")
    data(cli, "ask", "bot", "When do the grey fuel cards stop working?")
    (trace,) = data(cli, "trace", "list")  # type: ignore[misc]
    again = data(cli, "trace", "replay", trace["trace_id"], "--on", "r1")
    assert again["model"] == "bot@r1"  # type: ignore[index,call-overload]
    refused = cli("trace", "replay", trace["trace_id"], "--on", "bot@r7")
    assert refused.exit_code == 1
    assert isinstance(refused.exception, NotFound)


def test_a_model_that_stands_for_nothing_is_warned_of_and_stops_nothing(project: Path, cli: Cli) -> None:
    file = project / "mainstay.yaml"
    file.write_text(file.read_text().replace("model: local/extractive", "model: local/extractve"))
    for words in (["plan"], ["apply"]):
        done = cli(*words, "--json")
        assert done.exit_code == 0, done.output
        assert "warning: " in done.stderr
        assert "local/extractive" in done.stderr
    checks = {c["name"]: c for c in json.loads(cli("doctor", "--json").stdout)}
    assert checks["project"]["state"] == "warning"
    assert "local/extractive" in checks["project"]["finding"]


def test_a_replay_without_an_answer_fails(project: Path, cli: Cli) -> None:
    data(cli, "apply")
    data(cli, "ask", "bot", "When do the grey fuel cards stop working?")
    (trace,) = data(cli, "trace", "list")  # type: ignore[misc]
    file = project / "mainstay.yaml"
    file.write_text(file.read_text().replace("model: local/extractive", "model: local/gone"))
    data(cli, "apply")
    failed = cli("trace", "replay", trace["trace_id"], "--on", "r2")
    assert failed.exit_code == 1
    assert "bot@r2 did not answer" in str(failed.exception)
    assert failed.stdout == ""


def test_a_trace_is_found_by_the_first_characters_of_its_id(project: Path, cli: Cli) -> None:
    data(cli, "apply")
    data(cli, "ask", "bot", "When do the grey fuel cards stop working?")
    (trace,) = data(cli, "trace", "list")  # type: ignore[misc]
    shown = cli("trace", "show", trace["trace_id"][:12])
    assert "unset" not in shown.stdout
    assert " ok" in shown.stdout
    assert isinstance(cli("trace", "show", trace["trace_id"][:7]).exception, InvalidInput)
    assert isinstance(cli("trace", "show", "0" * 12).exception, NotFound)


def test_the_audit_log_names_people_and_what_happened(project: Path, cli: Cli) -> None:
    data(cli, "user", "create", "ann@example.org")
    data(cli, "user", "role", "ann@example.org", "developer")
    shown = cli("audit", "list").stdout
    assert "user_" not in shown
    assert "role: developer" in shown


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


@pytest.fixture
def cases(tmp_path: Path) -> str:
    """A dataset of one question."""
    path = tmp_path / "one.jsonl"
    path.write_text('{"id": "a", "question": "Which colour do new fuel cards have?", "kind": "unanswerable"}')
    return str(path)


def test_an_evaluation_of_an_unknown_app_is_refused_before_anything_is_stored(
    project: Path, cli: Cli, cases: str
) -> None:
    data(cli, "apply")
    refused = cli("eval", "run", "bott", "-d", cases)
    assert isinstance(refused.exception, NotFound)
    assert "'bot'" in str(refused.exception.fix)
    assert data(cli, "eval", "list") == []


def test_a_gate_on_an_unknown_metric_is_refused_before_anything_is_stored(
    project: Path, cli: Cli, cases: str
) -> None:
    data(cli, "apply")
    refused = cli("eval", "run", "bot", "-d", cases, "--min", "right_answers=0.5")
    assert isinstance(refused.exception, InvalidInput)
    assert "'right_answer'" in str(refused.exception.fix)
    assert data(cli, "eval", "list") == []


def test_an_evaluation_in_which_every_case_failed_says_why_and_exits_1(
    project: Path, cli: Cli, cases: str
) -> None:
    file = project / "mainstay.yaml"
    away = "providers:\n  away: {base_url: http://127.0.0.1:9/v1}\n"
    file.write_text(file.read_text().replace("model: local/extractive", "model: away/m") + away)
    data(cli, "apply")
    done = cli("eval", "run", "bot", "-d", cases)
    assert done.exit_code == 1
    assert "1 of 1 cases failed; the first: " in done.stderr
    assert "provider_unreachable" in done.stderr


def test_the_newest_key_is_listed_first(project: Path, cli: Cli) -> None:
    for name in ("first", "second"):
        data(cli, "key", "create", name)
    assert [key["name"] for key in data(cli, "key", "list")] == ["second", "first"]  # type: ignore[attr-defined]


def test_models_are_listed_with_their_prices(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project / "mainstay.yaml"
    file.write_text(
        file.read_text()
        + "providers:\n"
        + "  priced: {base_url: http://127.0.0.1:9/v1, models: [m], price: {input: 0.15, output: 0.60}}\n"
        + "  unpriced: {base_url: http://127.0.0.1:9/v1, models: [m]}\n"
    )
    listed = cli("models", "list").stdout.splitlines()
    lines = {line.split()[0]: line for line in listed if line.strip()}
    assert "$0.15" in lines["priced/m"]
    assert "$0.60" in lines["priced/m"]
    assert lines["unpriced/m"].count("– unknown") == 2
    assert " $0 " in lines["local/extractive"]


@contextmanager
def up(project: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`mainstay up --json` in a process of its own, and what it printed once it answers."""
    program = str(Path(sys.executable).parent / "mainstay")
    # What a shell runs in its background ignores Ctrl-C, and so would its children; of what is handled they know nothing.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [program, "up", "--json", "--port", "0"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout is not None
        printed = ""
        while not printed.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            printed += line
        yield process, json.loads(printed)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_end_ends_in_good_order(project: Path, told: signal.Signals) -> None:
    with up(project) as (process, printed):
        with OpenAI(base_url=printed["base_url"], api_key=printed["api_key"], max_retries=0) as client:
            question = [{"role": "user", "content": "Which colour do new fuel cards have?"}]
            client.chat.completions.create(model="bot", messages=question)  # type: ignore[call-overload]
        process.send_signal(told)
        _, talk = process.communicate(timeout=60)
    assert process.returncode == 0, talk
    assert talk.split() == ["Stopping", "…"]
    assert not (project / ".mainstay" / "server.json").exists()


def test_a_second_server_on_a_data_folder_is_refused(project: Path) -> None:
    with up(project):
        program = str(Path(sys.executable).parent / "mainstay")
        second = subprocess.run(
            [program, "up", "--port", "0"], check=False, cwd=project, capture_output=True, text=True
        )
    assert second.returncode == 1
    assert "already runs" in second.stderr


def test_a_sign_in_link_leads_to_the_running_server(project: Path, cli: Cli) -> None:
    data(cli, "user", "create", "ann@example.org")
    with up(project) as (_, printed):
        url = data(cli, "user", "link", "ann@example.org")["url"]  # type: ignore[index,call-overload]
    assert url.startswith(printed["web_ui"] + "/sign-in/link/")


def test_a_first_start_without_models_names_the_one_command_that_fetches_them(
    project: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project / "mainstay.yaml"
    file.write_text(file.read_text().replace("model: local/extractive", "model: local/smollm2"))
    monkeypatch.setenv("MAINSTAY_MODELS_DIR", str(tmp_path / "none"))
    refused = cli("up", "--port", "0")
    assert isinstance(refused.exception, NotFound)
    assert "mainstay models add smollm2 minilm" in str(refused.exception.fix)


def test_doctor_changes_nothing(tmp_path: Path, cli: Cli, models_dir: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with chdir(folder):
        checks = json.loads(cli("doctor", "--json").stdout)
    assert list(folder.iterdir()) == []
    assert {c["name"]: c["state"] for c in checks}["data folder"] != "problem"


def test_doctor_finds_a_data_folder_that_cannot_be_made(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MAINSTAY_DATA_DIR", str(tmp_path / "file" / "data"))
    checks = json.loads(cli("doctor", "--json").stdout)
    assert {c["name"]: c["state"] for c in checks}["data folder"] == "problem"


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

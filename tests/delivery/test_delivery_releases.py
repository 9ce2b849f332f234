from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mainstay.core import faults
from mainstay.core.database import Database, read_change_counter
from mainstay.core.errors import Conflict, InvalidInput, NotFound
from mainstay.core.faults import InjectedFault
from mainstay.delivery import ApplyReport, Delivery, load_project
from mainstay.govern import SYSTEM, AuditLog


@pytest.fixture
def apply(folder, delivery: Delivery, ingest):  # type: ignore[no-untyped-def]
    def apply(**options: object) -> ApplyReport:
        return delivery.apply(SYSTEM, load_project(folder.root), ingest(), **options)  # type: ignore[arg-type]

    return apply


@pytest.fixture
def new_prompt(folder):  # type: ignore[no-untyped-def]
    """Make the n-th wording of the prompt."""
    wordings = iter(range(2, 99))

    def new_prompt() -> None:
        text = (folder.root / "prompts/answer.md").read_text(encoding="utf-8")
        folder.write("prompts/answer.md", text + f"Wording {next(wordings)}.\n")

    return new_prompt


def where(delivery: Delivery) -> dict[str, int]:
    return {environment.name: environment.release for environment in delivery.environments("bot")}


def test_the_first_release_goes_to_dev_and_production(delivery: Delivery, apply) -> None:  # type: ignore[no-untyped-def]
    report = apply(note="first")
    assert [(r.app, r.number, r.note) for r in report.releases] == [("bot", 1, "first")]
    assert where(delivery) == {"dev": 1, "production": 1}
    assert delivery.apps() == ("bot",)
    assert [change.action for change in report.changes] == ["create"] * 6


def test_a_plan_tells_what_apply_does_and_changes_nothing(
    database: Database, folder, delivery: Delivery, ingest, apply
) -> None:  # type: ignore[no-untyped-def]
    project, corpora = load_project(folder.root), ingest()
    before = read_change_counter(database)
    planned = delivery.plan(project)
    assert read_change_counter(database) == before
    assert delivery.apps() == ()
    assert planned.changes == delivery.apply(SYSTEM, project, corpora).changes


def test_applying_twice_changes_nothing(database: Database, delivery: Delivery, apply) -> None:  # type: ignore[no-untyped-def]
    first = apply()
    counter, rows = read_change_counter(database), AuditLog(database).verify().rows
    second = apply()
    assert (second.releases, second.moved) == ((), ())
    assert {change.action for change in second.changes} == {"none"}
    assert (read_change_counter(database), AuditLog(database).verify().rows) == (counter, rows)
    assert delivery.releases("bot") == first.releases


def test_a_changed_prompt_makes_a_release_that_goes_to_dev_only(
    delivery: Delivery, apply, new_prompt
) -> None:  # type: ignore[no-untyped-def]
    apply()
    new_prompt()
    report = apply()
    assert where(delivery) == {"dev": 2, "production": 1}
    told = {(change.kind, change.action): change for change in report.changes}
    assert told["prompt", "update"].summary == "v1 → v2"
    assert "+Wording 2." in told["prompt", "update"].diff
    assert told["release", "update"].summary == "r1 → r2: prompt"
    assert told["environment", "update"].name == "bot@dev"
    assert delivery.artifact("prompt", "answer").number == 2


def test_apply_can_promote_at_once(delivery: Delivery, apply, new_prompt) -> None:  # type: ignore[no-untyped-def]
    apply()
    new_prompt()
    apply(promote=True)
    assert where(delivery) == {"dev": 2, "production": 2}


def test_going_back_to_an_old_state_reuses_its_release(folder, delivery: Delivery, apply, new_prompt) -> None:  # type: ignore[no-untyped-def]
    apply()
    old = (folder.root / "prompts/answer.md").read_text(encoding="utf-8")
    new_prompt()
    apply()
    folder.write("prompts/answer.md", old)
    assert apply().releases == ()
    assert where(delivery)["dev"] == 1
    assert len(delivery.releases("bot")) == 2


def test_changed_documents_make_a_release(folder, delivery: Delivery, apply) -> None:  # type: ignore[no-untyped-def]
    apply()
    folder.write("knowledge/travel.md", "# Travel\n\nTrains are first class.\n")
    (release,) = apply().releases
    assert release.number == 2
    diff = delivery.diff("bot", 1, 2)
    assert diff.corpus is not None
    assert diff.corpus.added == ("travel.md",)
    (change,) = diff.changes
    assert (change.kind, change.name, change.summary) == (
        "corpus", "handbook", "v1 → v2: 1 added, 0 removed, 0 changed",
    )  # fmt: skip


def test_a_diff_shows_prompt_model_policy_and_settings(folder, delivery: Delivery, apply, new_prompt) -> None:  # type: ignore[no-untyped-def]
    apply()
    new_prompt()
    folder.replace("mainstay.yaml", "local/smollm2", "local/extractive")
    folder.replace("mainstay.yaml", "top_k: 3", "top_k: 5")
    folder.replace("mainstay.yaml", "max_tokens: 120", "max_tokens: 60")
    folder.replace("policies/careful.yaml", "unsupported: remove", "unsupported: flag")
    apply()
    diff = delivery.diff("bot", 1, 2)
    told = {change.kind if change.kind != "settings" else change.name: change for change in diff.changes}
    assert set(told) == {"prompt", "model", "policy", "retrieval", "generation"}
    assert told["prompt"].summary == "answer v1 → v2"
    assert "+Wording 2." in told["prompt"].diff
    assert told["model"].summary == "local/smollm2 → local/extractive"
    assert "-  unsupported: remove" in told["policy"].diff
    assert told["retrieval"].summary == "top_k: 3 → 5"
    assert told["generation"].summary == "max_tokens: 120 → 60"
    assert delivery.diff("bot", 1, 1).changes == ()


def test_promote_and_rollback_move_the_pointer_and_keep_its_history(
    delivery: Delivery, apply, new_prompt
) -> None:  # type: ignore[no-untyped-def]
    apply()
    new_prompt()
    apply()
    promoted = delivery.promote(SYSTEM, "bot", "production", 2, "better answers")
    assert (promoted.release, promoted.previous) == (2, 1)
    back = delivery.rollback(SYSTEM, "bot", "production", "worse after all")
    assert (back.release, back.previous) == (1, None)
    assert [(release, reason) for release, _, _, reason in back.history] == [
        (1, "worse after all"),
        (2, "better answers"),
        (1, "apply"),
    ]


def test_rolling_back_again_goes_further_back(delivery: Delivery, apply, new_prompt) -> None:  # type: ignore[no-untyped-def]
    for _ in range(3):
        apply(promote=True)
        new_prompt()
    assert [delivery.rollback(SYSTEM, "bot", "production", "bad").release for _ in range(2)] == [2, 1]
    with pytest.raises(Conflict):
        delivery.rollback(SYSTEM, "bot", "production", "bad")
    assert delivery.promote(SYSTEM, "bot", "production", 3, "mended").release == 3
    assert delivery.rollback(SYSTEM, "bot", "production", "bad").release == 1


def test_promoting_to_where_it_is_writes_nothing(database: Database, delivery: Delivery, apply) -> None:  # type: ignore[no-untyped-def]
    apply()
    rows = AuditLog(database).verify().rows
    assert delivery.promote(SYSTEM, "bot", "production", 1, "again").release == 1
    assert AuditLog(database).verify().rows == rows


def test_a_new_environment_is_made_by_promoting_to_it(delivery: Delivery, apply) -> None:  # type: ignore[no-untyped-def]
    apply()
    delivery.promote(SYSTEM, "bot", "staging", 1, "try it")
    assert where(delivery)["staging"] == 1
    for name in ("dev\n", "r2", "Staging", "a@b", ""):
        with pytest.raises(InvalidInput):
            delivery.promote(SYSTEM, "bot", name, 1, "no")


def test_unknown_names_are_not_found_and_near_ones_offered(delivery: Delivery, apply) -> None:  # type: ignore[no-untyped-def]
    apply()
    for act, near in (
        (lambda: delivery.releases("bott"), "'bot'"),
        (lambda: delivery.release("bot", 9), "r1"),
        (lambda: delivery.rollback(SYSTEM, "bot", "prodution", ""), "'production'"),
        (lambda: delivery.artifact("prompt", "anser"), "'answer'"),
        (lambda: delivery.promote(SYSTEM, "bot", "dev", 7, ""), "r1"),
    ):
        with pytest.raises(NotFound, match=near):
            act()


def test_runnables_are_found_by_app_environment_and_release(delivery: Delivery, apply, new_prompt) -> None:  # type: ignore[no-untyped-def]
    apply()
    new_prompt()
    apply()
    ready = delivery.runnables()
    assert set(ready) == {"bot", "bot@production", "bot@dev", "bot@r1", "bot@r2"}
    assert (ready["bot"].release.number, ready["bot"].environment) == (1, "production")
    assert (ready["bot@dev"].release.number, ready["bot@r2"].environment) == (2, None)
    runnable = ready["bot"]
    assert (runnable.model, runnable.retrieval.top_k, runnable.policy.name) == ("local/smollm2", 3, "careful")
    messages = runnable.prompt.render({"question": "Why?", "passages": []})
    assert messages[-1].content == "Question: Why?"


def test_an_app_without_corpus_and_policy_runs_on_the_default_policy(folder, delivery: Delivery) -> None:  # type: ignore[no-untyped-def]
    folder.replace("mainstay.yaml", "    corpus: handbook\n    policy: careful\n", "")
    folder.write("prompts/answer.md", "---\nvariables:\n  question: string\n---\n{{ question }}")
    delivery.apply(SYSTEM, load_project(folder.root), {})
    runnable = delivery.runnables()["bot"]
    assert (runnable.corpus, runnable.policy.name) == (None, "default")


def test_an_app_whose_corpus_was_not_ingested_is_refused(folder, delivery: Delivery) -> None:  # type: ignore[no-untyped-def]
    project = load_project(folder.root)
    assert {change.action for change in delivery.plan(project).changes} == {"create"}
    with pytest.raises(InvalidInput, match="handbook"):
        delivery.apply(SYSTEM, project, {})
    assert delivery.apps() == ()


def test_each_change_is_in_the_audit_log(database: Database, delivery: Delivery, apply) -> None:  # type: ignore[no-untyped-def]
    apply(note="first")
    delivery.promote(SYSTEM, "bot", "staging", 1, "try it")
    log = AuditLog(database)
    assert log.verify().ok
    told = [(entry.action, entry.target) for entry in log.list(limit=7)]
    assert told == [
        ("environment.moved", "bot@staging"),
        ("environment.moved", "bot@dev"),
        ("environment.moved", "bot@production"),
        ("release.created", "bot r1"),
        ("artifact.created", "model/local/smollm2 v1"),
        ("artifact.created", "policy/careful v1"),
        ("artifact.created", "prompt/answer v1"),
    ]
    assert log.list(limit=1)[0].detail == {"from": None, "to": 1, "reason": "try it"}


def test_a_failed_apply_leaves_nothing(
    database: Database, delivery: Delivery, apply, ingest, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    ingest()
    counter, rows = read_change_counter(database), AuditLog(database).verify().rows
    monkeypatch.setattr(faults, "_plan", "delivery.before_commit=raise")
    with pytest.raises(InjectedFault):
        apply()
    monkeypatch.setattr(faults, "_plan", None)
    assert delivery.apps() == ()
    assert delivery.artifacts("prompt") == ()
    assert (read_change_counter(database), AuditLog(database).verify().rows) == (counter, rows)
    assert apply().releases[0].number == 1


def test_applies_at_once_make_one_release(folder, delivery: Delivery, ingest) -> None:  # type: ignore[no-untyped-def]
    project, corpora = load_project(folder.root), ingest()
    made: list[ApplyReport] = []
    callers = [
        threading.Thread(target=lambda: made.append(delivery.apply(SYSTEM, project, corpora)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(len(report.releases) for report in made) == [0, 0, 0, 1]
    assert where(delivery) == {"dev": 1, "production": 1}


KILLED = """
import sys
from pathlib import Path
from mainstay.core.content import BlobStore
from mainstay.core.database import Database
from mainstay.delivery import Delivery, load_project
from mainstay.govern import SYSTEM
from mainstay.knowledge import Library
url, root, snapshot, blobs = sys.argv[1:]
database = Database(url)
delivery = Delivery(database, Library(database, BlobStore(Path(blobs))))
delivery.apply(SYSTEM, load_project(Path(root)), {"handbook": snapshot})
"""


def test_a_killed_apply_leaves_nothing_and_can_be_repeated(
    database: Database, folder, delivery: Delivery, ingest, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    corpora = ingest()
    arguments = [database.url, str(folder.root), corpora["handbook"], str(tmp_path / "blobs")]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env={**os.environ, "MAINSTAY_FAULT": "delivery.before_commit=kill"},
        check=False,
    )
    assert killed.returncode == -9
    assert delivery.apps() == ()
    delivery.apply(SYSTEM, load_project(folder.root), corpora)
    assert where(delivery) == {"dev": 1, "production": 1}
    assert AuditLog(database).verify().ok

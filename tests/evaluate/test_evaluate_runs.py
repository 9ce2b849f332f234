import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mainstay.core.database import Database
from mainstay.core.errors import ConfigError, InvalidInput, NotFound, Unavailable
from mainstay.evaluate import Answered, Case, EvalStore, Run, compare, gate, run_dataset
from mainstay.govern import AuditLog
from mainstay.govern.types import Identity

MakeCase = Callable[..., Case]
MakeAnswer = Callable[..., Answered]


class App:
    """An app that answers by rule, and counts what it is asked."""

    def __init__(self, reply: Callable[[str], Answered]) -> None:
        self._reply = reply
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, model: str, question: str) -> Answered:
        self.asked.append(question)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return self._reply(question)


async def _run(app: App, cases: list[Case], store: EvalStore, actor: Identity, **options: Any) -> Run:
    options = {"dataset": "questions"} | options
    return await run_dataset(cases, options.pop("target", "bot@r1"), app, store=store, actor=actor, **options)


async def test_a_run_scores_every_case_and_is_stored(
    case: MakeCase, answered: MakeAnswer, store: EvalStore, actor: Identity
) -> None:
    cases = [case("q1"), case("q2"), case("q3", kind="unanswerable")]
    app = App(lambda q: answered(text="24 h" if "q1" in q else "No.", refused="q3" in q))
    run = await _run(app, cases, store, actor)
    assert run.means["right_answer"].value == 0.5
    assert run.means["right_answer"].scored == 2
    assert run.means["right_refusal"].value == 1.0
    assert run.means["recall_at_k"].value is None
    assert store.run(run.id) == run


async def test_an_error_is_recorded_and_counts_as_missing_not_as_zero(
    case: MakeCase, answered: MakeAnswer, store: EvalStore, actor: Identity
) -> None:
    def reply(question: str) -> Answered:
        if "q2" in question:
            raise TimeoutError("after 30 s")
        return answered()

    run = await _run(App(reply), [case("q1"), case("q2")], store, actor)
    mean = run.means["right_answer"]
    assert (mean.value, mean.scored, mean.missing) == (1.0, 1, 1)
    assert run.answers["q2"].error == "TimeoutError: after 30 s"
    assert run.means["right_refusal"].missing == 0
    assert run.means["latency_ms"].missing == 1


async def test_an_unknown_price_is_missing(
    case: MakeCase, answered: MakeAnswer, store: EvalStore, actor: Identity
) -> None:
    run = await _run(App(lambda q: answered(cost_nusd=None)), [case("q1")], store, actor)
    assert (run.means["cost_usd"].value, run.means["cost_usd"].missing) == (None, 1)


async def test_a_killed_run_goes_on_where_it_was(
    case: MakeCase, answered: MakeAnswer, store: EvalStore, actor: Identity
) -> None:
    cases = [case(f"q{i}") for i in range(6)]

    def dies(question: str) -> Answered:
        if "q3" in question:
            running.cancel()
        return answered()

    first = App(dies)
    running = asyncio.ensure_future(_run(first, cases, store, actor, concurrency=1))
    with pytest.raises(asyncio.CancelledError):
        await running
    second, steps = App(lambda q: answered()), list[int]()
    run = await _run(second, cases, store, actor, concurrency=1, progress=steps.append)
    assert len(first.asked) == 4
    assert second.asked[-2:] == ["Question q4?", "Question q5?"]
    assert len(second.asked) <= 3
    assert steps[-1] == 6
    assert run.means["right_answer"].scored == 6


async def test_a_call_cancelled_from_within_leaves_the_run_unfinished(
    case: MakeCase, answered: MakeAnswer, store: EvalStore, actor: Identity
) -> None:
    cases = [case("q1"), case("q2")]

    def gives_up(question: str) -> Answered:
        raise asyncio.CancelledError

    with pytest.raises(Unavailable, match="2 of 2 cases not asked"):
        await _run(App(gives_up), cases, store, actor, concurrency=1)
    run = await _run(App(lambda q: answered()), cases, store, actor)
    assert run.means["right_answer"].scored == 2


async def test_a_finished_run_is_given_back_and_a_nonce_starts_afresh(
    case: MakeCase, answered: MakeAnswer, store: EvalStore, actor: Identity
) -> None:
    app = App(lambda q: answered())
    first = await _run(app, [case("q1")], store, actor)
    again = await _run(app, [case("q1")], store, actor)
    assert (again.id, len(app.asked)) == (first.id, 1)
    fresh = await _run(app, [case("q1")], store, actor, nonce="2")
    release = await _run(app, [case("q1")], store, actor, target_digest="sha256:b")
    assert len({first.id, fresh.id, release.id}) == 3
    assert len(app.asked) == 3


async def test_no_more_cases_than_allowed_are_asked_at_once(
    case: MakeCase, answered: MakeAnswer, store: EvalStore, actor: Identity
) -> None:
    app = App(lambda q: answered())
    await _run(app, [case(f"q{i}") for i in range(12)], store, actor, concurrency=3)
    assert app.most_at_once <= 3
    with pytest.raises(ConfigError, match="concurrency is 0"):
        await _run(app, [case("q1")], store, actor, concurrency=0)


async def test_runs_are_listed_newest_first_and_paged(
    case: MakeCase, answered: MakeAnswer, database: Database, actor: Identity
) -> None:
    ticks = iter(range(1, 1000))
    store = EvalStore(database, clock=lambda: next(ticks))
    app = App(lambda q: answered())
    ids = [(await _run(app, [case("q1")], store, actor, target=f"bot@r{i}")).id for i in (1, 2, 3)]
    assert [run.id for run in store.runs()] == ids[::-1]
    assert [run.id for run in store.runs(limit=1, before=ids[2])] == [ids[1]]
    assert [run.target for run in store.runs(target="bot@r2")] == ["bot@r2"]
    assert store.runs()[0].means["right_answer"].value == 1.0


async def test_starting_and_finishing_are_in_the_audit_log(
    case: MakeCase, answered: MakeAnswer, database: Database, actor: Identity
) -> None:
    run = await _run(App(lambda q: answered()), [case("q1")], EvalStore(database), actor)
    entries = [(e.action, e.target) for e in AuditLog(database).list()]
    assert entries == [
        ("evaluation.finish", f"run/{run.id}"),
        ("evaluation.start", f"run/{run.id}"),
        ("dataset.save", "dataset/questions"),
    ]


def test_a_dataset_has_numbered_versions(case: MakeCase, store: EvalStore, actor: Identity) -> None:
    first = store.save_dataset(actor, "questions", [case("q1")])
    same = store.save_dataset(actor, "questions", [case("q1")])
    second = store.save_dataset(actor, "questions", [case("q1"), case("q2")])
    assert (first.number, same.number, second.number) == (1, 1, 2)
    assert store.dataset("questions") == second
    assert store.dataset("questions", first.digest) == first
    with pytest.raises(NotFound, match="no dataset 'other'"):
        store.dataset("other")


def test_an_unknown_run_is_not_found(store: EvalStore, answered: MakeAnswer) -> None:
    with pytest.raises(NotFound, match="no evaluation run"):
        store.run("run_x")
    with pytest.raises(NotFound, match="no evaluation run"):
        store.save_case("run_x", "q1", answered(), {})


@pytest.fixture
async def pair(
    case: MakeCase, answered: MakeAnswer, sqlite_database: Database, actor: Identity
) -> tuple[Run, Run]:
    """Release 2 gets all of 20 cases right, at twice the latency; release 1 half of them."""
    store, cases = EvalStore(sqlite_database), [case(f"q{i}") for i in range(20)]
    worse = App(lambda q: answered(text="24 h" if int(q[10:-1]) % 2 else "No"))
    better = App(lambda q: answered(latency_ms=240.0 + int(q[10:-1])))
    return (
        await _run(worse, cases, store, actor, target="bot@r1"),
        await _run(better, cases, store, actor, target="bot@r2"),
    )


def test_a_comparison_says_what_is_better_and_what_is_worse(pair: tuple[Run, Run]) -> None:
    found = {c.metric: c for c in compare(*pair)}
    assert found["right_answer"].verdict == "better"
    assert found["right_answer"].difference == 0.5
    assert found["latency_ms"].verdict == "worse"
    assert found["cost_usd"].verdict == "no difference shown"
    assert found["recall_at_k"].verdict == "not measured"


async def test_a_handful_of_cases_shows_no_difference(
    case: MakeCase, answered: MakeAnswer, sqlite_database: Database, actor: Identity
) -> None:
    store, cases = EvalStore(sqlite_database), [case(f"q{i}") for i in range(5)]
    a = await _run(App(lambda q: answered(text="No")), cases, store, actor, target="bot@r1")
    b = await _run(App(lambda q: answered()), cases, store, actor, target="bot@r2")
    right = next(c for c in compare(a, b) if c.metric == "right_answer")
    assert (right.difference, right.verdict) == (1.0, "no difference shown")


async def test_runs_of_different_questions_are_not_compared(
    pair: tuple[Run, Run], case: MakeCase, answered: MakeAnswer, sqlite_database: Database, actor: Identity
) -> None:
    other = await _run(App(lambda q: answered()), [case("q1")], EvalStore(sqlite_database), actor)
    with pytest.raises(InvalidInput, match="different dataset versions"):
        compare(pair[0], other)


def test_a_gate_says_why(pair: tuple[Run, Run]) -> None:
    assert gate(pair[1], {"right_answer": 0.9, "latency_ms": 300}) == (
        True,
        ("right_answer 1, at least 0.9 asked: passed.", "latency_ms 249.5, at most 300 asked: passed."),
    )
    ok, reasons = gate(pair[0], {"right_answer": 0.9, "recall_at_k": 0.5})
    assert not ok
    assert reasons == (
        "right_answer 0.5, at least 0.9 asked: failed.",
        "recall_at_k was not measured: failed.",
    )
    with pytest.raises(InvalidInput, match="right_answer"):
        gate(pair[0], {"right_anser": 0.9})


async def test_a_gate_does_not_pass_on_missing_scores(
    case: MakeCase, answered: MakeAnswer, sqlite_database: Database, actor: Identity
) -> None:
    app = App(lambda q: answered(error="Timeout" if "q1" in q else None))
    run = await _run(app, [case("q1"), case("q2")], EvalStore(sqlite_database), actor)
    assert gate(run, {"right_answer": 0.9}) == (False, ("right_answer misses 1 of 2 scores: failed.",))
    assert gate(run, {"right_answer": 0.9}, missing_max=1)[0]


async def test_a_run_that_goes_on_asks_failed_cases_again(
    case: MakeCase, answered: MakeAnswer, store: EvalStore, actor: Identity
) -> None:
    class Killed(BaseException):
        """As if the process ended."""

    def reply(question: str) -> Answered:
        if "q3" in question:
            raise Killed
        if "q1" in question:
            raise TimeoutError
        return answered()

    cases = [case("q1"), case("q2"), case("q3")]
    with pytest.raises(BaseExceptionGroup):
        await _run(App(reply), cases, store, actor, concurrency=1)
    again = App(lambda q: answered())

    run = await _run(again, cases, store, actor)

    assert again.asked == ["Question q1?", "Question q3?"]
    assert run.means["right_answer"].missing == 0

"""`mainstay eval`: run a dataset on an app, compare runs with intervals, exit codes for CI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mainstay.cli.context import actor, local_services, project_here, run_async
from mainstay.cli.output import JsonFlag, emit, progress_bar, say, table
from mainstay.core.clock import to_iso
from mainstay.core.errors import InvalidInput, NotFound, did_you_mean
from mainstay.core.money import NUSD_PER_USD, show_usd
from mainstay.evaluate import (
    DEFAULT_METRICS,
    Case,
    Comparison,
    Mean,
    Run,
    compare,
    gate,
    load_dataset,
    metric_label,
    scorers,
)
from mainstay.services import evaluate_app

app = typer.Typer(no_args_is_help=True, help="Evaluations: run, compare, list.")


def show_value(metric: str, value: float) -> str:
    """In the metric's unit: `0.91`, `1.24 s`, `$0.0021`."""
    unit = scorers.get(metric).unit
    if unit == "ms":
        return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"
    return show_usd(round(value * NUSD_PER_USD)) if unit == "USD" else f"{value:.2f}"


def show_difference(metric: str, value: float) -> str:
    """Signed, in the metric's unit: `+0.031`, `-6.21 s`, `+$0.0021`."""
    if scorers.get(metric).unit in ("ms", "USD"):
        return ("-" if value < 0 else "+") + show_value(metric, abs(value))
    return f"{value:+.3f}"


def show_mean(metric: str, mean: Mean | None) -> str:
    """`0.91 [0.88-0.94]`, or a dash when nothing was scored."""
    if mean is None or mean.value is None:
        return "–"
    low, high = (show_value(metric, bound) for bound in mean.ci95) if mean.ci95 else ("", "")
    return show_value(metric, mean.value) + (f" [{low}-{high}]" if mean.ci95 else "")


def dataset_cases(name: str) -> tuple[Case, ...]:
    """The cases of a file path or of a dataset named in mainstay.yaml."""
    path = Path(name)
    if not path.exists():
        project = project_here(required=True)
        assert project is not None
        if name not in project.datasets:
            raise NotFound(
                f"No dataset or file is called {name!r}.", fix=did_you_mean(name, project.datasets)
            )
        return project.datasets[name].cases
    return load_dataset(path)


@app.command()
def run(
    target: Annotated[str, typer.Argument(help="App, app@environment or app@rN.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Name in mainstay.yaml, or a JSONL file.")],
    minimum: Annotated[
        list[str] | None,
        typer.Option("--min", help="Gate, e.g. right_answer=0.8; repeat. Exit 1 when missed."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N cases.")] = None,
    json: JsonFlag = False,
) -> None:
    """Ask every question of a dataset, score the answers, store the run; a killed run continues.

    Exit 1 when a gate is missed, or when every case failed.
    """
    thresholds = dict(_threshold(text) for text in minimum or ())
    cases = dataset_cases(dataset)[:limit]
    with local_services() as services, progress_bar(f"eval {target}") as bar:
        task = bar.add_task("", total=len(cases))
        finished = run_async(
            services,
            evaluate_app(
                services,
                actor(),
                Path(dataset).stem,
                cases,
                target,
                lambda done: bar.update(task, completed=done),
            ),
        )
    ok, reasons = gate(finished, thresholds)
    if failed := failure(finished):
        reasons = (failed, *reasons)
        ok = ok and any(answer.error is None for answer in finished.answers.values())

    def render() -> None:
        render_runs([finished])
        say(f"run {finished.id}")
        for reason in reasons:
            say(reason)

    emit({"run": finished, "ok": ok, "reasons": reasons}, json, render)
    if not ok:
        raise typer.Exit(1)


def _threshold(text: str) -> tuple[str, float]:
    """Checked before anything is asked: a mistake here must not cost a whole run."""
    name, _, value = (part.strip() for part in text.partition("="))
    if name not in DEFAULT_METRICS:
        raise InvalidInput(f"No metric is called {name!r}.", fix=did_you_mean(name, DEFAULT_METRICS))
    try:
        return name, float(value)
    except ValueError:
        raise InvalidInput(f"{text!r} is no gate.", fix="Write it like right_answer=0.8.") from None


def failure(run: Run) -> str | None:
    """How many cases got no answer, and why the first of them did not; None when all got one."""
    errors = [a.error for a in run.answers.values() if a.error is not None]
    return f"{len(errors)} of {len(run.answers)} cases failed; the first: {errors[0]}" if errors else None


def render_runs(runs: list[Run], metrics: Sequence[str] | None = None) -> None:
    """Metrics down, runs across; all metrics unless some are named."""
    rows = [
        [metric_label(m), *(show_mean(m, r.means.get(m)) for r in runs), runs[0].means[m].scored]
        for m in metrics or runs[0].means
    ]
    table(["metric", *(f">{r.target}" for r in runs), ">scored"], rows, "Nothing was scored.")


@app.command("list")
def list_runs(
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="Only this app or release.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """List evaluation runs, newest first."""
    with local_services() as services:
        runs = services.evaluations.runs(target)
    rows = [
        (
            r.id,
            r.target,
            r.dataset,
            show_mean("right_answer", r.means.get("right_answer")),
            to_iso(r.created_at_us),
        )
        for r in runs
    ]
    emit(
        runs,
        json,
        lambda: table(
            ["run", "target", "dataset", ">right answers", "time"], rows, "None yet: mainstay eval run APP"
        ),
    )


@app.command("compare")
def compare_runs(
    run_a: Annotated[str, typer.Argument(help="Run id of the baseline.")],
    run_b: Annotated[str, typer.Argument(help="Run id of the candidate.")],
    fail_if_worse: Annotated[bool, typer.Option(help="Exit 1 when a metric is shown to be worse.")] = False,
    json: JsonFlag = False,
) -> None:
    """Compare two runs case by case: paired differences with 95 % bootstrap intervals."""
    with local_services() as services:
        results = compare(services.evaluations.run(run_a), services.evaluations.run(run_b))
    emit(results, json, lambda: render_comparison(results))
    if fail_if_worse and any(r.verdict == "worse" for r in results):
        raise typer.Exit(1)


def render_comparison(results: tuple[Comparison, ...], metrics: Sequence[str] | None = None) -> None:
    """Paired differences; all metrics unless some are named."""
    rows = []
    for r in results:
        if metrics is not None and r.metric not in metrics:
            continue
        difference = "–" if r.difference is None else show_difference(r.metric, r.difference)
        interval = f"[{', '.join(show_difference(r.metric, bound) for bound in r.ci95)}]" if r.ci95 else ""
        means = (show_mean(r.metric, r.a), show_mean(r.metric, r.b))
        rows.append((metric_label(r.metric), *means, f"{difference} {interval}", r.verdict))
    table(["metric", ">a", ">b", ">b - a (95 %)", "verdict"], rows, "The runs share no scored case.")
    if rows:
        say("A verdict needs an interval without 0 and at least 6 cases that differ.")

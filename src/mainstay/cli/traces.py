"""`mainstay trace`: what happened in each request; replay; retention."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from mainstay.cli.context import actor, local_services, local_traces, run_async
from mainstay.cli.output import JsonFlag, emit, out, say, table
from mainstay.core.errors import MainstayError
from mainstay.core.money import show_usd
from mainstay.observe import TraceFilter, waterfall

app = typer.Typer(no_args_is_help=True, help="Traces: list, show, replay.")

TraceId = Annotated[
    str, typer.Argument(help="The trace id, from a response header or `mainstay trace list`.")
]


class ReplayFailed(MainstayError):
    """The question was asked again, and no answer came."""

    status, code = 502, "replay_failed"


@app.command("list")
def list_traces(
    app_name: Annotated[str | None, typer.Option("--app", help="Only this app.")] = None,
    status: Annotated[str | None, typer.Option(help="ok or error.")] = None,
    text: Annotated[str | None, typer.Option(help="Words in the question or answer.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    json: JsonFlag = False,
) -> None:
    """List traces, newest first."""
    wanted = TraceFilter(app=app_name, status=status, text=text)  # type: ignore[arg-type]
    with local_traces() as traces:
        found = traces.list(wanted, None, limit)
    rows = [
        (
            t.trace_id,
            datetime.fromtimestamp(t.start_ns / 1e9, UTC).strftime("%m-%d %H:%M:%S"),
            t.app or t.model if t.release is None else f"{t.app}@r{t.release}",
            t.status,
            f"{t.duration_ms:.0f}",
            show_usd(t.cost_nusd),
            " ".join(t.question.split())[:60],
        )
        for t in found
    ]
    columns = ["trace", "time (UTC)", "app", "status", ">ms", ">cost", "question"]
    emit(found, json, lambda: table(columns, rows, "No traces yet: mainstay ask APP QUESTION"))


@app.command()
def show(trace_id: TraceId, json: JsonFlag = False) -> None:
    """Show a trace as a waterfall of its steps."""
    with local_traces() as traces:
        spans = traces.get(trace_id)

    def render() -> None:
        lines = waterfall(spans)
        total = max((r.offset_ms + r.duration_ms for r in lines), default=0.0) or 1.0
        for r in lines:
            left = round(30 * r.offset_ms / total)
            bar = " " * left + "█" * max(1, round(30 * r.duration_ms / total))
            name = "  " * r.depth + r.span.name
            out.print(f"{name:<32.32} {r.duration_ms:>9.1f} ms  {bar:<31.31} {r.span.status}", markup=False)

    emit(spans, json, render)


@app.command()
def replay(
    trace_id: TraceId,
    on: Annotated[str, typer.Option(help="Release to answer with: r2, or my-bot@r2 of any app.")],
    json: JsonFlag = False,
) -> None:
    """Ask a recorded question again on another release, and show both answers. Exit 1 when it fails."""
    from mainstay.services import replay_trace

    with local_services() as services:
        result = run_async(services, replay_trace(services, actor(), trace_id, on))

    def render() -> None:
        out.print(f"question: {result.question}", markup=False)
        out.print(f"\nthen ({result.original_model}):\n{result.original.text}", markup=False)
        out.print(f"\nnow ({result.model}):\n{result.again.text}", markup=False)
        say(f"new trace: {result.again.trace_id}")

    if result.again.error is None:
        emit(result, json, render)
        return
    if json:
        emit(result, json, render)
    raise ReplayFailed(
        f"{result.model} did not answer: {result.again.error}",
        fix=f"See: mainstay trace show {result.again.trace_id}",
    )


def prune(json: JsonFlag = False) -> None:
    """Delete traces older than trace_retention_days; written to the audit log."""
    from mainstay.services import prune_traces

    with local_services() as services:
        removed = prune_traces(services, actor())
    emit({"removed_days": removed}, json, lambda: say(f"Removed {removed} day files."))

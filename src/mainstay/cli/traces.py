"""`mainstay trace`: what happened in each request; replay; retention."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from mainstay.cli.context import actor, local_services, local_traces, run_async
from mainstay.cli.output import JsonFlag, emit, out, say, table
from mainstay.core.errors import InvalidInput, MainstayError, NotFound
from mainstay.core.money import show_usd
from mainstay.observe import TraceFilter, TraceStore, waterfall

app = typer.Typer(no_args_is_help=True, help="Traces: list, show, replay.")

TraceId = Annotated[
    str, typer.Argument(help="The trace id, or its first characters (8 or more); see `mainstay trace list`.")
]
ID_CHARS = 32
PREFIX_CHARS_MIN = 8
PREFIX_PAGE = 500
PREFIX_PAGES_MAX = 40


class ReplayFailed(MainstayError):
    """The question was asked again, and no answer came."""

    status, code = 502, "replay_failed"


@app.command("list")
def list_traces(
    app_name: Annotated[str | None, typer.Option("--app", help="Only this app.")] = None,
    status: Annotated[str | None, typer.Option(help="ok or error.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Words anywhere in the trace's messages: prompts, questions, answers.")
    ] = None,
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


def full_id(traces: TraceStore, text: str) -> str:
    """The one trace id that begins with `text`, among the newest PREFIX_PAGE * PREFIX_PAGES_MAX traces.

    Raises InvalidInput when `text` is too short or begins several ids, NotFound when it begins none.
    """
    text = text.strip().lower()
    if len(text) >= ID_CHARS:
        return text
    if len(text) < PREFIX_CHARS_MIN:
        raise InvalidInput(
            f"{text!r} is too short.", fix=f"Give at least {PREFIX_CHARS_MIN} characters of the id."
        )
    found = [trace_id for trace_id in _newest_ids(traces) if trace_id.startswith(text)]
    if not found:
        raise NotFound(f"No recent trace begins with {text}.", fix="See: mainstay trace list")
    if len(found) > 1:
        raise InvalidInput(
            f"{len(found)} traces begin with {text}.", fix=f"Give more of the id, e.g. {found[0]}."
        )
    return found[0]


def _newest_ids(traces: TraceStore) -> Iterator[str]:
    last = None
    for _ in range(PREFIX_PAGES_MAX):
        page = traces.list(TraceFilter(), last, PREFIX_PAGE)
        yield from (row.trace_id for row in page)
        if len(page) < PREFIX_PAGE:
            return
        last = page[-1].trace_id


@app.command()
def show(trace_id: TraceId, json: JsonFlag = False) -> None:
    """Show a trace as a waterfall of its steps."""
    with local_traces() as traces:
        spans = traces.get(full_id(traces, trace_id))

    def render() -> None:
        lines = waterfall(spans)
        total = max((r.offset_ms + r.duration_ms for r in lines), default=0.0) or 1.0
        for r in lines:
            left = round(30 * r.offset_ms / total)
            bar = " " * left + "█" * max(1, round(30 * r.duration_ms / total))
            name = "  " * r.depth + r.span.name
            state = "error" if r.span.status == "error" else "ok"  # a span that says nothing ended well
            out.print(f"{name:<32.32} {r.duration_ms:>9.1f} ms  {bar:<31.31} {state}", markup=False)

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
        whole = full_id(services.traces, trace_id)
        result = run_async(services, replay_trace(services, actor(), whole, on))

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

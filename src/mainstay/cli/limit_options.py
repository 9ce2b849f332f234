"""The options by which limits and owners are given, shared by `mainstay key` and `mainstay limits`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from mainstay.govern import Budget, Directory, Limits, ScopeKind, budget_from_text

Window = Literal["day", "week", "month", "total"]

BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--budget", help="Hard limit in dollars, e.g. 5/day; day, week, month or total; repeat for several."
    ),
]
SoftBudgetOption = Annotated[
    list[str] | None,
    typer.Option("--soft-budget", help="Warns instead of refusing, e.g. 80/month; repeat for several."),
]
WindowOption = Annotated[
    Window, typer.Option("--window", help="What a budget covers that names no window itself.")
]
RequestsOption = Annotated[int | None, typer.Option("--rpm", min=1, help="Requests per minute.")]
TokensOption = Annotated[
    int | None, typer.Option("--tpm", min=1, help="Tokens per minute, input and output together.")
]
ConcurrentOption = Annotated[int | None, typer.Option("--concurrent", min=1, help="Requests at once.")]


def limits_given(
    budgets: Sequence[str] | None,
    soft_budgets: Sequence[str] | None,
    window: Window,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    concurrent_requests: int | None,
) -> Limits:
    """Raises InvalidInput for a budget that says nothing."""
    hard = [budget_from_text(text, window=window) for text in budgets or ()]
    soft = [budget_from_text(text, hard=False, window=window) for text in soft_budgets or ()]
    every: tuple[Budget, ...] = (*hard, *soft)
    return Limits(requests_per_minute, tokens_per_minute, concurrent_requests, every)


def merged(old: Limits, new: Limits) -> Limits:
    """The old limits with each that is named anew replaced; budgets by window and kind."""
    named = {(b.window, b.hard) for b in new.budgets}
    kept = tuple(b for b in old.budgets if (b.window, b.hard) not in named)
    return Limits(
        new.requests_per_minute or old.requests_per_minute,
        new.tokens_per_minute or old.tokens_per_minute,
        new.concurrent_requests or old.concurrent_requests,
        (*kept, *new.budgets),
    )


def owner_id(directory: Directory, kind: ScopeKind, text: str | None) -> str | None:
    """The id of a user, team or project named in an option; None when it was not given, or empty."""
    return directory.find(kind, text) if text else None

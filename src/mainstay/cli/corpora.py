"""`mainstay corpus`: what the knowledge holds, its snapshots and their differences."""

from __future__ import annotations

from typing import Annotated

import typer

from mainstay.cli.context import actor, local_services
from mainstay.cli.output import JsonFlag, emit, out, say, table
from mainstay.core.clock import to_iso
from mainstay.core.content import short
from mainstay.core.errors import NotFound
from mainstay.knowledge import Snapshot
from mainstay.services import Services

app = typer.Typer(
    no_args_is_help=True, help="Knowledge: corpora, documents, snapshots, diff, roll back, search."
)

Corpus = Annotated[str, typer.Argument(help="The corpus's name.")]


def _snapshot(services: Services, corpus: str, number: int | None) -> Snapshot:
    snapshots = services.library.snapshots(corpus)
    if number is None:
        return services.library.head(corpus)
    for snapshot in snapshots:
        if snapshot.number == number:
            return snapshot
    known = ", ".join(f"#{s.number}" for s in snapshots) or "none yet; run: mainstay apply"
    raise NotFound(f"Corpus {corpus!r} has no snapshot {number or ''}.", fix=f"Known: {known}")


@app.command("list")
def list_corpora(json: JsonFlag = False) -> None:
    """List corpora with their snapshots; the head is what the next apply pins."""
    with local_services() as services:
        rows = []
        for corpus in services.library.corpora():
            head = services.library.head(corpus)
            for s in services.library.snapshots(corpus):
                is_head = head.id == s.id
                rows.append(
                    (
                        corpus,
                        f"#{s.number}",
                        short(s.id),
                        len(s.entries),
                        to_iso(s.created_at_us),
                        "head" * is_head,
                    )
                )
    columns = ["corpus", ">snapshot", "digest", ">documents", "created", ""]
    data = [
        {
            "corpus": r[0],
            "snapshot": r[1],
            "digest": r[2],
            "documents": r[3],
            "created": r[4],
            "head": bool(r[5]),
        }
        for r in rows
    ]
    emit(data, json, lambda: table(columns, rows, "No knowledge yet: mainstay apply"))


@app.command()
def documents(
    corpus: Corpus,
    snapshot: Annotated[int | None, typer.Option(help="Snapshot number; default the head.")] = None,
    json: JsonFlag = False,
) -> None:
    """List the documents of a snapshot."""
    with local_services() as services:
        chosen = _snapshot(services, corpus, snapshot)
        listed = services.library.listing(chosen.id)
    rows = [(d.uri, f"v{d.number}", d.title, d.characters, d.pages or None) for d in listed]
    emit(
        listed,
        json,
        lambda: table(["document", "version", "title", ">characters", ">pages"], rows, "It is empty."),
    )


@app.command()
def diff(
    corpus: Corpus,
    old: Annotated[int, typer.Argument(help="Older snapshot number.")],
    new: Annotated[int, typer.Argument(help="Newer snapshot number.")],
    json: JsonFlag = False,
) -> None:
    """Show which documents were added, removed or changed between two snapshots."""
    with local_services() as services:
        a, b = _snapshot(services, corpus, old), _snapshot(services, corpus, new)
        shown = services.library.diff(a.id, b.id)
    data = {"added": shown.added, "removed": shown.removed, "changed": sorted(shown.changed)}

    def render() -> None:
        for mark, uris in (("+", shown.added), ("-", shown.removed), ("~", sorted(shown.changed))):
            for uri in uris:
                out.print(f"{mark} {uri}", markup=False)
        if not (shown.added or shown.removed or shown.changed):
            say("The two snapshots hold the same documents.")

    emit(data, json, render)


@app.command()
def rollback(
    corpus: Corpus, number: Annotated[int, typer.Argument(help="Snapshot number.")], json: JsonFlag = False
) -> None:
    """Move the corpus's head to an earlier snapshot; nothing is embedded again."""
    with local_services() as services:
        chosen = _snapshot(services, corpus, number)
        services.library.set_head(actor(), corpus, chosen.id)
    emit(
        {"corpus": corpus, "snapshot": number},
        json,
        lambda: say(
            f"The head of {corpus} is snapshot #{number}. The next `mainstay apply` syncs from the files again."
        ),
    )


@app.command()
def search(
    corpus: Corpus,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    top_k: Annotated[int, typer.Option(min=1, max=50, help="How many passages.")] = 5,
    json: JsonFlag = False,
) -> None:
    """Search a corpus's head snapshot, as an app would."""
    from mainstay.retrieval import RetrievalSettings

    with local_services() as services:
        head = _snapshot(services, corpus, None)
        services.indexes.build(head.id)
        found = services.indexes.search(head.id, query, RetrievalSettings(top_k=top_k), actor().groups)

    def render() -> None:
        say(f"answerable: {found.answerable:.2f}")
        for p in found.passages:
            where = f"page {p.page}" if p.page else " › ".join(p.heading_path)
            out.print(f"[{p.number}] {p.score:.3f} {p.uri} {where}", style="bold", markup=False)
            out.print(p.text.strip()[:300], markup=False)

    emit(found, json, render)

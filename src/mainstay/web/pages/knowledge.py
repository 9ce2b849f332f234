"""What does it know?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from mainstay.web.commands import Same, api, mainstay
from mainstay.web.page import PageRoute, Parts, Reader, Writer, render, see_other
from mainstay.web.templating import segment
from mainstay.web.views import knowledge as view

router = APIRouter(route_class=PageRoute)


@router.get("/knowledge")
def corpora(request: Request, visitor: Reader, parts: Parts) -> Response:
    same = Same((mainstay("corpus", "list"),), (api("corpora"),))
    return render(request, visitor, "corpora.html", corpora=view.corpus_lines(parts.library), same=same)


@router.get("/knowledge/{corpus}")
def corpus_page(
    request: Request, visitor: Reader, parts: Parts, corpus: str, a: int | None = None, b: int | None = None
) -> Response:
    shown = view.corpus_view(parts, visitor.known, corpus, a, b)
    commands = [mainstay("corpus", "documents", corpus)]
    if a is not None and b is not None:
        commands.append(mainstay("corpus", "diff", corpus, a, b))
    same = Same(tuple(commands), (api("corpora", corpus, "documents"), api("corpora", corpus, "snapshots")))
    return render(request, visitor, "corpus.html", view=shown, same=same)


@router.post("/knowledge/{corpus}/head")
def set_head(visitor: Writer, parts: Parts, corpus: str, number: Annotated[int, Form()]) -> Response:
    snapshot = view.numbered(parts.library, corpus, number)
    parts.library.set_head(visitor.known, corpus, snapshot.id)
    return see_other(f"/knowledge/{segment(corpus)}?done=head-set")


@router.get("/documents/{version_id}")
def document(
    request: Request,
    visitor: Reader,
    parts: Parts,
    version_id: str,
    start: int | None = None,
    end: int | None = None,
) -> Response:
    shown = view.document_view(parts, visitor.known, version_id, start, end)
    same = Same((mainstay("corpus", "documents", shown.version.corpus),), (api("documents", version_id),))
    return render(request, visitor, "document.html", view=shown, same=same)

"""Corpora, snapshots, documents; filtered by what the caller may see."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from mainstay.api.access import API_ROUTE_CLASS, Parts, Reader, Writer, json_response
from mainstay.services import visible_documents, visible_version

router = APIRouter(prefix="/api/v1", route_class=API_ROUTE_CLASS, tags=["knowledge"])


class Head(BaseModel):
    model_config = ConfigDict(extra="forbid")
    snapshot_id: str


@router.get("/corpora")
def list_corpora(services: Parts, _: Reader) -> Response:
    """Every corpus with its head and the number of its snapshots."""
    rows = []
    for corpus in services.library.corpora():
        head = services.library.head(corpus)
        rows.append(
            {
                "corpus": corpus,
                "head": {"id": head.id, "number": head.number},
                "snapshots": len(services.library.snapshots(corpus)),
            }
        )
    return json_response({"corpora": rows})


@router.get("/corpora/{corpus}/snapshots")
def list_snapshots(corpus: str, services: Parts, _: Reader) -> Response:
    """Snapshots, newest first, without their entries."""
    rows = [
        {"id": s.id, "number": s.number, "created_at_us": s.created_at_us, "fingerprint": s.fingerprint}
        for s in services.library.snapshots(corpus)
    ]
    return json_response({"snapshots": rows})


@router.get("/corpora/{corpus}/documents")
def list_documents(corpus: str, services: Parts, caller: Reader) -> Response:
    """Documents of the head snapshot that the caller may see."""
    rows = [
        {
            "uri": d.uri,
            "version": d.number,
            "version_id": d.version_id,
            "title": d.title,
            "media_type": d.media_type,
        }
        for d in visible_documents(services, caller, corpus)
    ]
    return json_response({"documents": rows})


@router.put("/corpora/{corpus}/head")
def set_head(corpus: str, head: Head, services: Parts, actor: Writer) -> Response:
    """Move the head to an earlier snapshot."""
    services.library.set_head(actor, corpus, head.snapshot_id)
    return json_response({"corpus": corpus, "head": head.snapshot_id})


@router.get("/documents/{version_id}")
def get_document(version_id: str, services: Parts, caller: Reader) -> Response:
    """A document version: canonical text, pages, headings."""
    return json_response(visible_version(services, caller, version_id))

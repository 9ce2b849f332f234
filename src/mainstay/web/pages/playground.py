"""Ask an app or a model, one or two side by side; streams with script, answers whole without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

import orjson
from fastapi import APIRouter, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from mainstay.core.errors import InvalidInput, MainstayError
from mainstay.models.types import Delta
from mainstay.services import Services
from mainstay.serving.types import Final
from mainstay.web.commands import Same, mainstay
from mainstay.web.page import Asker, PageRoute, Parts, Visitor, render, shown_error
from mainstay.web.sse import SSE_HEADERS, event
from mainstay.web.templating import TEMPLATES
from mainstay.web.views import playground as view

router = APIRouter(route_class=PageRoute)

QUESTION_CHARS_MAX = 20_000

Outcome = Final | MainstayError


@router.get("/playground")
def playground(
    request: Request, visitor: Asker, parts: Parts, model: str = "", other: str = "", question: str = ""
) -> Response:
    return _page(request, visitor, parts, (model, other), question, ())


@router.post("/playground")
async def answer(
    request: Request,
    visitor: Asker,
    parts: Parts,
    model: Annotated[str, Form()] = "",
    other: Annotated[str, Form()] = "",
    question: Annotated[str, Form()] = "",
) -> Response:
    try:
        _check(model, question)
    except InvalidInput as error:
        return await run_in_threadpool(
            _page,
            request,
            visitor,
            parts,
            (model, other),
            question,
            ((model or "No model", error),),
            error.status,
        )
    wanted = [m for m in (model, other) if m]
    outcomes = await asyncio.gather(*(_whole(parts, visitor, m, question) for m in wanted))
    answers = tuple(zip(wanted, outcomes, strict=True))
    return await run_in_threadpool(_page, request, visitor, parts, (model, other), question, answers)


@router.post("/playground/stream")
async def stream(
    visitor: Asker,
    parts: Parts,
    model: Annotated[str, Form()] = "",
    question: Annotated[str, Form()] = "",
) -> Response:
    """Events `text` (JSON string), then `final` or `error` (HTML that replaces what was streamed)."""
    _check(model, question)
    return StreamingResponse(
        _events(parts, visitor, model, question), media_type="text/event-stream", headers=SSE_HEADERS
    )


async def _events(parts: Services, visitor: Visitor, model: str, question: str) -> AsyncIterator[str]:
    try:
        async with aclosing(view.ask(parts, visitor.known, model, question)) as items:
            async for item in items:
                if isinstance(item, Delta):
                    yield event("text", orjson.dumps(item.text).decode())
                elif isinstance(item, Final):
                    yield event("final", _answer_html(model, item))
    except Exception as error:  # the boundary of a stream that has begun: told in the stream
        yield event("error", _answer_html(model, shown_error(error)))


async def _whole(parts: Services, visitor: Visitor, model: str, question: str) -> Outcome:
    try:
        async with aclosing(view.ask(parts, visitor.known, model, question)) as items:
            async for item in items:
                if isinstance(item, Final):
                    return item
    except MainstayError as error:
        return error
    return MainstayError("The answer ended before it was whole.")


def _answer_html(model: str, outcome: Outcome) -> str:
    return TEMPLATES.get_template("_answer.html").render(model=model, outcome=outcome, **_pick(outcome))


def _pick(outcome: Outcome) -> dict[str, object]:
    final = outcome if isinstance(outcome, Final) else None
    return {"final": final, "facts": final.extension() if final else {}}


def _check(model: str, question: str) -> None:
    if not model:
        raise InvalidInput("Choose an app or a model to ask.")
    if not question.strip():
        raise InvalidInput("There is no question.", fix="Write one and send it again.")
    if len(question) > QUESTION_CHARS_MAX:
        raise InvalidInput(f"The question is longer than {QUESTION_CHARS_MAX} characters.")


def _page(
    request: Request,
    visitor: Visitor,
    parts: Services,
    chosen: tuple[str, str],
    question: str,
    answers: tuple[tuple[str, Outcome], ...],
    status: int = 200,
) -> Response:
    offered = view.choices(parts)
    model = chosen[0] or next(iter((*offered.apps, *offered.models)), "")
    same = Same((mainstay("ask", model or "APP", question or "…"),), (("POST", "/v1/chat/completions"),))
    return render(
        request,
        visitor,
        "playground.html",
        status=status,
        offered=offered,
        model=model,
        other=chosen[1],
        question=question,
        answers=[(name, outcome, _pick(outcome)) for name, outcome in answers],
        same=same,
    )

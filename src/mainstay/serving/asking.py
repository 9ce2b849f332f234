"""Asking apps in process: the form in which evaluation and replay see an answer."""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.core.errors import MainstayError
from mainstay.core.ids import new_trace_id
from mainstay.evaluate.types import Answered, AppCaller
from mainstay.govern.types import Identity
from mainstay.models.types import ChatCall, ChatMessage
from mainstay.serving.deps import Deps
from mainstay.serving.pipeline import ask
from mainstay.serving.types import Call, ChatRequest, Final, citation_body, passage_body


def app_caller(deps: Deps, identity: Identity) -> AppCaller:
    """Evaluation's way to ask: each question alone, past the cache; a failure is an answer with `error`."""

    async def call(model: str, question: str) -> Answered:
        return await ask_messages(deps, identity, model, (ChatMessage("user", question),))

    return call


async def ask_messages(
    deps: Deps,
    identity: Identity,
    model: str,
    messages: Sequence[ChatMessage],
    *,
    replay_of: str | None = None,
) -> Answered:
    """One answer. Errors Mainstay raises on purpose end in `Answered.error`; others go on.

    A caller that is a key keeps its models, its budget and its rate limit here, too.
    """
    call = Call(
        request=ChatRequest(model, ChatCall("", tuple(messages))),
        identity=identity,
        key=deps.snapshots.current.key_of(identity),
        trace_id=new_trace_id(),
        replay_of=replay_of,
        cache="skip",
    )
    try:
        return answered(await ask(call, deps))
    except MainstayError as error:
        return Answered(
            text="",
            refused=False,
            citations=(),
            passages=(),
            grounded_share=None,
            answered_by="none",
            cost_nusd=None,
            latency_ms=0.0,
            trace_id=call.trace_id or "",
            error=f"{error.code}: {error}",
        )


def answered(final: Final) -> Answered:
    return Answered(
        text=final.text,
        refused=final.refused,
        citations=tuple(citation_body(c) for c in final.citations),
        passages=tuple(passage_body(p) for p in final.passages),
        grounded_share=final.grounding.supported_share,
        answered_by=final.answered_by,
        cost_nusd=final.cost_nusd,
        latency_ms=final.latency_ms,
        trace_id=final.trace_id,
    )

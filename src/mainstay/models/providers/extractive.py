"""`local/extractive`: answers with the source's own sentences. Deterministic, free, cannot invent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final, Protocol

from mainstay.models.collect import collect
from mainstay.models.errors import ProviderError, ProviderTimeout
from mainstay.models.tokens import token_estimate
from mainstay.models.types import (
    Capability,
    ChatCall,
    Completion,
    Delta,
    SourcePassage,
    Usage,
    WireFormat,
)

REFUSAL: Final = "The sources do not say."


class SentenceSelector(Protocol):
    """What `local/extractive` needs from retrieval: the source sentences that answer a question best."""

    def __call__(self, question: str, passages: tuple[SourcePassage, ...]) -> tuple[tuple[str, int], ...]:
        """(sentence, passage number), best first; empty when no sentence supports an answer."""
        ...


class Extractive:
    """Joins the sentences a selector finds, best first, each followed by its passage number: `… [2]`.

    Says REFUSAL when no sentence supports an answer, or when the call brings no passages.
    """

    name = "local"
    supports: frozenset[Capability] = frozenset({"temperature", "top_p", "seed"})
    """Nothing is sampled, so that sampling fields are fulfilled by leaving them out."""
    wire_format: WireFormat | None = None

    def __init__(self, selector: SentenceSelector | None, sentences_max: int = 3) -> None:
        self._selector = selector
        self._sentences_max = sentences_max

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """One delta a sentence. Raises ProviderTimeout, or ProviderError without a selector."""
        question = call.question or _last_user_message(call)
        picked = await self._select(question, call, deadline_s)
        pieces = [f"{sentence.strip()} [{number}]" for sentence, number in picked] or [REFUSAL]
        for index, piece in enumerate(pieces):
            yield Delta(text=piece if index == 0 else f" {piece}")
        yield Delta(finish_reason="stop", usage=_usage(question, call, " ".join(pieces)))

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        return await collect(self.stream(call, deadline_s))

    async def _select(self, question: str, call: ChatCall, deadline_s: float) -> list[tuple[str, int]]:
        if self._selector is None:
            raise ProviderError(
                "local/extractive has no sentence selector.",
                provider=self.name,
                fix="Run `mainstay models add minilm`, then restart.",
            )
        if not call.passages or not question:
            return []
        try:
            async with asyncio.timeout(deadline_s):
                found = await asyncio.to_thread(self._selector, question, call.passages)
        except TimeoutError as error:
            raise ProviderTimeout(
                f"No sentence was selected within {deadline_s:g} s.", provider=self.name
            ) from error
        return _in_reading_order(list(found)[: self._sentences_max], call.passages)

    async def close(self) -> None:
        """Nothing is held."""


def _in_reading_order(
    picked: list[tuple[str, int]], passages: Sequence[SourcePassage]
) -> list[tuple[str, int]]:
    """The best sentence's passage first; sentences of one passage as they stand in it."""
    texts = {passage.number: passage.text for passage in passages}
    ranks = {number: rank for rank, (_, number) in reversed(list(enumerate(picked)))}
    return sorted(picked, key=lambda item: (ranks[item[1]], texts[item[1]].find(item[0])))


def _last_user_message(call: ChatCall) -> str:
    return next((m.content for m in reversed(call.messages) if m.role == "user"), "")


def _usage(question: str, call: ChatCall, answer: str) -> Usage:
    read = token_estimate(question) + sum(token_estimate(p.text) for p in call.passages)
    return Usage(input_tokens=read, output_tokens=token_estimate(answer), estimated=True)

"""The output of one response, built from deltas, or from a finished choice at once: the same items either way.

Reasoning and messages follow one another: when another kind of item begins, the one before is done. Words
after a function call are a new message. Only the first choice is read: a response has one.
"""

from __future__ import annotations

from typing import Any

from mainstay.models.types import Choice, Delta, ToolCallDelta
from mainstay.serving.surfaces.responses_items import (
    CallItem,
    Event,
    Item,
    MessageItem,
    PendingCall,
    ReasoningItem,
    Status,
)


class Output:
    """`key` is the response's id without its prefix; item ids are made of it, so that an item tells its response.

    `as_summary`: reasoning is shown as a summary; `shows_secret`: events carry a provider's hidden reasoning.
    """

    def __init__(self, key: str, *, as_summary: bool, shows_secret: bool) -> None:
        self._key = key
        self._as_summary = as_summary
        self._shows_secret = shows_secret
        self._items: list[Item] = []
        self._open: Item | None = None
        self._calls: dict[int, CallItem] = {}
        self._pending: dict[int, PendingCall] = {}

    def bodies(self, *, secret: bool) -> list[dict[str, Any]]:
        return [item.body(secret=secret) for item in self._items]

    def take(self, delta: Delta) -> list[Event]:
        if delta.index:
            return []
        events: list[Event] = []
        if delta.reasoning:
            events += self._reasoning(events).text(delta.reasoning)
        if delta.thinking is not None:
            events += self._reasoning(events).finish(delta.thinking)
            self._open = None
        if delta.text or delta.logprobs:
            events += self._message(events).text(delta.text, delta.logprobs)
        if delta.refusal:
            events += self._message(events).refusal(delta.refusal)
        for piece in delta.tool_calls:
            events += self._piece(piece)
        return events

    def finish(self, choice: Choice) -> list[Event]:
        """What the choice has and no delta brought, then the end of every open item."""
        events = [
            *self._missing_reasoning(choice),
            *self._missing_words(choice),
            *self._missing_calls(choice),
        ]
        for index, pending in sorted(self._pending.items()):
            events += self._begin_call(index, pending, "")
        if not self._items:
            self._message(events)
        last: Status = "incomplete" if choice.finish_reason in ("length", "content_filter") else "completed"
        for item in self._items:
            if item.is_open:
                events += item.close(last if item is self._items[-1] else "completed")
        self._open = None
        return events

    def abandon(self) -> None:
        """The answer broke off: what is open will never be complete."""
        for item in self._items:
            if item.is_open:
                item.status = "incomplete"

    def _missing_reasoning(self, choice: Choice) -> list[Event]:
        shown = [item.words for item in self._items if isinstance(item, ReasoningItem)]
        if shown:
            rest = _rest("".join(shown), choice.reasoning)
            return self.take(Delta(reasoning=rest)) if rest else []
        events: list[Event] = []
        told = choice.reasoning if not any(block.text for block in choice.thinking) else ""
        if told:
            events += self.take(Delta(reasoning=told))
        for block in choice.thinking:
            # Words before a block that belong to none are an item of their own: a signature is for its block's.
            gap, found, _ = (
                choice.reasoning[len(told) :].partition(block.text) if block.text else ("", "", "")
            )
            if found and gap:
                events += [*self.take(Delta(reasoning=gap)), *self._end_open()]
            told += gap + found if found else ""
            events += self.take(Delta(thinking=block))
        # Blocks that say it in other words say it all.
        rest = choice.reasoning[len(told) :] if told or not choice.thinking else ""
        return [*events, *(self.take(Delta(reasoning=rest)) if rest else [])]

    def _missing_words(self, choice: Choice) -> list[Event]:
        """Words once sent stay: where the choice differs from them, what the reader saw is what is kept."""
        messages = [item for item in self._items if isinstance(item, MessageItem)]
        text = _rest("".join(item.words("output_text") for item in messages), choice.text)
        refusal = _rest("".join(item.words("refusal") for item in messages), choice.refusal)
        logprobs = () if messages else choice.logprobs
        return self.take(Delta(text=text, refusal=refusal, logprobs=logprobs))

    def _missing_calls(self, choice: Choice) -> list[Event]:
        events: list[Event] = []
        known = sorted(self._calls)
        for place, call in enumerate(choice.tool_calls):
            if place < len(known):
                rest = _rest(self._calls[known[place]].arguments, call.arguments)
                events += self._calls[known[place]].append(rest)
            elif not self._pending:
                index = max(self._calls, default=-1) + 1
                events += self._piece(ToolCallDelta(index, call.id, call.name, call.arguments))
        return events

    def _reasoning(self, events: list[Event]) -> ReasoningItem:
        if not isinstance(self._open, ReasoningItem):
            place = len(self._items)
            item = ReasoningItem(
                f"rs_{self._key}_{place}", place, as_summary=self._as_summary, shows_secret=self._shows_secret
            )
            self._begin(item, events)
        assert isinstance(self._open, ReasoningItem)
        return self._open

    def _message(self, events: list[Event]) -> MessageItem:
        if not isinstance(self._open, MessageItem):
            self._begin(MessageItem(f"msg_{self._key}_{len(self._items)}", len(self._items)), events)
        assert isinstance(self._open, MessageItem)
        return self._open

    def _piece(self, piece: ToolCallDelta) -> list[Event]:
        call = self._calls.get(piece.index)
        if call is not None:
            return call.append(piece.arguments)
        pending = self._pending.setdefault(piece.index, PendingCall())
        pending.take(piece)
        return self._begin_call(piece.index, pending, piece.name) if piece.name else []

    def _begin_call(self, index: int, pending: PendingCall, name: str) -> list[Event]:
        self._pending.pop(index, None)
        events: list[Event] = []
        place = len(self._items)
        call_id = pending.call_id or f"call_{index}"
        call = CallItem(f"fc_{self._key}_{place}", place, call_id, name)
        self._begin(call, events)
        self._calls[index] = call
        self._open = None
        return [*events, *call.append("".join(pending.arguments))]

    def _end_open(self) -> list[Event]:
        item, self._open = self._open, None
        return item.close("completed") if item is not None else []

    def _begin(self, item: Item, events: list[Event]) -> None:
        events += self._end_open()
        self._items.append(item)
        self._open = item
        events.append(item.added())


def _rest(sent: str, whole: str) -> str:
    return whole[len(sent) :] if whole.startswith(sent) else ""

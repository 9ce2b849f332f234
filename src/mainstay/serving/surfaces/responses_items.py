"""The output items of a response as they grow: each says which events its growth is, and what it is at last.

An event is (type, fields); who streams adds the sequence number. Order and fields follow OpenAI's API
reference, "Streaming events".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mainstay.models.types import Thinking, ToolCallDelta
from mainstay.serving.surfaces.responses_secrets import sealed

Event = tuple[str, dict[str, Any]]
Status = Literal["in_progress", "completed", "incomplete"]


class Item:
    """What all items share: an id, a place in the output, and events that name both."""

    shows_secret = False
    """Whether its events carry what only its provider can read."""

    def __init__(self, item_id: str, index: int) -> None:
        self.id = item_id
        self.index = index
        self.status: Status = "in_progress"

    @property
    def is_open(self) -> bool:
        return self.status == "in_progress"

    def body(self, *, secret: bool = False) -> dict[str, Any]:
        """As it is in the response; `secret`: with what only its provider can read."""
        raise NotImplementedError

    def added(self) -> Event:
        return "response.output_item.added", {"output_index": self.index, "item": self.body()}

    def close(self, status: Status) -> list[Event]:
        self.status = status
        item = self.body(secret=self.shows_secret)
        return [("response.output_item.done", {"output_index": self.index, "item": item})]

    def event(self, name: str, /, **fields: Any) -> Event:
        return f"response.{name}", {"item_id": self.id, "output_index": self.index, **fields}


class MessageItem(Item):
    """The assistant's words: parts of text and of refusal, in the order in which they came."""

    def __init__(self, item_id: str, index: int) -> None:
        super().__init__(item_id, index)
        self._parts: list[_Part] = []

    def text(self, text: str, logprobs: Sequence[Mapping[str, Any]]) -> list[Event]:
        events, part = self._part("output_text")
        told = [_logprob(item) for item in logprobs]
        part.words.append(text)
        part.logprobs.extend(told)
        return [*events, self._event(part, "output_text.delta", delta=text, logprobs=told)]

    def refusal(self, text: str) -> list[Event]:
        events, part = self._part("refusal")
        part.words.append(text)
        return [*events, self._event(part, "refusal.delta", delta=text)]

    def close(self, status: Status) -> list[Event]:
        events = [] if self._parts else self._part("output_text")[0]
        return [*events, *self._part_done(), *super().close(status)]

    def body(self, *, secret: bool = False) -> dict[str, Any]:
        content = [part.body() for part in self._parts]
        return {
            "id": self.id,
            "type": "message",
            "status": self.status,
            "role": "assistant",
            "content": content,
        }

    def words(self, kind: str) -> str:
        return "".join("".join(part.words) for part in self._parts if part.kind == kind)

    def _part(self, kind: str) -> tuple[list[Event], _Part]:
        if self._parts and self._parts[-1].kind == kind:
            return [], self._parts[-1]
        events = self._part_done()
        part = _Part(kind, len(self._parts))
        self._parts.append(part)
        return [*events, self._event(part, "content_part.added", part=part.body())], part

    def _part_done(self) -> list[Event]:
        if not self._parts:
            return []
        part = self._parts[-1]
        words = part.body()
        if part.kind == "refusal":
            done = self._event(part, "refusal.done", refusal=words["refusal"])
        else:
            done = self._event(part, "output_text.done", text=words["text"], logprobs=words["logprobs"])
        return [done, self._event(part, "content_part.done", part=words)]

    def _event(self, part: _Part, name: str, /, **fields: Any) -> Event:
        return self.event(name, content_index=part.index, **fields)


class _Part:
    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.words: list[str] = []
        self.logprobs: list[dict[str, Any]] = []

    def body(self) -> dict[str, Any]:
        words = "".join(self.words)
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": words}
        return {"type": "output_text", "annotations": [], "logprobs": list(self.logprobs), "text": words}


class CallItem(Item):
    """A function call. It stays open to the end of the answer: pieces of parallel calls may come mixed."""

    def __init__(self, item_id: str, index: int, call_id: str, name: str) -> None:
        super().__init__(item_id, index)
        self.call_id = call_id
        self.name = name
        self._arguments: list[str] = []

    @property
    def arguments(self) -> str:
        return "".join(self._arguments)

    def append(self, arguments: str) -> list[Event]:
        if not arguments:
            return []
        self._arguments.append(arguments)
        return [self.event("function_call_arguments.delta", delta=arguments)]

    def close(self, status: Status) -> list[Event]:
        done = self.event("function_call_arguments.done", name=self.name, arguments=self.arguments)
        return [done, *super().close(status)]

    def body(self, *, secret: bool = False) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
        }


class PendingCall:
    """Pieces of a call whose name has not come yet."""

    def __init__(self) -> None:
        self.call_id: str | None = None
        self.arguments: list[str] = []

    def take(self, piece: ToolCallDelta) -> None:
        self.call_id = self.call_id or piece.id
        self.arguments.append(piece.arguments)


class ReasoningItem(Item):
    """What a model thought: the words as `summary` when the request asked for one, else as `content`.

    What its provider wants back is in `encrypted_content`, which is shown only to whom asked for it.
    """

    def __init__(self, item_id: str, index: int, *, as_summary: bool, shows_secret: bool) -> None:
        super().__init__(item_id, index)
        self.shows_secret = shows_secret
        self._as_summary = as_summary
        self._words: list[str] = []
        self.block: Thinking | None = None

    @property
    def words(self) -> str:
        return "".join(self._words)

    def text(self, text: str) -> list[Event]:
        if not text:
            return []
        events = [] if self._words else [self._opened()]
        self._words.append(text)
        name = "reasoning_summary_text.delta" if self._as_summary else "reasoning_text.delta"
        return [*events, self._event(name, delta=text)]

    def finish(self, block: Thinking) -> list[Event]:
        """The block that these words were; it ends the item."""
        rest = block.text[len(self.words) :] if block.text.startswith(self.words) else ""
        events = self.text(rest)
        self.block = block
        return [*events, *self.close("completed")]

    def close(self, status: Status) -> list[Event]:
        return [*self._closed(), *super().close(status)]

    def body(self, *, secret: bool = False) -> dict[str, Any]:
        words = self.block.text if secret and self.block and self.block.text else self.words
        part = {"type": "summary_text" if self._as_summary else "reasoning_text", "text": words}
        body: dict[str, Any] = {"id": self.id, "type": "reasoning", "status": self.status}
        body["summary"] = [part] if words and self._as_summary else []
        if words and not self._as_summary:
            body["content"] = [part]
        if secret:
            body["encrypted_content"] = sealed(self.block)
        return body

    def _opened(self) -> Event:
        if self._as_summary:
            return self._event("reasoning_summary_part.added", part={"type": "summary_text", "text": ""})
        return self._event("content_part.added", part={"type": "reasoning_text", "text": ""})

    def _closed(self) -> list[Event]:
        words = self.words
        if not words:
            return []
        if self._as_summary:
            part = {"type": "summary_text", "text": words}
            done = self._event("reasoning_summary_text.done", text=words)
            return [done, self._event("reasoning_summary_part.done", part=part)]
        part = {"type": "reasoning_text", "text": words}
        return [self._event("reasoning_text.done", text=words), self._event("content_part.done", part=part)]

    def _event(self, name: str, /, **fields: Any) -> Event:
        place = {"summary_index": 0} if self._as_summary else {"content_index": 0}
        return self.event(name, **place, **fields)


def _logprob(item: Mapping[str, Any]) -> dict[str, Any]:
    """A chat `content` item in the form of a response's, where every list is given."""
    return {
        "token": item.get("token"),
        "bytes": item.get("bytes") or [],
        "logprob": item.get("logprob"),
        "top_logprobs": [
            {"token": top.get("token"), "bytes": top.get("bytes") or [], "logprob": top.get("logprob")}
            for top in item.get("top_logprobs") or ()
        ],
    }

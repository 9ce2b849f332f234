"""Where a Gemini thought signature belongs, kept in the normal form's block of thinking.

Gemini signs parts of any kind: thoughts, texts and calls of functions. Each signature must come back on the part
it came with, while clients keep blocks of thinking with one string each, apart from texts and calls. So the string
that clients hold names the place: `gemini:PLACE:SIGNATURE`. A block without this mark is another vendor's, and is
left out; a call that nobody signed is sent with the value that Google documents for such histories.

Source: Gemini API, "Thought signatures", as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from mainstay.models.types import Thinking

MARK: Final = "gemini:"
UNVOUCHED: Final = "skip_thought_signature_validator"
"""For calls from elsewhere: Gemini 3 refuses the first call of a step that has no signature."""

THOUGHT: Final = "thought"
TEXT: Final = "text"
END: Final = "end"
_CALL: Final = "call="


def is_geminis(block: Thinking) -> bool:
    """Whether a block was signed by Gemini, so that no other vendor may be sent it."""
    return block.signature is not None and block.signature.startswith(MARK)


def call_place(call_id: str) -> str:
    return f"{_CALL}{call_id}"


def signed(place: str, signature: str, text: str = "") -> Thinking:
    """A block of thinking that carries the signature of the part at `place`."""
    return Thinking(text, signature=f"{MARK}{place}:{signature}")


class Signatures:
    """The signatures of one message, by where they belong.

    `text`: of its last text; `end`: of an empty part after it; `calls`: by the id of the call.
    """

    def __init__(self, blocks: Iterable[Thinking]) -> None:
        self.text: str | None = None
        self.end: str | None = None
        self.calls: dict[str, str] = {}
        self._thoughts: list[tuple[str, str]] = []
        for block in blocks:
            if block.signature is not None and is_geminis(block):
                place, _, signature = block.signature.removeprefix(MARK).rpartition(":")
                self._take(place, signature, block.text)

    def thoughts(self) -> Iterator[dict[str, Any]]:
        """Thoughts that were signed themselves, as parts."""
        for text, signature in self._thoughts:
            yield {"text": text, "thought": True, "thoughtSignature": signature}

    def _take(self, place: str, signature: str, text: str) -> None:
        if place == THOUGHT:
            self._thoughts.append((text, signature))
        elif place == TEXT:
            self.text = signature
        elif place == END:
            self.end = signature
        elif place.startswith(_CALL):
            self.calls[place.removeprefix(_CALL)] = signature

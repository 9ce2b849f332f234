"""What a provider wants back of its reasoning, in the one opaque field that clients hand back: `encrypted_content`.

A block may have a signature of its visible text, or hidden text instead, and the id that its provider gave it.
Item ids here are our own, so the provider's travels inside. Content without our mark came from OpenAI itself:
it goes with its item's id. Nothing here is secret from the client: the provider signed or encrypted it.
"""

from __future__ import annotations

from typing import Final

from mainstay.models.types import Thinking

_MARK: Final = "mainstay.1"
_SIGNED: Final = "signed"
_HIDDEN: Final = "hidden"


def sealed(block: Thinking | None) -> str | None:
    """None when there is nothing to hand back."""
    if block is None:
        return None
    if block.signature is not None:
        return ":".join((_MARK, _SIGNED, block.id or "", block.signature))
    if block.encrypted is not None:
        return ":".join((_MARK, _HIDDEN, block.id or "", block.encrypted))
    return None


def opened(content: str, text: str, item_id: str | None) -> Thinking | None:
    """The block that `content` stands for, with its visible `text`; None when our mark is there but the rest is not."""
    if not content.startswith(f"{_MARK}:"):
        return Thinking(text, encrypted=content, id=item_id)
    _, *rest = content.split(":", 3)
    if len(rest) != 3 or rest[0] not in (_SIGNED, _HIDDEN):
        return None
    kind, block_id, payload = rest
    if kind == _SIGNED:
        return Thinking(text, signature=payload, id=block_id or None)
    return Thinking(text, encrypted=payload, id=block_id or None)

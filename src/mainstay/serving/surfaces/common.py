"""What the surfaces share: readers of JSON fields that name what is wrong, and the frames of event streams.

A reader takes a value and its path in the request, and returns it checked or raises BadField. None never
reaches a reader: JSON `null` means that the field was left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, cast

import orjson

from mainstay.core.money import usd_text
from mainstay.models.types import CacheMark, MediaPart, Part, TextPart
from mainstay.serving.errors import BadField
from mainstay.serving.types import UNCHECKED, ChatRequest
from mainstay.serving.types import Final as FinalAnswer

Reader = Callable[[Any, str], Any]

NAME_CHARACTERS_MAX: Final = 256
NESTING_MAX: Final = 100
"""Of values that may be written as JSON again: what is deeper than some 250 levels could not be."""
_NUMBERS: Final = (int, float)
_CONTAINERS: Final = (dict, list)


def text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value or value.isspace():
        raise BadField(where, "must be a string that is not empty.")
    return value


def string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadField(where, "must be a string.")
    return value


def model_name(value: Any, where: str) -> str:
    name = text(value, where)
    if len(name) > NAME_CHARACTERS_MAX:
        raise BadField(where, f"has {len(name)} characters; a name has {NAME_CHARACTERS_MAX} at most.")
    return name


def flag(value: Any, where: str) -> bool:
    if value is True or value is False:
        return value
    raise BadField(where, "must be true or false.")


def number(low: float, high: float) -> Reader:
    def read(value: Any, where: str) -> float:
        if not isinstance(value, _NUMBERS) or isinstance(value, bool):
            raise BadField(where, "must be a number.")
        if not low <= value <= high:
            raise BadField(where, f"must be from {low:g} to {high:g}.")
        return float(value)

    return read


def whole_number(low: int | None = None, high: int | None = None) -> Reader:
    def read(value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadField(where, "must be a whole number.")
        if low is not None and value < low:
            raise BadField(where, f"must be at least {low}.")
        if high is not None and value > high:
            raise BadField(where, f"must be at most {high}.")
        return value

    return read


def inner(value: Any, where: str) -> Mapping[str, Any]:
    """An object inside of one whose depth was bounded."""
    if not isinstance(value, dict):
        raise BadField(where, "must be an object.")
    return value


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """An object that is kept as it is, so it is bounded in depth."""
    return inner(bounded(value, where), where)


def items(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadField(where, "must be a list.")
    return value


def one_of(*allowed: str) -> Reader:
    def read(value: Any, where: str) -> str:
        if value not in allowed:
            raise BadField(where, f"must be one of {', '.join(allowed)}; got {shown(value)}.")
        return cast(str, value)

    return read


def shown(value: Any) -> str:
    """A value as a message may repeat it; of lists and objects the kind alone, as they may be deep."""
    if isinstance(value, _CONTAINERS):
        return "a list" if isinstance(value, list) else "an object"
    written = repr(value)
    return written if len(written) <= 80 else f"{written[:80]}…"


def bounded(value: Any, where: str) -> Any:
    if isinstance(value, _CONTAINERS) and _is_deep(value, NESTING_MAX):
        raise BadField(where, f"is nested more than {NESTING_MAX} levels deep.")
    return value


def bound_members(item: Mapping[str, Any], where: str, walked: str = "") -> None:
    """Bound the depth of all members but the one that is `walked` by its own reader: even what nobody reads
    may be passed through as JSON."""
    for name, value in item.items():
        if isinstance(value, _CONTAINERS) and name != walked:
            bounded(value, f"{where}.{name}")


def _is_deep(value: Any, levels: int) -> bool:
    if not isinstance(value, _CONTAINERS):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(item, levels - 1) for item in inner)


_CACHE_MARKS: Final = {"5m": CacheMark("5m"), "1h": CacheMark("1h")}


def cache_mark(item: Mapping[str, Any], where: str) -> CacheMark | None:
    """The `cache_control` of a block, tool or message, in Anthropic's form."""
    control = item.get("cache_control")
    if control is None:
        return None
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise BadField(f"{where}.cache_control", 'must be an object of type "ephemeral".')
    ttl = control.get("ttl") or "5m"
    if ttl not in ("5m", "1h"):
        raise BadField(f"{where}.cache_control.ttl", f"must be 5m or 1h; got {shown(ttl)}.")
    return _CACHE_MARKS[ttl]


def joined(parts: tuple[Part, ...]) -> str:
    """The text of parts; a single text is not copied."""
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return texts[0] if len(texts) == 1 else "".join(texts)


def data_url(url: str) -> tuple[str, str] | None:
    """(media type, base64) of a `data:` URL; None when it is another URL, or not base64."""
    if not url.startswith("data:"):
        return None
    comma = url.find(",", 5, 300)
    head = url[5:comma].split(";") if comma > 0 else []
    if len(head) < 2 or head[-1] != "base64" or not head[0]:
        return None
    return head[0], url[comma + 1 :]


def media_by_url(value: Any, where: str, **more: Any) -> MediaPart:
    """An image or file by its URL, or inside a `data:` URL."""
    url = text(value, where)
    inline = data_url(url)
    if inline is not None:
        return MediaPart(media_type=inline[0], data=inline[1], **more)
    if url.startswith(("http://", "https://")):
        return MediaPart(url=url, **more)
    raise BadField(where, "must be an http(s) URL or a data URL with a media type and base64.")


def answering_name(final: FinalAnswer, request: ChatRequest) -> str:
    """What a response calls its `model`: the app asked for, or the model that answered."""
    if final.app is not None or (final.response_model is None and final.answered_by == "refusal"):
        return request.model
    return final.response_model or final.answered_by


def spliced(raw: bytes, name: str, value: bytes) -> bytes:
    """A JSON object's bytes with one more member at its end; unchanged when they do not end in `}`."""
    body = raw.rstrip()
    if not body.endswith(b"}"):
        return raw
    inner = body[:-1].rstrip()
    comma = b"" if inner.endswith(b"{") else b","
    return b"".join((inner, comma, b'"', name.encode(), b'":', value, b"}"))


def extension(final: FinalAnswer) -> bytes:
    """`final.extension()` as JSON: for most answers there is little to say, and a template says it."""
    if (
        final.guard
        or final.citations
        or final.grounding is not UNCHECKED
        or final.cost_nusd is None
        or not final.trace_id.isalnum()  # else JSON might have to escape it
    ):
        return orjson.dumps(final.extension())
    answered_by = _answered_by(
        final.app, final.release, final.release_digest, final.environment, final.answered_by
    )
    latency_ms = orjson.dumps(round(final.latency_ms, 3))
    return (
        f'{{"trace_id":"{final.trace_id}",{answered_by}'
        f'"cost_nusd":{final.cost_nusd},"cost_usd":"{usd_text(final.cost_nusd)}",'
        f'"cost_source":"{final.cost_source}","latency_ms":{latency_ms.decode()},"cache":"{final.cache}",'
        f'"refused":{"true" if final.refused else "false"},{_UNCHECKED}'
    ).encode()


@lru_cache(maxsize=1024)
def _answered_by(
    app: str | None, release: int | None, digest: str | None, environment: str | None, answered_by: str
) -> str:
    """Members that all answers of one release or target share."""
    said = {
        "app": app,
        "release": release,
        "release_digest": digest,
        "environment": environment,
        "answered_by": answered_by,
    }
    return orjson.dumps(said).decode()[1:-1] + ","


_UNCHECKED: Final = '"grounding":{"supported_share":null,"removed":[],"flagged":[],"fallback":null},"citations":[],"guard":[]}'


def renamed(said: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """An `error` object whose field is called as its own surface calls it, not as a chat request does.

    Routing and providers know the normal form alone: its messages are numbered otherwise than the client's items,
    so what they say of one of them names the whole conversation.
    """
    field = said.get("param")
    if not isinstance(field, str):
        return dict(said)
    head, rest = _HEAD.fullmatch(field).groups()  # type: ignore[union-attr]  # it matches every text
    if head == "messages" and "provider" not in (said.get("mainstay") or {}) and "messages" not in names:
        return dict(said)
    rest = "" if head == "messages" else rest.replace(".function", "")
    name = names.get(head, head) + rest
    message: str = said["message"]
    if message.startswith(f"{field}:"):
        message = name + message.removeprefix(field)
    return {**said, "param": name, "message": message.replace(repr(field), repr(name))}


_HEAD: Final = re.compile(r"([^.\[]*)(.*)", re.DOTALL)


def data_frame(payload: bytes) -> bytes:
    """An SSE frame without a name; a line break inside the payload starts another `data:` line."""
    if b"\n" in payload or b"\r" in payload:
        payload = b"\ndata: ".join(payload.splitlines())
    return b"data: " + payload + b"\n\n"


def named_frame(event: str, payload: bytes) -> bytes:
    return b"event: " + event.encode() + b"\n" + data_frame(payload)

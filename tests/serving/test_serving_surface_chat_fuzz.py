"""Whatever a body holds, a surface either reads it or says which field is wrong; what it keeps can be sent on."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surface_kit import deep

from mainstay.serving.errors import BadField
from mainstay.serving.surfaces import Surface
from mainstay.serving.surfaces.chat import ChatSurface
from mainstay.serving.surfaces.completions import CompletionsSurface
from mainstay.serving.surfaces.messages import MessagesSurface

MARK = {"type": "ephemeral", "ttl": "1h"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT: Any = {
    "model": "m",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "a", "cache_control": MARK}]},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                {"type": "file", "file": {"file_data": "AA==", "filename": "a.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            "thinking_blocks": [{"type": "thinking", "thinking": "x", "signature": "s"}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    "stream_options": {"include_usage": True},
    "logit_bias": {"5": 1},
    "stop": ["x"],
    "n": 2,
    "logprobs": True,
    "top_logprobs": 2,
    "temperature": 1,
    "reasoning_effort": "low",
    "metadata": {"a": "b"},
    "modalities": ["text"],
    "vendor": {"a": [1]},
}
MESSAGES: Any = {
    "model": "m",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "a", "cache_control": MARK}],
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "a",
                    "is_error": True,
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}],
                },
                {
                    "type": "document",
                    "title": "t",
                    "citations": {"enabled": True},
                    "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                },
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "x", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": [1]}},
            ],
        },
    ],
    "tools": [
        {"name": "f", "input_schema": SCHEMA, "input_examples": [{"city": "x"}], "cache_control": MARK}
    ],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["x"],
    "vendor": {"a": [1]},
}
COMPLETIONS: Any = {
    "model": "m",
    "prompt": ["x"],
    "suffix": "",
    "stop": ["x"],
    "logit_bias": {"5": 1},
    "stream_options": {"include_usage": True},
    "vendor": {"a": [1]},
}
BODIES: dict[str, tuple[Surface, Any]] = {
    "chat": (ChatSurface(), CHAT),
    "messages": (MessagesSurface(), MESSAGES),
    "completions": (CompletionsSurface(), COMPLETIONS),
}
Path = tuple[Any, ...]


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where something can be put in place of a value, or beside the members of an object."""
    if isinstance(value, dict):
        yield (*path, "odd")
        for name, inner in value.items():
            yield (*path, name)
            yield from paths(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield (*path, index)
            yield from paths(inner, (*path, index))


def changed(body: Any, path: Path, value: Any) -> Any:
    copy = deepcopy(body)
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return copy


def refused_field(surface: Surface, body: Any) -> str | None:
    """The field that reading complains of; None when the body is read, and what is kept is JSON."""
    try:
        call = surface.read(body).call
    except BadField as refusal:
        param = refusal.detail["param"]
        assert isinstance(param, str)
        return param
    orjson.dumps([call.source, call.extra, [t.parameters for t in call.tools]])
    return None


@pytest.mark.parametrize("name", BODIES)
def test_the_untouched_body_is_read(name: str) -> None:
    surface, body = BODIES[name]
    assert surface.read(body).model == "m"


@pytest.mark.parametrize("name", BODIES)
def test_nothing_deep_passes_anywhere(name: str) -> None:
    surface, body = BODIES[name]
    for path in paths(body):
        for value in (deep(110), deep(900)):
            with pytest.raises(BadField):
                surface.read(changed(body, path, value))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("name", BODIES)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_is_read_or_refused_by_name(name: str, data: st.DataObject) -> None:
    surface, body = BODIES[name]
    path = data.draw(st.sampled_from(list(paths(body))))
    assert refused_field(surface, changed(body, path, data.draw(_JSON))) != ""

"""The data plane's OpenAPI document (OpenAPI 3.1.0, JSON Schema 2020-12), served at `GET /v1/openapi.json`.

It says what is read and checked here. Fields that it does not name are passed on to a provider of the same
format and refused for any other, so objects are open; `null` means that a field was left out.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import orjson

from mainstay import __version__

Schema = dict[str, Any]

_ID: Final = "^[A-Za-z0-9_-]{1,128}$"
_TITLES: Final = {
    "200": "The answer.",
    "400": "The request is wrong, or cannot be answered as it is; `param` names the field.",
    "401": "No key, or one that is not valid.",
    "403": "The key may not ask for this.",
    "404": "There is no such model, response or path.",
    "405": "Another method is needed.",
    "413": "The body is larger than `body_limit_mb`.",
    "429": "A limit or a budget refuses; `retry-after` says when to come back.",
    "500": "An error of the gateway; the log has its cause under `error_id`.",
    "502": "No target answered.",
    "503": "Nobody can answer now.",
    "504": "The deadline passed.",
}


def _maybe(schema: Schema) -> Schema:
    """`null` counts as left out."""
    kind = schema.get("type")
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    properties = {**required, **{name: _maybe(schema) for name, schema in (optional or {}).items()}}
    return {"type": "object", "properties": properties, "required": sorted(required)}


def _list(items: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": items, **bounds}


def _number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Final[Schema] = {"type": "string"}
_WORD: Final[Schema] = {"type": "string", "pattern": r"\S"}
_MODEL: Final[Schema] = {"type": "string", "pattern": r"\S", "maxLength": 256}
_FLAG: Final[Schema] = {"type": "boolean"}
_WHOLE: Final[Schema] = {"type": "integer"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_POSITIVE: Final[Schema] = {"type": "integer", "minimum": 1}
_ANY_OBJECT: Final[Schema] = {"type": "object"}
_STOPS: Final[Schema] = {
    "anyOf": [{"type": "string", "minLength": 1}, _list({"type": "string", "minLength": 1}, maxItems=4)]
}
_ROLES: Final = ("user", "system", "developer", "assistant")
_TOOL_NAME: Final[Schema] = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}

_SAMPLING: Final[dict[str, Schema]] = {
    "max_tokens": _POSITIVE,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": {"type": "integer", "minimum": -1},
    "stop": _STOPS,
    "seed": _WHOLE,
    "n": {"type": "integer", "minimum": 1, "maximum": 16},
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "logit_bias": {"type": "object", "additionalProperties": _number(-100, 100)},
    "user": _WORD,
    "stream": _FLAG,
    "stream_options": _object({}, {"include_usage": _FLAG}),
}


def _chat() -> Schema:
    part = {
        "anyOf": [
            _object({"type": {"const": "text"}, "text": _TEXT}),
            _object(
                {
                    "type": {"const": "image_url"},
                    "image_url": _object({"url": {"type": "string", "pattern": "^https://"}}),
                }
            ),
        ]
    }
    content = {"anyOf": [_WORD, _list(part, minItems=1)]}
    function = _object(
        {"name": _TOOL_NAME}, {"description": _TEXT, "parameters": _ANY_OBJECT, "strict": _FLAG}
    )
    return _object(
        {
            "model": _MODEL,
            "messages": _list(
                {"anyOf": [_object({"role": {"const": role}, "content": content}) for role in _ROLES]},
                minItems=1,
            ),
        },
        {
            **_SAMPLING,
            "max_completion_tokens": _POSITIVE,
            "tools": _list(_object({"type": {"const": "function"}, "function": function})),
            "tool_choice": {"anyOf": [{"enum": ["none", "auto", "required"]}, _ANY_OBJECT]},
            "parallel_tool_calls": _FLAG,
            "response_format": _ANY_OBJECT,
            "reasoning_effort": _WORD,
            "logprobs": _FLAG,
            "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
            "metadata": _ANY_OBJECT,
        },
    )


def _completion() -> Schema:
    return _object(
        {"model": _MODEL, "prompt": {"anyOf": [_WORD, _list(_WORD, minItems=1, maxItems=1)]}}, _SAMPLING
    )


def _messages(*, counted: bool) -> Schema:
    block = _object({"type": _TEXT})
    content = {"anyOf": [_WORD, _list(block)]}
    message = _object({"role": {"enum": ["user", "assistant"]}, "content": content})
    tool = _object({"name": _TOOL_NAME, "input_schema": _ANY_OBJECT}, {"description": _TEXT})
    needed: dict[str, Schema] = {"model": _MODEL, "messages": _list(message, minItems=1)}
    optional: dict[str, Schema] = {
        "system": {"anyOf": [_TEXT, _list(block)]},
        "tools": _list(tool),
        "tool_choice": _object({"type": {"enum": ["auto", "any", "none", "tool"]}}),
        "thinking": _ANY_OBJECT,
    }
    if counted:
        return _object(needed, optional)
    return _object(
        {**needed, "max_tokens": _POSITIVE},
        {
            **optional,
            "temperature": _number(0, 1),
            "top_p": _number(0, 1),
            "top_k": _COUNT,
            "stop_sequences": _list({"type": "string", "minLength": 1}, maxItems=64),
            "stream": _FLAG,
            "metadata": _ANY_OBJECT,
        },
    )


def _response_request() -> Schema:
    tool = _object(
        {"type": {"const": "function"}, "name": _TOOL_NAME},
        {"description": _TEXT, "parameters": _ANY_OBJECT, "strict": _FLAG},
    )
    return _object(
        {"model": _MODEL, "input": {"anyOf": [_TEXT, _list(_ANY_OBJECT, minItems=1)]}},
        {
            "instructions": _TEXT,
            "previous_response_id": _TEXT,
            "store": _FLAG,
            "stream": _FLAG,
            "max_output_tokens": _POSITIVE,
            "temperature": _number(0, 2),
            "top_p": _number(0, 1),
            "tools": _list(tool),
            "tool_choice": {"anyOf": [{"enum": ["none", "auto", "required"]}, _ANY_OBJECT]},
            "parallel_tool_calls": _FLAG,
            "reasoning": _ANY_OBJECT,
            "text": _ANY_OBJECT,
            "metadata": {
                "type": "object",
                "additionalProperties": {"type": "string", "maxLength": 512},
                "maxProperties": 16,
            },
        },
    )


def _embeddings() -> Schema:
    texts = {"anyOf": [_WORD, _list(_WORD, minItems=1, maxItems=2048)]}
    optional: dict[str, Schema] = {
        "encoding_format": {"enum": ["float", "base64"]},
        "dimensions": _POSITIVE,
        "user": _TEXT,
    }
    return {**_object({"model": _MODEL, "input": texts}, optional), "additionalProperties": False}


def _answers() -> dict[str, Schema]:
    """What comes back, as far as clients rely on it."""
    choice = _object({"index": _COUNT, "message": _ANY_OBJECT, "finish_reason": _TEXT})
    model = _object({"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT})
    listed = {"object": {"const": "list"}}
    error = _object(
        {"message": _TEXT, "type": _TEXT, "code": _TEXT, "mainstay": _ANY_OBJECT}, {"param": _TEXT}
    )
    return {
        "ChatCompletion": _object(
            {"id": _TEXT, "object": {"const": "chat.completion"}, "model": _TEXT, "choices": _list(choice)},
            {"usage": _ANY_OBJECT},
        ),
        "Completion": _object(
            {
                "id": _TEXT,
                "object": {"const": "text_completion"},
                "model": _TEXT,
                "choices": _list(_object({"text": _TEXT})),
            }
        ),
        "Message": _object(
            {
                "id": _TEXT,
                "type": {"const": "message"},
                "role": {"const": "assistant"},
                "content": _list(_ANY_OBJECT),
                "usage": _ANY_OBJECT,
            }
        ),
        "Response": _object(
            {"id": _TEXT, "object": {"const": "response"}, "status": _TEXT, "output": _list(_ANY_OBJECT)}
        ),
        "DeletedResponse": _object({"id": _TEXT, "deleted": {"const": True}}),
        "InputItems": _object({**listed, "data": _list(_ANY_OBJECT), "has_more": _FLAG}),
        "TokenCount": _object({"input_tokens": _COUNT}),
        "Embeddings": _object({**listed, "data": _list(_ANY_OBJECT), "model": _TEXT, "usage": _ANY_OBJECT}),
        "Model": model,
        "Models": _object({**listed, "data": _list(_ref("Model"))}),
        "Error": _object({"error": error}),
        "AnthropicError": _object(
            {
                "type": {"const": "error"},
                "error": _object({"type": _TEXT, "message": _TEXT}),
                "mainstay": _ANY_OBJECT,
            },
            {"request_id": _TEXT},
        ),
    }


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _operation(
    name: str,
    summary: str,
    answer: str,
    *,
    body: str | None = None,
    streams: bool = False,
    error: str = "Error",
    parameters: tuple[Schema, ...] = (),
) -> Schema:
    content = _json(_ref(answer))
    if streams:
        content["text/event-stream"] = {}
    responses: Schema = {"200": {"description": _TITLES["200"], "content": content}}
    for status, title in _TITLES.items():
        if status != "200":
            responses[status] = {"description": title, "content": _json(_ref(error))}
    operation: Schema = {"operationId": name, "summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(_ref(body))}
    if parameters:
        operation["parameters"] = list(parameters)
    return operation


def _path(name: str, pattern: str | None = None) -> Schema:
    schema = dict(_TEXT) if pattern is None else {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _deadline() -> Schema:
    schema = {"type": "integer", "minimum": 1, "maximum": 3_600_000}
    return {"name": "x-mainstay-deadline-ms", "in": "header", "required": False, "schema": schema}


def _paths() -> Schema:
    response_id = (_path("response_id", _ID),)
    return {
        "/v1/chat/completions": {
            "post": _operation(
                "chat",
                "Ask an app or a model",
                "ChatCompletion",
                body="ChatRequest",
                streams=True,
                parameters=(_deadline(),),
            )
        },
        "/v1/completions": {
            "post": _operation(
                "complete",
                "The legacy form",
                "Completion",
                body="CompletionRequest",
                streams=True,
                parameters=(_deadline(),),
            )
        },
        "/v1/responses": {
            "post": _operation(
                "respond",
                "Ask, and keep the answer",
                "Response",
                body="ResponseRequest",
                streams=True,
                parameters=(_deadline(),),
            )
        },
        "/v1/responses/{response_id}": {
            "get": _operation("get_response", "An answer that was kept", "Response", parameters=response_id),
            "delete": _operation("delete_response", "Forget it", "DeletedResponse", parameters=response_id),
        },
        "/v1/responses/{response_id}/input_items": {
            "get": _operation("list_input_items", "What was asked", "InputItems", parameters=response_id)
        },
        "/v1/responses/input_tokens": {
            "post": _operation(
                "count_response_tokens", "Count before asking", "TokenCount", body="ResponseRequest"
            )
        },
        "/v1/messages": {
            "post": _operation(
                "message",
                "Ask in Anthropic's form",
                "Message",
                body="MessagesRequest",
                error="AnthropicError",
                streams=True,
                parameters=(_deadline(),),
            )
        },
        "/v1/messages/count_tokens": {
            "post": _operation(
                "count_message_tokens",
                "Count before asking",
                "TokenCount",
                body="CountRequest",
                error="AnthropicError",
            )
        },
        "/v1/embeddings": {
            "post": _operation("embed", "Vectors of texts", "Embeddings", body="EmbeddingsRequest")
        },
        "/v1/models": {"get": _operation("list_models", "What this key may ask for", "Models")},
        "/v1/models/{model}": {
            "get": _operation("get_model", "One of them", "Model", parameters=(_path("model"),))
        },
    }


def openapi_document() -> Schema:
    """A new copy, to be changed at will."""
    requests = {
        "ChatRequest": _chat(),
        "CompletionRequest": _completion(),
        "ResponseRequest": _response_request(),
        "MessagesRequest": _messages(counted=False),
        "CountRequest": _messages(counted=True),
        "EmbeddingsRequest": _embeddings(),
    }
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Mainstay data plane",
            "version": __version__,
            "description": "Apps and models behind OpenAI's and Anthropic's APIs.",
        },
        "security": [{"bearer": []}, {"x-api-key": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": requests | _answers(),
        },
    }
    copy: Schema = orjson.loads(orjson.dumps(document))
    return copy


@cache
def openapi_bytes() -> bytes:
    return orjson.dumps(openapi_document())

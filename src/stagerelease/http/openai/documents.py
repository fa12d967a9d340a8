"""How the routes below ``/v1`` are described in the OpenAPI document.

Their bodies are read by the routes themselves (refusals have OpenAI's shape), so the description is
written from the same models here.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from stagerelease.http.openai.bodies import ChatBody, CompletionBody, ScoreBody

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "Refused: what, why and what to do (OpenAI's shape)",
        "content": {"application/json": {"schema": _ERROR}},
    },
    "5XX": {
        "description": "Not now; Retry-After says when (OpenAI's shape)",
        "content": {"application/json": {"schema": _ERROR}},
    },
}


def _body(shape: type[BaseModel]) -> dict[str, Any]:
    schema = shape.model_json_schema()
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _inlined(schema, definitions)}},
        },
        "responses": {
            "200": {
                "description": "The answer, whole; or, with stream, as server-sent events",
                "content": {"application/json": {}, "text/event-stream": {}},
            }
        },
    }


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema with what it refers to written in its place."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    return schema


BODY: dict[type[BaseModel], dict[str, Any]] = {
    shape: _body(shape) for shape in (CompletionBody, ChatBody, ScoreBody)
}

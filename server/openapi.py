"""The OpenAPI description: what is asked for is the routes' own, what is answered is told here, where one sees all of it."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.schema import answer, encoded

Json = dict[str, Any]

REF = "#/components/schemas/{}"
ERROR = "Error"
TEXT: Json = {"text/plain": {"schema": {"type": "string"}}}
EVENTS: Json = {"text/event-stream": {"schema": {"type": "string"}}}

RANKED = encoded.Ranking | list[encoded.Rank]
ANSWERS: Mapping[str, object] = {  # types
    "/v1/completions": answer.Completion,
    "/v1/chat/completions": answer.ChatCompletion,
    "/v1/models": answer.ModelList,
    "/v1/models/{model_id}": answer.Model,
    "/tokenize": answer.Tokens,
    "/detokenize": answer.Text,
    "/v1/embeddings": encoded.EmbeddingList,
    "/embeddings": encoded.EmbeddingList,
    "/pooling": encoded.PooledList,
    "/embed": list[list[float]],
    "/v1/rerank": RANKED,
    "/v2/rerank": RANKED,
    "/rerank": RANKED,
    "/v1/score": encoded.ScoreList,
    "/score": encoded.ScoreList,
    "/classify": encoded.ClassifiedList,
    "/predict": list[encoded.Prediction | list[encoded.Prediction]],
    "/fill_mask": encoded.FilledList,
}
WORDS: Mapping[str, tuple[str, ...]] = {  # the texts of small answers
    "/health": ("status", "reason"),
    "/health/live": ("status",),
    "/health/ready": ("status",),
    "/version": ("version",),
}
LARGEST = 2**63 - 1  # of whole numbers in a request
STREAMED = ("/v1/completions", "/v1/chat/completions")
METRICS = "/metrics"


def describe(app: FastAPI) -> None:
    """Puts the description in place of FastAPI's own, which knows neither the answers nor the errors. Made when asked for."""
    made: list[Json] = []

    def document() -> Json:
        if not made:
            made.append(_document(app))
        return made[0]

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> Json:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    answers, schemas = msgspec.json.schema_components(
        [ANSWERS[path] for path in document["paths"] if path in ANSWERS], ref_template=REF.format("{name}")
    )
    shown = iter(answers)
    for path, operations in document["paths"].items():
        content = _content(path, next(shown) if path in ANSWERS else None)
        for operation in operations.values():
            operation["responses"] = _responses(content)
            if "requestBody" in operation:
                _settle(operation["requestBody"]["content"]["application/json"]["schema"], schemas)
    document["components"] = {"schemas": schemas | {ERROR: _error()}}
    return document


def _content(path: str, schema: Json | None) -> Json:
    if path == METRICS:
        return TEXT
    if path in WORDS:
        schema = _object({word: {"type": "string"} for word in WORDS[path]}, WORDS[path])
    return {"application/json": {"schema": schema or {}}} | (EVENTS if path in STREAMED else {})


def _responses(content: Json) -> Json:
    refused = {"application/json": {"schema": {"$ref": REF.format(ERROR)}}}
    return {
        "200": {"description": "What was asked for.", "content": content},
        "default": {"description": "Why it was not done.", "content": refused},
    }


def _settle(schema: Json, schemas: dict[str, Json]) -> None:
    """Puts the parts of a body's schema among `schemas`, where references lead, and its bounds right."""
    parts = schema.pop("$defs", {})
    for part in (schema, *parts.values()):
        _round(part)
    schemas.update(parts)


def _round(schema: object) -> None:
    """Bounds of whole numbers: on their way through FastAPI they became fractions."""
    if isinstance(schema, dict):
        for bound in ("minimum", "maximum"):
            if schema.get("type") == "integer" and bound in schema:
                schema[bound] = min(int(schema[bound]), LARGEST)
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _round(part)


def _error() -> Json:
    """server.errors.ApiError's; further fields are whole numbers."""
    text = {"type": ["string", "null"]}
    fields: Json = {"message": {"type": "string"}, "type": {"type": "string"}, "param": text, "code": text}
    inner = _object(fields, fields) | {"additionalProperties": {"type": "integer"}}
    return _object({"error": inner}, ("error",))


def _object(properties: Json, required: Iterable[str]) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}

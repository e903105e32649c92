"""The OpenAPI document: what the service takes and answers, with its real limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from artifact.artifact import Artifact
from core.preprocess import TYPES
from serving.batcher import BUSY_S
from serving.bodies import FIELD, TOP_K
from serving.routes import Route
from serving.settings import Settings
from serving.uploads import ANY, BATCH

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_MS: Schema = {"type": "number", "minimum": 0}
_FILE: Schema = {"type": "string", "format": "binary"}
_BASE64: Schema = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "The file's bytes in base64, of either alphabet, or a data URI of them",
}
# A PNG of one pixel, for whoever tries it out.
_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
)
_CODING = "Content-Encoding may be gzip; the limits are of what it holds."


def describe_operations(settings: Settings, artifact: Artifact) -> dict[str, Schema]:
    """Returns the operation of each path that the document describes."""
    labels = len(artifact.labels)
    found = {
        "predictions": [{"label": artifact.labels[0], "index": 0, "score": 0.93}],
        "timings_ms": {"decode": 0.9, "resize": 0.6, "queue": 0.1, "inference": 6.5},
    }
    names = {
        "model": artifact.model,
        "precision": artifact.precision,
        "runtime": settings.runtime,
    }
    bad = {"error": "not_an_image", "detail": "123 bytes: cannot be read as an image"}
    single = _operation(
        settings,
        labels,
        summary="Classify an image",
        body=(
            f"{_limits(settings)} As a form's file {FIELD!r}, in JSON, or as the whole body, whose "
            f"bytes decide what it is: its content type may be any other, or missing. {_CODING}"
        ),
        content={
            "multipart/form-data": _form(_FILE),
            "application/json": _json_body(settings, labels, "image", _BASE64, _PIXEL),
            "image/*": {"schema": _FILE},
            ANY: {"schema": _FILE},
        },
        answer="Answer",
        example={**found, **names},
    )
    timing = {
        "description": "The stages' milliseconds, as browsers show them",
        "schema": _TEXT,
        "example": "decode;dur=0.9, resize;dur=0.6, queue;dur=0.1, inference;dur=6.5",
    }
    single["responses"]["200"]["headers"] = {"Server-Timing": timing}
    texts: Schema = {
        "type": "array",
        "items": _BASE64,
        "minItems": 1,
        "maxItems": settings.max_images,
    }
    several = _operation(
        settings,
        labels,
        summary="Classify several images; a bad one spoils no other",
        body=(
            f"Up to {settings.max_images} files {FIELD!r}, or as many images in JSON, together at "
            f"most {BATCH * settings.max_bytes} bytes. {_limits(settings)} {_CODING}"
        ),
        content={
            "multipart/form-data": _form({"type": "array", "items": _FILE, "minItems": 1}),
            "application/json": _json_body(
                settings, labels, "images", texts, [f"data:image/png;base64,{_PIXEL}"]
            ),
        },
        answer="Answers",
        example={"results": [found, bad], **names},
    )
    model: Schema = {
        "summary": "What the service runs: manifest, labels, costs, gates, limits",
        "responses": {"200": _json("The facts", {"type": "object"})},
    }
    ready = _plain("The golden batch was reproduced; images are welcome")
    ready["responses"]["503"] = _error("Not yet")
    return {
        "/predict": single,
        "/predict_batch": several,
        "/model": model,
        "/healthz": _plain("The process lives"),
        "/readyz": ready,
        "/metrics": _plain("Figures for Prometheus"),
    }


def describe_api(settings: Settings, artifact: Artifact, routes: Sequence[Route]) -> Schema:
    """Returns the OpenAPI 3.1 document of a service that runs ``artifact`` with ``settings``."""
    paths: Schema = {}
    for route in routes:
        if operation := route.schema:
            if settings.token and not route.public:
                unauthorized = _error("The token is missing or wrong")
                responses = {**operation["responses"], "401": unauthorized}
                operation = {**operation, "responses": responses, "security": [{"token": []}]}
            paths[route.path] = {route.method.lower(): operation}
    labels = len(artifact.labels)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pocketnets",
            "version": "1",
            "description": f"{artifact.model} ({artifact.precision}, {settings.runtime}) gives an "
            f"image the likeliest of {labels} labels.",
        },
        "servers": [{"url": settings.root_path or "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(labels), "securitySchemes": _SECURITY},
    }


def _operation(
    settings: Settings,
    labels: int,
    *,
    summary: str,
    body: str,
    content: Schema,
    answer: str,
    example: Schema,
) -> Schema:
    seconds = settings.deadline_ms / 1e3
    top_k = {
        "name": TOP_K,
        "in": "query",
        "description": "How many labels, the likeliest first",
        "schema": {"type": "integer", **_range_of_top_k(settings, labels)},
    }
    busy = _error(f"The queue is full ({settings.queue_size} images)")
    busy["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"const": str(BUSY_S)}}}
    return {
        "summary": summary,
        "parameters": [top_k],
        "requestBody": {"required": True, "description": body, "content": content},
        "responses": {
            "200": _json("The likeliest labels", _reference(answer), example),
            "400": _error("Not an image, a truncated one, a broken body, or nothing at all"),
            "408": _error(f"The upload did not end within {seconds:g} s"),
            "413": _error(f"Over {settings.max_bytes} bytes, or over {settings.max_pixels} pixels"),
            "415": _error(
                f"Another image type than {', '.join(TYPES)}, another content encoding than gzip, "
                "or a batch of another content type"
            ),
            "422": _error(f"top_k is no whole number in 1..{labels}, or in both query and JSON"),
            "429": busy,
            "504": _error(f"No answer within {seconds:g} s"),
        },
    }


def _range_of_top_k(settings: Settings, labels: int) -> Schema:
    return {"minimum": 1, "maximum": labels, "default": min(settings.top_k, labels)}


def _limits(settings: Settings) -> str:
    return f"{', '.join(TYPES)}; up to {settings.max_bytes} bytes and {settings.max_pixels} pixels."


def _schemas(labels: int) -> Schema:
    prediction = _object(
        label=_TEXT,
        index={"type": "integer", "minimum": 0, "maximum": labels - 1},
        score={"type": "number", "minimum": 0, "maximum": 1, "description": "softmax"},
    )
    parts: Schema = {
        "predictions": {"type": "array", "items": prediction, "minItems": 1},
        "timings_ms": _object(decode=_MS, resize=_MS, queue=_MS, inference=_MS),
    }
    names = {"model": _TEXT, "precision": _TEXT, "runtime": _TEXT}
    either = {"oneOf": [_object(**parts), _reference("Error")]}
    return {
        "Answer": _object(**parts, **names),
        "Answers": _object(results={"type": "array", "items": either, "minItems": 1}, **names),
        "Error": _object(error=_TEXT, detail=_TEXT),
    }


_SECURITY: Schema = {"token": {"type": "http", "scheme": "bearer"}}


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _form(field: Schema) -> Schema:
    schema = {"type": "object", "properties": {FIELD: field}, "required": [FIELD]}
    return {"schema": schema}


def _json_body(
    settings: Settings, labels: int, field: str, schema: Schema, example: object
) -> Schema:
    top_k = {"type": ["integer", "null"], **_range_of_top_k(settings, labels)}
    whole = {
        "type": "object",
        "properties": {field: schema, TOP_K: top_k},
        "required": [field],
        "additionalProperties": False,
    }
    return {"schema": whole, "example": {field: example}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: Schema, example: Schema | None = None) -> Schema:
    content: Schema = {"schema": schema}
    if example:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}}


def _error(description: str) -> Schema:
    return _json(description, _reference("Error"))


def _plain(description: str) -> Schema:
    content = {"text/plain": {"schema": _TEXT}}
    return {
        "summary": description,
        "responses": {"200": {"description": description, "content": content}},
    }

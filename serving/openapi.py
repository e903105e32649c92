"""The OpenAPI document, generated from the types that the routes name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from artifact.artifact import Artifact
from serving.answers import Error
from serving.predictor import Predictor
from serving.routes import Reply, Route
from serving.settings import Settings

Schema = dict[str, Any]
_MODE: JsonSchemaMode = "serialization"
_SECURITY: Schema = {"token": {"type": "http", "scheme": "bearer"}}
_UNAUTHORIZED = Reply("The token is missing or wrong", Error)
_UNKNOWN = Reply("An unknown query parameter", Error)


def describe_api(predictor: Predictor, routes: Sequence[Route], most: int) -> Schema:
    """Returns the OpenAPI 3.1 document of a service.

    Args:
        predictor: that of the model that answers by default.
        routes: all routes.
        most: most labels of the models that may answer.
    """
    settings, artifact = predictor.settings, predictor.artifact
    described = {route.path: route for route in routes if route.summary}
    replies = {path: dict(route.replies) for path, route in described.items()}
    for path, route in described.items():
        if settings.needs_token and not route.public:
            replies[path][401] = _UNAUTHORIZED
        if route.handler and route.query is not None:
            replies[path].setdefault(400, _UNKNOWN)
    types: dict[tuple[object, ...], Any] = {}
    for path, route in described.items():
        types |= {(path, "query", name): each for name, each in (route.query or {}).items()}
        types |= {(path, "body", kind): each for kind, each in route.body.items()}
        for status, reply in replies[path].items():
            types[path, status] = reply.type
            types |= {(path, status, name): each for name, each in reply.headers.items()}
    schemas, shared = _schemas(types)
    shared["Prediction"]["properties"]["index"]["maximum"] = most - 1  # which no type knows
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pocketnets",
            "version": "1",
            "description": f"{artifact.model} ({artifact.precision}, {settings.runtime}) "
            f"{_does(artifact, settings)}",
        },
        "servers": [{"url": settings.root_path or "/"}],
        "paths": {
            path: {route.method.lower(): _operation(route, replies[path], schemas)}
            for path, route in described.items()
        },
        "components": {"schemas": shared, "securitySchemes": _SECURITY},
    }


def _does(artifact: Artifact, settings: Settings) -> str:
    """Returns the end of a sentence: what the service answers."""
    count = len(artifact.labels)
    if artifact.task == "multi":
        return (
            f"gives an image any number of {count} labels: those with a score above the label's "
            "threshold. Each score is a probability by itself; they do not sum to 1."
        )
    unsure = ", or none where it is unsure" if settings.abstain else ""
    return f"gives an image the likeliest of {count} labels{unsure}."


class _Untitled(GenerateJsonSchema):
    """Pydantic's schemas without field titles, which only repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _schemas(types: dict[tuple[object, ...], Any]) -> tuple[dict[Any, Schema], Schema]:
    """Returns the schema of each of ``types``, and the schemas that they refer to, by name."""
    found, shared = TypeAdapter.json_schemas(
        [(key, _MODE, TypeAdapter(each)) for key, each in types.items()],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    components = shared.get("$defs", {})
    for schema in components.values():  # only the first paragraph of a docstring is for API users
        if "description" in schema:
            schema["description"] = schema["description"].partition("\n\n")[0]
    return {key: schema for (key, _), schema in found.items()}, components


def _operation(route: Route, replies: dict[int, Reply], schemas: dict[Any, Schema]) -> Schema:
    found: Schema = {"summary": route.summary}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.parameters
    ]
    parameters += [
        {"name": name, "in": "query", **_described(schemas[route.path, "query", name])}
        for name in route.query or ()
    ]
    if parameters:
        found["parameters"] = parameters
    if route.body:
        content = {kind: {"schema": schemas[route.path, "body", kind]} for kind in route.body}
        for kind, example in route.examples.items():
            content[kind]["example"] = example
        body = {"required": route.body_required, "description": route.takes}
        found["requestBody"] = {**body, "content": content}
    found["responses"] = {}
    for status, reply in replies.items():
        content = {"schema": schemas[route.path, status]}
        if reply.example is not None:
            content["example"] = reply.example
        kind = "text/plain" if reply.type is str else "application/json"
        answer: Schema = {"description": reply.text, "content": {kind: content}}
        if reply.headers:
            answer["headers"] = {
                name: _described(schemas[route.path, status, name]) for name in reply.headers
            }
        found["responses"][str(status)] = answer
    if 401 in replies:
        found["security"] = [{"token": []}]
    return found


def _described(schema: Schema) -> Schema:
    """Returns ``schema`` as that of a parameter or header, which holds its description itself."""
    inner = {key: value for key, value in schema.items() if key != "description"}
    return {"description": schema["description"], "schema": inner}

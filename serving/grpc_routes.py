"""The Open Inference Protocol, version 2, over gRPC: a route for each of its methods.

A method's path is that of gRPC, ``/inference.GRPCInferenceService/ModelInfer``; a body is a message
of protobuf. So the router, tokens, limits, logs and metrics of HTTP are those of gRPC, too:
:mod:`serving.grpc_server` brings the messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serving.administration import Administration
from serving.answering import read_in_time
from serving.bodies import ENVELOPE, TEXT
from serving.changes import MOST_BYTES, Make, administer, check_allowed
from serving.errors import Refusal
from serving.grpc_messages import (
    SERVICE,
    message_classes,
    parameters_of,
    parse,
    too_many_numbers,
)
from serving.inference_protocol import SERVER, answer_tensors, metadata_of, names_of
from serving.models import Models
from serving.repository_protocol import list_repository, loading_all, unloading_all
from serving.routes import Route
from serving.served import Served
from serving.settings import Settings
from serving.slots import Slots
from serving.tensors import (
    MOST_NUMBERS,
    InferRequest,
    Output,
    Tensor,
    as_bytes,
    describe_tensor,
    is_text,
    read_message,
)
from serving.uploads import read_body

_SMALL = 1 << 16  # bytes of tensors, other than raw ones, that are read at once, without a thread
_HEALTH = "/grpc.health.v1.Health/Check"  # of any service of gRPC; Kubernetes asks it
_SERVING, _NOT_SERVING = 1, 2
_CONTENTS = {"UINT8": "uint_contents", "BYTES": "bytes_contents"}

Fields = dict[str, Any]


def most_bytes(settings: Settings) -> int:
    """Returns how large a message may be: as large as JSON with one image, if gRPC can count it."""
    return min(int(TEXT * settings.max_bytes) + ENVELOPE, 2**31 - 1)


def grpc_routes(models: Models, administration: Administration) -> list[Route]:
    """Returns the routes of all methods."""
    settings, classes = models.settings, message_classes()
    # A message names its model: until it is read, it cannot be counted to one. Small ones need no
    # place, or those that never end could keep all from others.
    places = Slots(settings.queue_size + settings.threads).share()

    def method(
        name: str,
        answer: Callable[..., Awaitable[Fields]],
        most: int = MOST_BYTES,
        *,
        path: str = "",
        public: bool = False,
        admin: bool = False,
    ) -> Route:
        kind, response = classes[f"{name}Request"], classes[f"{name}Response"]

        async def read(request: Request) -> Any:
            if not kind.DESCRIPTOR.fields:
                return kind()
            with places.taken() if most > MOST_BYTES else nullcontext():
                body = read_body(request, most)
                return parse(kind, await read_in_time(body, settings.deadline_ms / 1e3))

        async def handle(request: Request) -> Response:
            check_wanted = request.scope["check_wanted"]
            try:
                # Nothing here holds the message: what waits is the images alone.
                fields = await answer(await read(request), request)
            except Refusal:
                check_wanted(0)
                raise
            body = response(**fields).SerializeToString()
            check_wanted(len(body))
            return Response(body)

        path = path or f"/{SERVICE}/{name}"
        return Route(path, handle, method="POST", public=public, admin=admin)

    def named(asked: Any) -> Served:
        return models.find(asked.name, asked.version or None)

    async def live(asked: Any, request: Request) -> Fields:
        return {"live": True}

    async def ready(asked: Any, request: Request) -> Fields:
        return {"ready": models.ready}

    async def health(asked: Any, request: Request) -> Fields:
        if asked.service not in ("", SERVICE):
            raise Refusal(404, "unknown_service", f"no service {asked.service[:80]!r}: {SERVICE}")
        return {"status": _SERVING if models.ready else _NOT_SERVING}

    async def model_ready(asked: Any, request: Request) -> Fields:
        return {"ready": named(asked).predictor.ready}

    async def server(asked: Any, request: Request) -> Fields:
        return SERVER

    async def metadata(asked: Any, request: Request) -> Fields:
        return metadata_of(models, named(asked))

    async def infer(asked: Any, request: Request) -> Fields:
        served = models.find(asked.model_name, asked.model_version or None)
        request.scope["model"] = served.entry.key
        with served.slots.taken():
            is_raw = len(asked.raw_input_contents) > 0
            wanted = await _read_tensors(served, asked)
            del asked
            tensors = await answer_tensors(served, request, wanted)
        return _response(served, wanted, tensors, is_raw=is_raw)

    async def index(asked: Any, request: Request) -> Fields:
        _check_repository(asked)
        return {"models": await list_repository(models, only_ready=asked.ready)}

    def changing(make: Callable[[str, Fields], Make]) -> Callable[..., Awaitable[Fields]]:
        async def change(asked: Any, request: Request) -> Fields:
            parameters = parameters_of(asked.parameters)
            request.scope["change"] = {"name": asked.model_name, "parameters": list(parameters)}
            check_allowed(settings)
            _check_repository(asked)
            await administer(request, administration, make(asked.model_name, parameters))
            return {}

        return change

    load = changing(lambda *wanted: loading_all(models, *wanted))
    return [
        method("ServerLive", live, public=True),
        method("ServerReady", ready, public=True),
        method("HealthCheck", health, path=_HEALTH, public=True),
        method("ModelReady", model_ready),
        method("ServerMetadata", server),
        method("ModelMetadata", metadata),
        method("ModelInfer", infer, most_bytes(settings)),
        method("RepositoryIndex", index),
        method("RepositoryModelLoad", load, admin=True),
        method("RepositoryModelUnload", changing(unloading_all), admin=True),
    ]


def _check_repository(asked: Any) -> None:
    if asked.repository_name:
        shown = repr(asked.repository_name[:40])
        detail = f"repository_name is {shown}: there is one repository, which has no name"
        raise Refusal(400, "bad_parameters", detail)


async def _read_tensors(served: Served, message: Any) -> InferRequest:
    artifact, settings = served.predictor.artifact, served.predictor.settings
    facts = (artifact.preprocess.shape, len(artifact.labels), settings.max_images)
    if sum(each.contents.ByteSize() for each in message.inputs) <= _SMALL:
        return _read(message, facts)
    return await asyncio.to_thread(_read, message, facts)


def _response(
    served: Served, asked: InferRequest, tensors: list[tuple[Output, Tensor]], *, is_raw: bool
) -> Fields:
    """Returns the fields of a response, with tensors in the form of the request."""
    fields: Fields = {**names_of(served, asked), "outputs": []}
    if is_raw:
        fields["raw_output_contents"] = [as_bytes(tensor) for _, tensor in tensors]
    for output, tensor in tensors:
        entry = describe_tensor(output, tensor)
        if not is_raw:
            name = "bytes_contents" if is_text(tensor) else "fp32_contents"
            entry["contents"] = {name: tensor.ravel().tolist()}
        fields["outputs"].append(entry)
    return fields


def _read(message: Any, facts: tuple[tuple[int, ...], int, int]) -> InferRequest:
    head: Fields = {
        "parameters": parameters_of(message.parameters),
        "inputs": [_input(each) for each in message.inputs],
        "outputs": [
            {"name": each.name, "parameters": parameters_of(each.parameters)}
            for each in message.outputs
        ],
    }
    if message.id:
        head["id"] = message.id
    return read_message(head, list(message.raw_input_contents), *facts)


def _input(tensor: Any) -> Fields:
    """Returns what the JSON of an input would be; the data of ``BYTES`` are bytes.

    Raises:
        Refusal: its contents are of another datatype, or too many numbers.
    """
    found: Fields = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "parameters": parameters_of(tensor.parameters),
    }
    for field, values in tensor.contents.ListFields():
        if field.name != _CONTENTS.get(tensor.datatype):
            detail = f"input {tensor.name[:40]!r} of {tensor.datatype[:40]!r} has {field.name}"
            raise Refusal(400, "bad_infer_request", f"the request is not as expected: {detail}")
        if len(values) > MOST_NUMBERS:
            raise too_many_numbers()
        found["data"] = list(values)
    return found

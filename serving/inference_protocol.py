"""The Open Inference Protocol, version 2, over HTTP: what clients of KServe and Triton speak.

https://github.com/kserve/open-inference-protocol. Its errors are ``{"error": "<text>"}``. Our
OpenAPI document leaves its routes out, as the protocol has one of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from artifact.records import Logits
from artifact.scores import largest
from serving.answering import read_in_time
from serving.bodies import ENVELOPE, TEXT
from serving.errors import Refusal
from serving.models import Models
from serving.predictor import Predictor, Upload, unwrap
from serving.routes import Route
from serving.served import Served
from serving.tensors import InferRequest, Output, Tensor, read_request, write_response
from serving.uploads import BATCH, read_body
from serving.waiting import wait_for

_HEAD = b"inference-header-content-length"
_SMALL = 1 << 16  # bytes of JSON that are parsed at once, without a thread


SERVER = {
    "name": "pocketnets",
    "version": "1",
    "extensions": ["binary_tensor_data", "classification", "model_repository"],
}


class ProtocolRefusal(Refusal):
    """A refusal in the protocol's form."""

    @property
    def body(self) -> dict[str, str]:
        """Returns the body of the response, ready for JSON."""
        return {"error": self.detail}


def protocol_routes(models: Models) -> list[Route]:
    """Returns the routes below ``/v2``."""

    def named(request: Request) -> Served:
        return models.find(request.path_params["name"], request.path_params.get("version"))

    async def server(request: Request) -> Response:
        return JSONResponse(SERVER)

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": models.ready}, 200 if models.ready else 503)

    async def model_ready(request: Request) -> Response:
        served = named(request)
        is_ready = served.predictor.ready
        return JSONResponse(
            {"name": served.entry.name, "ready": is_ready}, 200 if is_ready else 503
        )

    async def metadata(request: Request) -> Response:
        return JSONResponse(metadata_of(models, named(request)))

    async def infer(request: Request) -> Response:
        return await _infer(named(request), request)

    routes = [
        Route("/v2", in_form(server)),
        Route("/v2/health/live", in_form(live), public=True),
        Route("/v2/health/ready", in_form(ready), public=True),
    ]
    for prefix in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(prefix, in_form(metadata)),
            Route(f"{prefix}/ready", in_form(model_ready)),
            Route(f"{prefix}/infer", in_form(infer), method="POST"),
        ]
    return routes


def in_form(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Returns ``handler`` with refusals in the protocol's form."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            raise ProtocolRefusal(
                refusal.status, refusal.code, refusal.detail, refusal.headers
            ) from None

    return handle


def metadata_of(models: Models, served: Served) -> dict[str, Any]:
    """Returns what the protocol tells of a model."""
    artifact, name = served.predictor.artifact, served.entry.name
    labels = len(artifact.labels)
    return {
        "name": name,
        "versions": [each.entry.version for each in models.all if each.entry.name == name],
        "platform": f"pocketnets_{artifact.format}",
        "inputs": [
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, *artifact.preprocess.shape]},
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": name, "datatype": "FP32", "shape": [-1, labels]}
            for name in ("logits", "scores")
        ],
    }


async def _infer(served: Served, request: Request) -> Response:
    predictor = served.predictor
    settings, artifact = predictor.settings, predictor.artifact
    request.scope["model"] = served.entry.key
    headers = dict(request.scope["headers"])
    declared = headers.get(b"content-length", b"")
    is_small = declared.isdigit() and int(declared) <= settings.max_bytes
    limit = int(TEXT * settings.max_bytes) * (1 if is_small else BATCH) + ENVELOPE
    seconds = settings.deadline_ms / 1e3
    with served.slots.taken(1 if is_small else BATCH):
        body = await read_in_time(read_body(request, limit), seconds)
        head = _head_size(headers)
        facts = (artifact.preprocess.shape, len(artifact.labels), settings.max_images)
        if (len(body) if head is None else head) > _SMALL:
            asked = await asyncio.to_thread(read_request, body, head, *facts)
        else:
            asked = read_request(body, head, *facts)
        del body
        tensors = await answer_tensors(served, request, asked)
    body, size = write_response(names_of(served, asked), tensors)
    if size is None:
        return Response(body, media_type="application/json")
    lengths = {"inference-header-content-length": str(size)}
    return Response(body, media_type="application/octet-stream", headers=lengths)


async def answer_tensors(
    served: Served, request: Request, asked: InferRequest
) -> list[tuple[Output, Tensor]]:
    """Returns the outputs that are asked for, each with its tensor; the caller holds a slot.

    Raises:
        Refusal: an image is none, the queue is full, it takes too long, or the client is gone.
    """
    predictor = served.predictor
    images = asked.files if asked.pixels is None else list(asked.pixels)
    answers = predictor.predict([Upload(image, None) for image in images])
    found = unwrap(await wait_for(answers, request, predictor.settings.deadline_ms / 1e3))
    for each in found:
        if isinstance(each, Refusal):
            # Another one: this would keep itself and all images until garbage is collected.
            raise Refusal(each.status, each.code, each.detail, each.headers)
    logits = np.stack(found)
    return [(output, _tensor(output, logits, predictor)) for output in asked.outputs]


def names_of(served: Served, asked: InferRequest) -> dict[str, str]:
    """Returns what stands before the outputs of a response."""
    names = {"model_name": served.entry.name, "model_version": served.entry.version}
    return names if asked.id is None else {**names, "id": asked.id}


def _head_size(headers: dict[bytes, bytes]) -> int | None:
    text = headers.get(_HEAD)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 9:
        shown = repr(text.decode("latin-1"))[:40]
        detail = f"Inference-Header-Content-Length is {shown}: it must be the size of the JSON"
        raise Refusal(400, "bad_infer_request", detail)
    return int(text)


def _tensor(output: Output, logits: Logits, predictor: Predictor) -> Tensor:
    values = logits if output.name == "logits" else predictor.scores(logits)
    if not output.classes:
        return values
    labels = predictor.artifact.labels
    chosen = [
        [f"{row[i]:f}:{i}:{labels[i]}".encode() for i in largest(row, output.classes)]
        for row in values
    ]
    return np.array(chosen, dtype=object)

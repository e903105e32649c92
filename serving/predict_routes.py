"""The routes that take images: their limits, bodies and responses."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from core.preprocess import TYPES
from serving.answers import Answer, Answers, Error, Found, body_types, top_k_type
from serving.bodies import FIELD, TOP_K
from serving.predictor import Predictor
from serving.routes import Handler, Reply, Route
from serving.uploads import ANY, BATCH

# A PNG of one pixel, as an example in the OpenAPI document.
_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
)
_SECONDS = Annotated[str, Field(pattern="^[0-9]+$", description="Seconds")]
_STAGES = Annotated[
    str,
    Field(
        description="The stages' milliseconds, as browsers show them",
        examples=["decode;dur=0.9, resize;dur=0.6, queue;dur=0.1, inference;dur=6.5"],
    ),
]


def predict_routes(
    predictor: Predictor, single: Handler, several: Handler, most: int, prefix: str = ""
) -> list[Route]:
    """Returns the routes ``/predict`` and ``/predict_batch``, with the configured limits.

    Args:
        predictor: whose answers are the examples.
        single: handles a request with an image.
        several: handles one with several.
        most: most labels of the models that may answer.
        prefix: of the paths.
    """
    settings, labels = predictor.settings, predictor.artifact.labels
    top_k = top_k_type(most, settings.top_k)
    seconds = settings.deadline_ms / 1e3
    limits = f"up to {settings.max_bytes} bytes and {settings.max_pixels} pixels"
    coding = "Content-Encoding may be gzip; the limits are of what it holds."
    found: Found = {
        "predictions": [{"label": labels[0], "index": 0, "score": 0.93}],
        "timings_ms": {"decode": 0.9, "resize": 0.6, "queue": 0.1, "inference": 6.5},
    }
    answer: Answer = {**found, **predictor.names}
    error: Error = {"error": "not_an_image", "detail": "123 bytes: cannot be read as an image"}
    answers: Answers = {"results": [found, error], **predictor.names}
    refusals = {
        400: "Not an image, a truncated one, a broken body or none, or an unknown parameter",
        408: f"The upload did not end within {seconds:g} s",
        413: f"Over {settings.max_bytes} bytes, or over {settings.max_pixels} pixels",
        415: f"Another image type than {', '.join(TYPES)}, another content encoding than gzip, or "
        "a batch of another content type",
        422: f"top_k is no whole number in 1..{most}, or in both query and JSON",
        429: f"The queue is full ({settings.queue_size} images)",
        504: f"No answer within {seconds:g} s",
    }
    replies = {status: Reply(text, Error) for status, text in refusals.items()}
    replies[429] = replies[429]._replace(headers={"Retry-After": _SECONDS})
    likeliest = "The likeliest labels"
    return [
        Route(
            f"{prefix}/predict",
            single,
            method="POST",
            query={TOP_K: top_k},
            summary="Classify an image",
            takes=f"{', '.join(TYPES)}; {limits}. As a form's file {FIELD!r}, in JSON, or as the "
            "whole body, whose bytes decide what it is: its content type may be any other, or "
            f"missing. {coding}",
            body={**body_types(None, top_k), "image/*": bytes, ANY: bytes},
            examples={"application/json": {"image": _PIXEL}},
            replies={
                200: Reply(likeliest, Answer, answer, {"Server-Timing": _STAGES}),
                **replies,
            },
        ),
        Route(
            f"{prefix}/predict_batch",
            several,
            method="POST",
            query={TOP_K: top_k},
            summary="Classify several images; a bad one spoils no other",
            takes=f"Up to {settings.max_images} files {FIELD!r}, or as many images in JSON, "
            f"together at most {BATCH * settings.max_bytes} bytes. {', '.join(TYPES)}; {limits}. "
            f"{coding}",
            body=body_types(settings.max_images, top_k),
            examples={"application/json": {"images": [f"data:image/png;base64,{_PIXEL}"]}},
            replies={200: Reply(likeliest, Answers, answers), **replies},
        ),
    ]

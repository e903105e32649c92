"""Types of requests and responses, from which the OpenAPI document is generated.

Responses are plain dictionaries, which are the fastest to encode. The types serve mypy, the
document and its tests; responses are not validated at run time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, get_type_hints

from pydantic import ConfigDict, Field, create_model, with_config
from typing_extensions import TypedDict

from artifact.manifest import Manifest
from serving.bodies import FIELD, TOP_K

_CLOSED = ConfigDict(extra="forbid")
_Milliseconds = Annotated[float, Field(ge=0)]
Base64 = Annotated[
    str,
    Field(
        description="The file's bytes in base64, of either alphabet, or a data URI of them",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]


@with_config(_CLOSED)
class Prediction(TypedDict):
    """A label, its index among the labels, and its score: the softmax of its logit, or, if task
    is multi in /model, the sigmoid, and the threshold above which an image has the label. The
    scores of several labels do not sum to 1."""

    label: str
    index: Annotated[int, Field(ge=0)]
    score: Annotated[float, Field(ge=0, le=1)]
    threshold: NotRequired[Annotated[float, Field(ge=0, le=1)]]


@with_config(_CLOSED)
class Timings(TypedDict):
    """Milliseconds of each stage of an image; ``queue`` is the rest of its time."""

    decode: _Milliseconds
    resize: _Milliseconds
    queue: _Milliseconds
    inference: _Milliseconds


@with_config(_CLOSED)
class Error(TypedDict):
    """An error response: a short code, and one line of detail."""

    error: str
    detail: str


@with_config(_CLOSED)
class Names(TypedDict):
    """Model, precision and runtime of the service."""

    model: str
    precision: str
    runtime: str


@with_config(_CLOSED)
class Predictions(TypedDict):
    """The predictions for an image, the most likely label first.

    Attributes:
        predictions: the likeliest labels; if an image may have several, all that it has, too.
        labels: the labels that it has, if it may have several.
        label: the one that it has, where the service may abstain; None where it does.
        reason: why it does.
    """

    predictions: Annotated[list[Prediction], Field(min_length=1)]
    labels: NotRequired[
        Annotated[
            list[str],
            Field(description="If task is multi: all labels with a score above their threshold"),
        ]
    ]
    label: NotRequired[
        Annotated[
            str | None,
            Field(description="If the service abstains: the likeliest label, or null if unsure"),
        ]
    ]
    reason: NotRequired[Literal["unsure"]]


@with_config(_CLOSED)
class Found(Predictions):
    """The predictions for an image, the most likely label first."""

    timings_ms: Timings


@with_config(_CLOSED)
class Answer(Found, Names):
    """The response for one image."""


@with_config(_CLOSED)
class Answers(Names):
    """The response for a batch: for each image, in order, its predictions or its error."""

    results: Annotated[list[Found | Error], Field(min_length=1)]


@with_config(_CLOSED)
class RequestLimits(TypedDict):
    """Limits of a request: bytes and pixels per image, and images per batch."""

    max_bytes: int
    max_pixels: int
    max_images: int


@with_config(_CLOSED)
class Accepted(TypedDict):
    """The accepted types of image, and their file suffixes."""

    types: list[str]
    suffixes: list[str]


# Not told to clients: paths of this or the exporting machine, and what the images were like.
PRIVATE = ("path", "source", "profile")
_stated = get_type_hints(Manifest, include_extras=True)
_facts: dict[str, Any] = {
    **{name: (hint, ...) for name, hint in _stated.items() if name not in PRIVATE},
    "runtime": (str, ...),
    "limits": (RequestLimits, ...),  # of requests; those of the manifest are its gates'
    "accepts": (Accepted, ...),
}
Facts = create_model(
    "Facts",
    __config__=_CLOSED,
    __doc__="What is served: the manifest of its artifact, runtime, limits, and types of image.",
    **_facts,
)


def top_k_type(labels: int, default: int) -> Any:
    """Returns the type of ``top_k``, given the number of labels and the default."""
    text = "How many labels, the likeliest first"
    extra: dict[str, Any] = {"default": min(default, labels)}
    return Annotated[int, Field(ge=1, le=labels, description=text, json_schema_extra=extra)]


def body_types(max_images: int | None, top_k: Any) -> dict[str, Any]:
    """Returns the type of a form and of a JSON body, by their content type.

    Args:
        max_images: most images of a batch; None for a body of a single image.
        top_k: as :func:`top_k_type` returns it.
    """
    file: Any = bytes
    value: Any = Base64
    field, name = "image", "Image"
    if max_images is not None:
        file = Annotated[list[bytes], Field(min_length=1, max_length=max_images)]
        field, name = "images", "Images"
        value = Annotated[list[Base64], Field(min_length=1, max_length=max_images)]
    form: dict[str, Any] = {FIELD: (file, ...)}
    body: dict[str, Any] = {field: (value, ...), TOP_K: (top_k | None, None)}
    return {
        "multipart/form-data": create_model(f"{name}Form", **form),
        "application/json": create_model(name, __config__=_CLOSED, **body),
    }

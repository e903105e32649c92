"""Tensors of the Open Inference Protocol, version 2: in JSON, as bytes after the JSON, or in gRPC.

The bytes are those of the protocol's extension for binary data: numbers row by row in little
endian, and for ``BYTES`` each element after its length as a uint32. Raw contents of gRPC are the
same. https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md.
"""

from __future__ import annotations

import reprlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, NotRequired

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict

from core.preprocess import Pixels
from serving.errors import Refusal

SIZE = "binary_data_size"
_LENGTH = struct.Struct("<I")
MOST_NUMBERS = 2_000_000  # not as bytes: more would block the event loop for a tenth of a second
Tensor = np.ndarray[Any, Any]
Dimensions = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=8)]


# Other members are ignored: clients send some, such as kserve model_name.
class _Input(TypedDict):
    name: str
    shape: Dimensions
    datatype: str
    parameters: NotRequired[dict[str, Any]]
    data: NotRequired[list[Any]]


class _Output(TypedDict):
    name: str
    parameters: NotRequired[dict[str, Any]]


class _Head(TypedDict):
    id: NotRequired[str]
    parameters: NotRequired[dict[str, Any]]
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=8)]
    outputs: NotRequired[Annotated[list[_Output], Field(max_length=8)]]


_HEAD: TypeAdapter[_Head] = TypeAdapter(_Head)


@dataclass(frozen=True, slots=True)
class Output:
    """An output that is asked for.

    Attributes:
        name: ``logits`` or ``scores``.
        binary: whether it is sent as bytes after the JSON.
        classes: how many of the largest are sent, as ``score:index:label``; 0 for the tensor.
    """

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request for inference.

    Attributes:
        id: that the response repeats; None without.
        pixels: uint8 (N, H, W, channels); None if files came.
        files: bytes of each image file, or their base64 text.
        outputs: what is asked for.
    """

    id: str | None
    pixels: Pixels | None
    files: list[bytes | str]
    outputs: list[Output]


def read_request(
    body: bytes, head: int | None, shape: tuple[int, ...], labels: int, most: int
) -> InferRequest:
    """Returns the request in ``body``.

    Args:
        body: JSON, and after it the tensors that are sent as bytes.
        head: size of the JSON in bytes; None for all of the body.
        shape: (H, W, channels) of the pixels of an image.
        labels: number of labels.
        most: most images.

    Raises:
        Refusal: it is anything else; the detail says what is wrong and what is allowed.
    """
    if head is not None and head > len(body):
        _refuse(f"the JSON has {head} bytes by its header, and the body {len(body)}")
    text = body if head is None else body[:head]
    numbers = most * int(np.prod(shape)) + 1000
    if text.count(b",") > min(numbers, MOST_NUMBERS):
        _refuse("the JSON holds too many numbers: send the tensor as binary data")
    found = _valid(_HEAD.validate_json, text)
    tail = memoryview(body)[len(text) :]
    return _asked(found, _split(found["inputs"], tail), shape, labels, most)


def read_message(
    head: dict[str, Any], raw: Sequence[bytes], shape: tuple[int, ...], labels: int, most: int
) -> InferRequest:
    """Returns the request of a message of gRPC.

    Args:
        head: what the JSON would have; files may be bytes.
        raw: raw contents of each input; empty if all have data in ``head``.
        shape: as of :func:`read_request`, like the others.
        labels: number of labels.
        most: most images.

    Raises:
        Refusal: as :func:`read_request`.
    """
    found = _valid(_HEAD.validate_python, head)
    if raw and len(raw) != len(found["inputs"]):
        _refuse(f"{len(found['inputs'])} inputs have {len(raw)} raw contents")
    if raw and any("data" in each for each in found["inputs"]):
        _refuse("an input has contents, and there are raw contents: send one of both")
    parts = [
        (each, memoryview(raw[place]) if raw else None)
        for place, each in enumerate(found["inputs"])
    ]
    return _asked(found, parts, shape, labels, most)


def _valid(validate: Callable[[Any], _Head], content: Any) -> _Head:
    try:
        return validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        _refuse(f"{place + ': ' if place else ''}{first['msg']}")


def _asked(
    found: _Head,
    parts: Sequence[tuple[_Input, memoryview | None]],
    shape: tuple[int, ...],
    labels: int,
    most: int,
) -> InferRequest:
    if len(parts) != 1:
        _refuse(f"{len(parts)} inputs: send one, pixels (UINT8) or image (BYTES)")
    (each, raw) = parts[0]
    outputs = _outputs(found, labels)
    pixels, files = None, []
    if (each["name"], each["datatype"]) == ("pixels", "UINT8"):
        pixels = _pixels(each, raw, shape, most)
    elif (each["name"], each["datatype"]) == ("image", "BYTES"):
        files = _files(each, raw, most)
    else:
        shown = reprlib.repr(each["name"]), reprlib.repr(each["datatype"])
        _refuse(f"input {shown[0]} of {shown[1]}: send pixels of UINT8, or image of BYTES")
    return InferRequest(found.get("id"), pixels, files, outputs)


def _refuse(detail: str) -> NoReturn:
    raise Refusal(400, "bad_infer_request", f"the request is not as expected: {detail}")


def _split(inputs: Sequence[_Input], tail: memoryview) -> list[tuple[_Input, memoryview | None]]:
    """Returns each input with its bytes, None if its data is in the JSON."""
    parts: list[tuple[_Input, memoryview | None]] = []
    for each in inputs:
        size = each.get("parameters", {}).get(SIZE)
        if size is None:
            parts.append((each, None))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(tail):
            _refuse(f"{SIZE} is {reprlib.repr(size)}, and {len(tail)} bytes are left")
        if "data" in each:
            _refuse(f"input {reprlib.repr(each['name'])} has both data and {SIZE}")
        parts.append((each, tail[:size]))
        tail = tail[size:]
    if len(tail):
        _refuse(f"{len(tail)} bytes after the JSON belong to no input")
    return parts


def _outputs(found: _Head, labels: int) -> list[Output]:
    if "classification" in found.get("parameters", {}):
        _refuse("classification is a parameter of an output, not of the request")
    binary = found.get("parameters", {}).get("binary_data_output") is True
    asked = found.get("outputs") or [{"name": "logits"}, {"name": "scores"}]
    outputs = []
    for each in asked:
        if each["name"] not in ("logits", "scores"):
            _refuse(f"output {reprlib.repr(each['name'])}: there are logits and scores")
        parameters = each.get("parameters", {})
        classes = parameters.get("classification", 0)
        if not isinstance(classes, int) or isinstance(classes, bool) or classes < 0:
            _refuse(f"classification is {reprlib.repr(classes)}: it must be a whole number")
        wanted = parameters.get("binary_data", binary)
        outputs.append(Output(each["name"], wanted is True, min(classes, labels)))
    return outputs


def _pixels(each: _Input, raw: memoryview | None, shape: tuple[int, ...], most: int) -> Pixels:
    count, *rest = each["shape"] or [0]
    if tuple(rest) != shape or not 1 <= count <= most:
        wanted = f"[N, {', '.join(map(str, shape))}], N up to {most}"
        _refuse(f"shape of pixels is {each['shape']}: it must be {wanted}")
    size = count * int(np.prod(shape))
    if raw is not None:
        if len(raw) != size:
            _refuse(f"pixels of shape {each['shape']} have {size} bytes, not {len(raw)}")
        return np.frombuffer(raw, np.uint8).reshape(count, *shape)
    numbers = _flat(each.get("data", []))
    # Not an array of whatever came: strings would take the size of the longest each.
    if len(numbers) != size or not all(type(number) is int for number in numbers):
        _refuse(f"pixels of shape {each['shape']} need {size} whole numbers")
    if min(numbers) < 0 or max(numbers) > 255:
        _refuse("a pixel is outside of 0..255")
    return np.frombuffer(bytes(numbers), np.uint8).reshape(count, *shape)


def _flat(data: list[Any]) -> list[Any]:
    """Returns the elements of a list of lists of equal depth."""
    while data and all(isinstance(each, list) for each in data):
        data = [element for each in data for element in each]
    return data


def _files(each: _Input, raw: memoryview | None, most: int) -> list[bytes | str]:
    shape = each["shape"]
    count = shape[0] if shape else 0
    if shape not in ([count], [count, 1]) or not 1 <= count <= most:
        _refuse(f"shape of image is {shape}: it must be [N] or [N, 1], N up to {most}")
    files: list[bytes | str] = []
    if raw is None:
        data = each.get("data", [])
        files = [one for item in data for one in (item if isinstance(item, list) else [item])]
        if not all(map(_is_file, files)):
            _refuse("each image in JSON is the base64 text of its file")
    else:
        while len(raw):
            if len(raw) < _LENGTH.size:
                _refuse("the bytes of image end within a length")
            (size,) = _LENGTH.unpack(raw[: _LENGTH.size])
            raw = raw[_LENGTH.size :]
            if size > len(raw):
                _refuse(f"an image of {size} bytes has {len(raw)}")
            files.append(bytes(raw[:size]))
            raw = raw[size:]
            if len(files) > count:
                break
    if len(files) != count:
        _refuse(f"image of shape {shape} holds {len(files)} files")
    return files


def _is_file(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, str) and value.isascii())


def write_response(
    names: dict[str, Any], outputs: Sequence[tuple[Output, Tensor]]
) -> tuple[bytes, int | None]:
    """Returns the body of a response, and the size of its JSON, None if that is all.

    Args:
        names: what stands before the outputs: ``model_name`` and so on.
        outputs: each with its tensor: float32, or objects of bytes.
    """
    described, tail = [], []
    for output, tensor in outputs:
        entry = describe_tensor(output, tensor)
        if not output.binary:
            flat = tensor.ravel().tolist()
            entry["data"] = [text.decode() for text in flat] if is_text(tensor) else flat
        else:
            data = as_bytes(tensor)
            entry["parameters"] = {SIZE: len(data)}
            tail.append(data)
        described.append(entry)
    head = to_json({**names, "outputs": described})
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)


def describe_tensor(output: Output, tensor: Tensor) -> dict[str, Any]:
    """Returns name, datatype and shape of an output."""
    datatype = "BYTES" if is_text(tensor) else "FP32"
    return {"name": output.name, "datatype": datatype, "shape": list(tensor.shape)}


def is_text(tensor: Tensor) -> bool:
    """Returns whether the elements are bytes, not float32."""
    return bool(tensor.dtype == object)


def as_bytes(tensor: Tensor) -> bytes:
    """Returns a tensor as the protocol has it as bytes."""
    if is_text(tensor):
        return b"".join(_LENGTH.pack(len(text)) + text for text in tensor.ravel())
    return tensor.astype("<f4", copy=False).tobytes()

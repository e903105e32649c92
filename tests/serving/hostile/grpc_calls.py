"""Hostile calls of gRPC: messages that are spoiled or swell, streams that never come, no HTTP/2."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from threading import Event
from typing import Any

import grpc
from answers import REPLY_S
from other_routes import NAMES, TOKEN
from samples import samples
from spoiling import EXTREME, spoil

from serving.grpc_messages import SERVICE, message_classes

SIDE = 32  # of the network that is asked
_PIXELS = 3 * SIDE * SIDE
_METHODS = ("ModelReady", "ModelMetadata", "RepositoryIndex", "RepositoryModelLoad", "ServerReady")
_METHODS += ("RepositoryModelUnload", "ServerMetadata", "ModelStreamInfer", "\u00e9")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_OURS = ("UNKNOWN", "INTERNAL", "DATA_LOSS", "UNAVAILABLE")  # codes of a failure of ours


def call(channel: Any, number: int) -> str:
    """Returns the code of what comes back; the same call for the same number."""
    dice = Random(number)
    method, body = dice.choice((_infer, _infer, _swelling, _other))(dice)
    made = channel.unary_unary(f"/{SERVICE}/{method}")
    compression = dice.choice([None, None, None, grpc.Compression.Gzip])
    known = (("authorization", f"Bearer {TOKEN}"),)
    try:
        made(body, timeout=REPLY_S, metadata=known, compression=compression)
    except grpc.RpcError as error:
        code, detail = error.code().name, error.details()
        assert code not in _OURS, (number, method, code, detail)
        assert 0 < len(detail) <= 300, (number, detail)
        return str(code)
    return "OK"


def is_ready(channel: Any) -> bool:
    """Returns whether the service says that it is ready."""
    answer = channel.unary_unary(f"/{SERVICE}/ServerReady")(b"", timeout=REPLY_S)
    return bool(message_classes()["ServerReadyResponse"].FromString(answer).ready)


def _infer(dice: Random) -> tuple[str, bytes]:
    image = spoil(samples()["png"], dice)
    pixels = {"name": "pixels", "shape": [1, SIDE, SIDE, 3], "datatype": "UINT8"}
    tensor: dict[str, Any] = dict(pixels)
    raw = [bytes(_PIXELS)]
    match dice.randrange(8):
        case 0:
            raw = [struct.pack("<I", len(image)) + image]
            tensor = {"name": "image", "shape": [1], "datatype": "BYTES"}
        case 1:
            raw, tensor["contents"] = [], {"uint_contents": [dice.randrange(300)] * _PIXELS}
        case 2:
            tensor["shape"] = [dice.choice([*EXTREME, -1]) for _ in range(dice.randrange(9))]
        case 3:
            tensor["datatype"] = dice.choice(["FP32", "BYTES", "", "x" * 5000])
        case 4:
            raw *= dice.choice([0, 2, 100])
        case 5:
            contents = dice.choice(["bytes_contents", "fp32_contents"])
            tensor["contents"] = {contents: [image] if contents[0] == "b" else [float("nan")]}
    classes = {"classification": {"int64_param": dice.choice([1, -1, 2**62])}}
    fields: dict[str, Any] = {
        "model_name": dice.choice(NAMES),
        "model_version": dice.choice(["", "", "onnx-fp32", "-1"]),
        "id": dice.choice(["", "7", "\u00e9" * 5000]),
        "inputs": [tensor] * dice.choice([1, 1, 1, 1, 0, 9]),
        "outputs": [{"name": "scores", "parameters": dice.choice([{}, classes])}],
        "raw_input_contents": raw,
    }
    body = message_classes()["ModelInferRequest"](**fields).SerializeToString()
    return "ModelInfer", body if dice.random() < 0.6 else spoil(body, dice)


def _swelling(dice: Random) -> tuple[str, bytes]:
    """Returns a message whose parts take many times their bytes in memory, or that is too large."""
    part = dice.choice([b"\x2a\x00", b"\x32\x00", b"\x3a\x00", b"\x22\x00", b"\x08\x01", b"\x2b"])
    return "ModelInfer", part * dice.choice([100, 10_000, 1_000_000, 9_000_000])


def _other(dice: Random) -> tuple[str, bytes]:
    kind = message_classes()["RepositoryModelLoadRequest"]
    parameters = {"config": {"string_param": "x" * dice.choice([1, 5000])}}
    whole = kind(
        repository_name=dice.choice(NAMES),
        model_name=dice.choice(NAMES),
        parameters=dice.choice([{}, parameters]),
    ).SerializeToString()
    return dice.choice(_METHODS), dice.choice([b"", whole, spoil(whole, dice), dice.randbytes(99)])


def stall(channel: Any, count: int) -> list[str]:
    """Returns the codes of so many calls at once, of which no message ever comes."""
    done = Event()

    def never() -> Iterator[bytes]:
        done.wait()
        yield from ()

    known = (("authorization", f"Bearer {TOKEN}"),)
    made = channel.stream_unary(f"/{SERVICE}/ModelInfer")
    calls = [made.future(never(), timeout=REPLY_S, metadata=known) for _ in range(count)]
    codes = [each.code().name for each in calls]  # waits for it
    done.set()
    return codes


def no_grpc(port: int, number: int) -> None:
    """Sends bytes that are no HTTP/2, or frames that nobody expects, and leaves."""
    dice = Random(number)
    parts = [_PREFACE * dice.randrange(2)]
    for _ in range(dice.randrange(20)):
        size = dice.randrange(60)
        head = struct.pack(">I", size)[1:] + bytes([dice.randrange(10), dice.randrange(256)])
        stream = struct.pack(">I", dice.randrange(9))
        parts.append(head + stream + dice.randbytes(size if dice.random() < 0.7 else 1))
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"".join(parts))
        client.settimeout(0.05)
        while client.recv(1 << 16):
            pass

"""The Open Inference Protocol: tensors in JSON and as bytes, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from artifact.artifact import Artifact
from core.preprocess import Pixels
from serving.app import create_app
from serving.errors import Refusal
from serving.models import Models
from serving.repository import first_listing
from serving.settings import Settings
from serving.tensors import read_request

ROOT = Path(__file__).resolve().parents[2]
Encoded = Callable[..., bytes]
INFER = "/v2/models/channels-colours/infer"
SIDE = 32


@pytest.fixture(scope="module")
def app(artifact_path: Path) -> Iterator[Starlette]:
    settings = Settings(artifact=artifact_path, threads=1, max_bytes=100_000, max_images=4)
    with Models(settings, first_listing(settings)) as models:
        yield create_app(models)


@pytest.fixture(scope="module")
def golden(artifact_path: Path) -> tuple[Pixels, Any]:
    return Artifact.load(artifact_path).golden()


def ask(app: Starlette, method: str, path: str, **content: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **content)

    return asyncio.run(send())


def pixels_input(pixels: Pixels, **more: Any) -> dict[str, Any]:
    return {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8", **more}


def binary(head: dict[str, Any], *tails: bytes) -> dict[str, Any]:
    """Returns the content of a request whose tensors are bytes after the JSON."""
    text = json.dumps(head).encode()
    return {
        "content": b"".join([text, *tails]),
        "headers": {"inference-header-content-length": str(len(text))},
    }


def packed(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def test_server_and_model_describe_themselves(app: Starlette) -> None:
    assert ask(app, "GET", "/v2").json()["name"] == "pocketnets"
    assert ask(app, "GET", "/v2/health/live").json() == {"live": True}
    assert ask(app, "GET", "/v2/health/ready").json() == {"ready": True}
    ready = ask(app, "GET", "/v2/models/channels-colours/ready").json()
    assert ready == {"name": "channels-colours", "ready": True}
    told = ask(app, "GET", "/v2/models/channels-colours/versions/onnx-fp32").json()
    assert told == {
        "name": "channels-colours",
        "versions": ["onnx-fp32"],
        "platform": "pocketnets_onnx",
        "inputs": [
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 3]},
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }
    missing = ask(app, "GET", "/v2/models/other")
    assert (missing.status_code, missing.json().keys()) == (404, {"error"})


@pytest.mark.parametrize("nested", [True, False])
def test_pixels_in_json(app: Starlette, golden: tuple[Pixels, Any], nested: bool) -> None:
    pixels, logits = golden
    data = (pixels if nested else pixels.ravel()).tolist()
    body = {"id": "7", "inputs": [pixels_input(pixels, data=data)]}
    answer = ask(app, "POST", INFER, json=body).json()
    assert (answer["id"], answer["model_name"]) == ("7", "channels-colours")
    assert answer["model_version"] == "onnx-fp32"
    first, second = answer["outputs"]
    assert (first["name"], first["datatype"], first["shape"]) == ("logits", "FP32", [3, 3])
    assert np.allclose(np.reshape(first["data"], (3, 3)), logits, atol=1e-4)
    assert np.allclose(np.reshape(second["data"], (3, 3)).sum(axis=1), 1)


def test_pixels_and_outputs_as_bytes(app: Starlette, golden: tuple[Pixels, Any]) -> None:
    pixels, logits = golden
    head = {
        "inputs": [pixels_input(pixels, parameters={"binary_data_size": pixels.size})],
        "outputs": [
            {"name": "scores", "parameters": {"classification": 2}},
            {"name": "logits", "parameters": {"binary_data": True}},
            {"name": "scores", "parameters": {"classification": 1, "binary_data": True}},
        ],
    }
    response = ask(app, "POST", INFER, **binary(head, pixels.tobytes()))
    size = int(response.headers["inference-header-content-length"])
    assert response.headers["content-type"] == "application/octet-stream"
    told = json.loads(response.content[:size])["outputs"]
    tail = response.content[size:]
    assert (told[0]["datatype"], told[0]["shape"]) == ("BYTES", [3, 2])
    score, index, label = told[0]["data"][0].split(":")
    assert (index, label) == ("0", "red")
    assert 0.5 < float(score) <= 1
    assert told[1]["parameters"] == {"binary_data_size": logits.nbytes}
    assert np.allclose(np.frombuffer(tail[: logits.nbytes], "<f4").reshape(3, 3), logits, atol=1e-4)
    (length,) = struct.unpack("<I", tail[logits.nbytes : logits.nbytes + 4])
    text = tail[logits.nbytes + 4 : logits.nbytes + 4 + length].decode()
    assert text.endswith(":0:red")
    assert told[2]["parameters"]["binary_data_size"] == len(tail) - logits.nbytes


def test_image_files(app: Starlette, encoded: Encoded) -> None:
    files = [encoded("red"), encoded("blue", "JPEG", (90, 70))]
    image = {"name": "image", "shape": [2], "datatype": "BYTES"}
    whole = packed(*files)
    head = {"inputs": [{**image, "parameters": {"binary_data_size": len(whole)}}]}
    as_bytes = ask(app, "POST", INFER, **binary(head, whole)).json()
    texts = [base64.b64encode(file).decode() for file in files]
    as_text = ask(app, "POST", INFER, json={"inputs": [{**image, "data": texts}]}).json()
    assert as_bytes == as_text
    scores = np.reshape(as_bytes["outputs"][1]["data"], (2, 3))
    assert scores.argmax(axis=1).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"shape": [1, SIDE, SIDE, 1]}, "shape of pixels"),
        ({"shape": [5, SIDE, SIDE, 3]}, "N up to 4"),
        ({"shape": []}, "shape of pixels"),
        ({"shape": [-1]}, "greater than or equal to 0"),
        ({"datatype": "FP32"}, "pixels of UINT8"),
        ({"name": "images"}, "pixels of UINT8"),
        ({"data": [1, 2]}, "whole numbers"),
        ({"data": [[1, 2], [3]]}, "whole numbers"),
        ({"data": [0.5] * (SIDE * SIDE * 3)}, "whole numbers"),
        ({"data": [256] * (SIDE * SIDE * 3)}, "0..255"),
        ({"data": ["a"] * (SIDE * SIDE * 3)}, "whole numbers"),
        ({"parameters": {"binary_data_size": 4}}, "0 bytes are left"),
        ({"parameters": {"binary_data_size": True}}, "binary_data_size"),
    ],
)
def test_tensors_that_are_refused(app: Starlette, change: dict[str, Any], detail: str) -> None:
    data = np.zeros(SIDE * SIDE * 3, int).tolist()
    good = {"name": "pixels", "shape": [1, SIDE, SIDE, 3], "datatype": "UINT8", "data": data}
    response = ask(app, "POST", INFER, json={"inputs": [{**good, **change}]})
    assert response.status_code == 400, response.text
    assert response.json().keys() == {"error"}
    assert detail in response.json()["error"]


@pytest.mark.parametrize(
    ("head", "tail", "detail"),
    [
        ({"inputs": []}, b"", "at least 1 item"),
        ({}, b"", "required"),
        ({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES"}]}, b"xx", "no input"),
        ({"outputs": [{"name": "labels"}]}, b"\x01\0\0\0x", "logits and scores"),
        ({"outputs": [{"name": "scores", "parameters": {"classification": -1}}]}, b"", "whole"),
        ({"parameters": {"classification": 2}}, b"", "of an output"),
        ({}, b"\xff\xff\xff\xff", "has 0"),
        ({}, b"\x01\0", "within a length"),
        ({}, b"\x01\0\0\0x\x01\0\0\0y", "holds 2 files"),
        ({"shape": [2, 2]}, b"", "[N] or [N, 1]"),
        ({"shape": [9]}, b"", "[N] or [N, 1]"),
    ],
)
def test_requests_that_are_refused(
    app: Starlette, head: dict[str, Any], tail: bytes, detail: str
) -> None:
    if "inputs" not in head and detail != "required":
        size = {"binary_data_size": len(tail)}
        shape = head.pop("shape", [1])
        image = {"name": "image", "shape": shape, "datatype": "BYTES", "parameters": size}
        head = {**head, "inputs": [image]}
    response = ask(app, "POST", INFER, **binary(head, tail))
    assert response.status_code == 400, response.text
    assert detail in response.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "99999999", "1" * 5000])
def test_a_head_of_another_size(app: Starlette, length: str) -> None:
    headers = {"inference-header-content-length": length}
    response = ask(app, "POST", INFER, content=b"{}", headers=headers)
    assert response.status_code == 400
    assert len(response.json()["error"]) < 200


def test_what_is_no_image_or_too_much(app: Starlette) -> None:
    image = {"name": "image", "shape": [1], "datatype": "BYTES"}
    head = {"inputs": [{**image, "parameters": {"binary_data_size": 8}}]}
    broken = ask(app, "POST", INFER, **binary(head, packed(b"none")))
    assert broken.status_code == 400
    assert "image" in broken.json()["error"]
    large = ask(app, "POST", INFER, content=bytes(2_000_000))
    assert large.status_code == 413
    many = b'{"inputs": [' + b"1," * 20_000 + b"1]}"
    assert "too many numbers" in ask(app, "POST", INFER, content=many).json()["error"]


def test_mutated_requests_are_read_or_refused() -> None:
    draw = random.Random(0)
    odd = [
        0,
        -1,
        2**31,
        2**70,
        1.5,
        True,
        None,
        "",
        "image",
        "BYTES",
        "\u00e9",
        [],
        {},
        [[1], [2, 3]],
    ]

    def mutate(value: Any) -> Any:
        if isinstance(value, dict) and value and draw.random() < 0.8:
            key = draw.choice(list(value))
            return {**value, key: mutate(value[key])}
        if isinstance(value, list) and value and draw.random() < 0.7:
            place = draw.randrange(len(value))
            return [*value[:place], mutate(value[place]), *value[place + 1 :]]
        return draw.choice(odd)

    outcomes = Counter[int]()
    for _ in range(3000):
        tail = bytes(12) if draw.random() < 0.5 else packed(b"abc")
        name, kind, shape = ("pixels", "UINT8", [1, 2, 2, 3])
        if len(tail) != 12:
            name, kind, shape = ("image", "BYTES", [1])
        size = {"binary_data_size": len(tail)}
        tensor = {"name": name, "datatype": kind, "shape": shape, "parameters": size}
        wanted = [{"name": "scores", "parameters": {"classification": 2}}]
        head: Any = {"id": "1", "inputs": [tensor], "outputs": wanted}
        for _ in range(draw.randrange(3)):
            head = mutate(head)
        text = json.dumps(head).encode()
        body = bytearray(text + tail)
        if draw.random() < 0.2:
            body[draw.randrange(len(body))] = draw.randrange(256)
        size_told = draw.choice([len(text)] * 9 + [len(text) - 1])
        try:
            read = read_request(bytes(body), size_told, (2, 2, 3), 3, 4)
            assert (read.pixels is None) == bool(read.files)
            outcomes[200] += 1
        except Refusal as refusal:
            outcomes[refusal.status if "\n" not in refusal.detail else 500] += 1
    assert outcomes.keys() == {200, 400}
    assert min(outcomes.values()) > 500


@pytest.mark.parametrize(
    "data",
    [
        ["x" * 200_000, *[""] * 1000],  # as an array 800 MB
        [[True, 2, 3] * SIDE] * SIDE,
        [*[0] * (3 * SIDE * SIDE - 1), 0.5],
        [[0] * 3 * SIDE * SIDE, 0],
        [*[0] * (3 * SIDE * SIDE - 1), 2**70],
    ],
)
def test_pixels_that_are_no_whole_numbers_cost_nothing(data: list[Any]) -> None:
    shape = [1, SIDE, SIDE, 3]
    tensor = {"name": "pixels", "shape": shape, "datatype": "UINT8", "data": data}
    body = json.dumps({"inputs": [tensor]}).encode()
    tracemalloc.start()
    with pytest.raises(Refusal, match=r"whole numbers|outside of"):
        read_request(body, None, (SIDE, SIDE, 3), 3, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000

"""Hostile requests to the routes of models, of administrators and of the inference protocol."""

from __future__ import annotations

import base64
import json
import struct
from contextlib import closing
from http.client import HTTPConnection
from random import Random
from typing import Any

from answers import REPLY_S, form
from samples import samples
from spoiling import EXTREME, spoil

TOKEN = "s3cret"
NAMES = (*["channels-colours"] * 9, "nothing", "%2e%2e", "a" * 300)
_PIXELS = 3 * 8 * 8

Asked = tuple[str, str, dict[str, str], bytes]


def asked(number: int) -> Asked:
    """Returns method, path, headers and body of a request; the same for the same number."""
    dice = Random(number)
    ways = (_predict, _infer_json, _infer_bytes, _admin, _repository, _look)
    return dice.choice(ways)(dice)


def send(port: int, request: Asked) -> tuple[int, bytes]:
    """Returns status and body of the answer, on a connection of its own."""
    method, path, headers, body = request
    headers = {"Authorization": f"Bearer {TOKEN}", **headers}
    with closing(HTTPConnection("127.0.0.1", port, timeout=REPLY_S)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()


def _name(dice: Random) -> str:
    version = dice.choice(["", "", "", "/versions/onnx-fp32", "/versions/-1"])
    return f"{dice.choice(NAMES)}{version}"


def _predict(dice: Random) -> Asked:
    image = spoil(dice.choice(list(samples().values())), dice)
    path = f"/models/{_name(dice)}/predict"
    if dice.random() < 0.3:
        kind, body = form([image, samples()["png"]])
        return "POST", f"{path}_batch", {"Content-Type": kind}, body
    return "POST", path + dice.choice(["", "?top_k=2", "?x=1"]), {"Content-Type": "image/*"}, image


def _infer_json(dice: Random) -> Asked:
    body: Any = {"id": "1", "inputs": [_tensor(dice)], "outputs": [{"name": "scores"}]}
    tensor = body["inputs"][0]
    match dice.randrange(8):
        case 0:
            tensor["shape"] = [dice.choice(EXTREME) for _ in range(dice.randrange(9))]
        case 1:
            tensor["data"] = dice.choice([None, {}, [[]], ["x"], [1e400], [256], [True], "x"])
        case 2:
            tensor["datatype"] = dice.choice(["FP32", "BYTES", "uint8", "", 8])
        case 3:
            body["inputs"] *= dice.choice([2, 9])
        case 4:
            body["outputs"] = dice.choice([[{"name": "none"}], 3, [{}] * 9, []])
        case 5:
            body["outputs"][0]["parameters"] = {"classification": dice.choice([0, -1, 2**70, "x"])}
        case 6:
            body["id"] = dice.choice([1, "x" * 10_000, None])
    text = json.dumps(body).encode()
    text = spoil(text, dice) if dice.random() < 0.3 else text
    return "POST", f"/v2/models/{_name(dice)}/infer", {"Content-Type": "application/json"}, text


def _tensor(dice: Random) -> dict[str, Any]:
    if dice.random() < 0.5:
        data = [dice.randrange(256) for _ in range(_PIXELS)]
        return {"name": "pixels", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": data}
    image = base64.b64encode(spoil(samples()["png"], dice)).decode()
    return {"name": "image", "shape": [1], "datatype": "BYTES", "data": [image]}


def _infer_bytes(dice: Random) -> Asked:
    image = spoil(samples()["png"], dice)
    raw = dice.choice([bytes(_PIXELS), struct.pack("<I", len(image)) + image])
    name, shape, kind = (
        ("pixels", [1, 8, 8, 3], "UINT8")
        if raw[:4] == bytes(4)
        else (
            *("image", [1]),
            "BYTES",
        )
    )
    size = dice.choice([len(raw), len(raw), len(raw) - 1, *EXTREME, -1, "x"])
    tensor = {"name": name, "shape": shape, "datatype": kind}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()
    said = dice.choice([len(head), len(head), len(head), len(head) + 1, 0, *EXTREME, "-1", "x"])
    raw = raw if dice.random() < 0.7 else spoil(raw, dice)
    headers = {"Inference-Header-Content-Length": str(said)}
    return "POST", f"/v2/models/{_name(dice)}/infer", headers, head + raw


def _admin(dice: Random) -> Asked:
    verb = dice.choice(["load", "unload", "promote", "canary", "shadow", "rollback"])
    whole = json.dumps({"version": dice.choice(["onnx-fp32", "9", "../..", 1, None])}).encode()
    body = dice.choice([whole, spoil(whole, dice), b"", b"[]", b"[" * 10_000, b"x" * 100_000])
    return "POST", f"/models/{_name(dice)}/{verb}", {"Content-Type": "application/json"}, body


def _repository(dice: Random) -> Asked:
    verb = dice.choice(["index", *(f"models/{_name(dice)}/{verb}" for verb in ("load", "unload"))])
    parameters = dice.choice([{}, {"unload_dependents": True}, {"config": "{}"}, [], None, "x"])
    whole = json.dumps(dice.choice([{"parameters": parameters}, {"ready": True}, {"ready": 2}]))
    body = dice.choice([whole.encode(), spoil(whole.encode(), dice), b"", b"[]", b"x" * 100_000])
    return "POST", f"/v2/repository/{verb}", {}, body


def _look(dice: Random) -> Asked:
    path = dice.choice(["/models", "/v2", "/v2/models", "/v2/health/live", "/model"])
    if dice.random() < 0.6:
        path = f"{dice.choice(['', '/v2'])}/models/{_name(dice)}{dice.choice(['', '/ready', '/x'])}"
    return dice.choice(["GET", "HEAD", "PUT", "DELETE"]), path, {}, b""

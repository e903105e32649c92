"""Sends uploads in the ways that there are, and judges what comes back."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable
from contextlib import closing
from http.client import HTTPConnection

NAME = "s3cret-name.png"
BOUNDARY = "-x-"
REPLY_S = 60
# What must not be told: places in a file system, code, addresses of objects, the upload's name.
_TOLD = re.compile(
    rf"/(home|tmp|usr|work|opt|root|var|proc)\b|site-packages|\.py\b|Traceback|File \"|\n"
    rf"|0x[0-9a-f]{{6,}}|object at 0x|{re.escape(NAME)}"
)


def judge(status: int, body: bytes, *, batch: bool = False) -> str:
    """Returns the answer's kind: ``ok`` or the code of an error.

    Raises:
        AssertionError: a failure of ours, another shape than promised, or a word too much.
    """
    assert status < 500, (status, body[:500])
    answer = json.loads(body)
    if status == 200 and batch:
        assert set(answer) == {"results", "model", "precision", "runtime"}
        kinds = {_kind(each, names=False) for each in answer["results"]}
        return "ok" if kinds == {"ok"} else "mixed"
    kind = _kind(answer)
    assert (kind == "ok") == (status == 200), (status, answer)
    return kind


def _kind(answer: dict[str, object], *, names: bool = True) -> str:
    if "error" not in answer:
        expected = {"predictions", "timings_ms"} | (
            {"model", "precision", "runtime"} if names else set()
        )
        assert set(answer) == expected
        predictions = answer["predictions"]
        assert isinstance(predictions, list)
        assert len(predictions) == 3
        assert abs(sum(each["score"] for each in predictions) - 1) < 1e-6
        return "ok"
    assert set(answer) == {"error", "detail"}
    code, detail = answer["error"], answer["detail"]
    assert isinstance(code, str)
    assert isinstance(detail, str)
    assert re.fullmatch("[a-z0-9_]+", code), code
    assert 0 < len(detail) <= 300, detail
    # The fields of a form are told, and a spoiled form may call them anything.
    ours = detail.partition("; it holds ")[0] if code == "no_image" else detail
    assert not _TOLD.search(ours), detail
    return code


def form(images: Iterable[bytes]) -> tuple[str, bytes]:
    """Returns content type and body of a form with ``images``."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{NAME}"\r\n\r\n'
    )
    body = b"".join(head.encode() + image + b"\r\n" for image in images)
    return f"multipart/form-data; boundary={BOUNDARY}", body + f"--{BOUNDARY}--\r\n".encode()


def post(port: int, path: str, kind: str, body: bytes, coding: str = "") -> tuple[int, bytes]:
    """Returns status and body of the answer to a well-formed request on a connection of its own."""
    headers = {"Content-Type": kind}
    if coding:
        headers["Content-Encoding"] = coding
    with closing(HTTPConnection("127.0.0.1", port, timeout=REPLY_S)) as connection:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()


def head(**headers: object) -> bytes:
    """Returns the start of a raw request to ``/predict``, up to its body."""
    named = {"Host": "test", "Content-Type": "image/png", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
    return "\r\n".join(["POST /predict HTTP/1.1", *lines, "", ""]).encode("latin-1")


def exchange(port: int, data: bytes, *, hang_up: bool = False) -> tuple[int, bytes] | None:
    """Returns status and body of the answer to ``data`` as it is; None if there came none.

    Args:
        port: of 127.0.0.1.
        data: all that is sent; then nothing more, and the connection stays.
        hang_up: says that nothing more will come, as one does who was cut off.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=REPLY_S) as client:
        client.sendall(data)
        if hang_up:
            client.shutdown(socket.SHUT_WR)
        file = client.makefile("rb")
        try:
            status = file.readline().split()
        except ConnectionError:
            return None
        if not status:
            return None
        headers = {}
        while line := file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length")
        return int(status[1]), file.read(int(length) if length else -1)

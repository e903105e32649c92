"""What a request may look like: its content type, its coding, its JSON."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from artifact.artifact import Artifact
from serving.app import create_app
from serving.predictor import Predictor
from serving.settings import Settings

Encoded = Callable[..., bytes]

MAX_BYTES, MAX_IMAGES = 200_000, 4
JSON = "application/json"


@pytest.fixture(scope="module")
def app(artifact_path: Path) -> Iterator[Starlette]:
    settings = Settings(
        artifact=artifact_path, threads=2, max_bytes=MAX_BYTES, max_images=MAX_IMAGES
    )
    with Predictor(settings, Artifact.load(artifact_path)) as predictor:
        yield create_app(predictor)


@pytest.fixture
def ask(app: Starlette) -> Callable[..., httpx.Response]:
    """Returns a function that returns the answer to a body with these headers and no others."""

    def post(content: Any, path: str = "/predict", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.post(path, content=content, headers=named)

        return asyncio.run(send())

    return post


def best(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["predictions"][0]["label"])


def refused(response: httpx.Response, status: int, code: str) -> str:
    body = response.json()
    assert (response.status_code, body["error"]) == (status, code), body
    assert "\n" not in body["detail"]
    assert len(body["detail"]) <= 300
    return str(body["detail"])


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "kind",
    [
        *("image/x-png", "image/apng", "image/jfif", "image/tif", "image/x-tiff", "image/x-bmp"),
        *("image/anything", "IMAGE/PNG", "image/png; charset=binary", "image/svg+xml"),
        *("application/octet-stream", "binary/octet-stream", "*/*", "", "nonsense"),
        *("application/x-www-form-urlencoded", "text/plain", "multipart/mixed; boundary=b"),
    ],
)
def test_the_bytes_decide_what_an_image_is(ask: Any, encoded: Encoded, kind: str) -> None:
    assert best(ask(encoded("blue"), content_type=kind)) == "blue"


def test_an_image_without_a_content_type_is_taken(ask: Any, encoded: Encoded) -> None:
    assert best(ask(encoded("blue", "JPEG"))) == "blue"


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        ("application/x-www-form-urlencoded", b"image=@photo.jpg", "not_an_image"),
        ("text/plain", b'{"image": "AAAA"}', "not_an_image"),
        ("", b"", "empty"),
    ],
)
def test_who_sends_text_is_told_how_to_send_an_image(
    ask: Any, kind: str, data: bytes, code: str
) -> None:
    detail = refused(ask(data, content_type=kind), 400, code)
    assert f"{kind!r}" in detail
    assert "curl -F image=@FILE" in detail
    assert "curl" not in refused(ask(data, content_type="image/png"), 400, code)


@pytest.mark.parametrize("form", ["{}", "data:image/png;base64,{}", "DATA:;charset=x;BASE64,{}"])
def test_json_holds_base64_or_a_data_uri(ask: Any, encoded: Encoded, form: str) -> None:
    body = json.dumps({"image": form.format(text_of(encoded("blue")))})
    assert best(ask(body, content_type=JSON)) == "blue"
    assert best(ask(body, content_type="Application/JSON; charset=utf-8")) == "blue"


def test_json_gets_the_answer_that_bytes_get(ask: Any, encoded: Encoded) -> None:
    data = encoded((200, 100, 50), "JPEG")
    answers = [
        ask(data, "/predict?top_k=2"),
        ask(json.dumps({"image": text_of(data), "top_k": 2}), content_type=JSON),
        ask(json.dumps({"image": text_of(data), "top_k": 2.0}), content_type=JSON),
        ask(json.dumps({"image": text_of(data)}), "/predict?top_k=2", content_type=JSON),
    ]
    found = [answer.json()["predictions"] for answer in answers]
    assert len(found[0]) == 2
    assert found == found[:1] * 4
    default = ask(json.dumps({"image": text_of(data), "top_k": None}), content_type=JSON)
    assert len(default.json()["predictions"]) == 3


@pytest.mark.parametrize("top_k", [0, 4, -1, 1.5, 1e300, "2", True, [1], {"a": 1}, 10**400])
def test_a_bad_top_k_in_json(ask: Any, encoded: Encoded, top_k: object) -> None:
    body = json.dumps({"image": text_of(encoded()), "top_k": top_k})
    refused(ask(body, content_type=JSON), 422, "bad_top_k")


def test_top_k_is_in_one_place(ask: Any, encoded: Encoded) -> None:
    body = json.dumps({"image": text_of(encoded()), "top_k": 2})
    refused(ask(body, "/predict?top_k=2", content_type=JSON), 422, "bad_top_k")


def test_a_bad_image_in_json_spoils_no_other(ask: Any, encoded: Encoded) -> None:
    texts = [text_of(encoded("red")), "no base64!", text_of(b"no image"), text_of(encoded("blue"))]
    response = ask(json.dumps({"images": texts, "top_k": 1}), "/predict_batch", content_type=JSON)
    results = response.json()["results"]
    assert [each["predictions"][0]["label"] for each in (results[0], results[3])] == ["red", "blue"]
    assert [each["error"] for each in results[1:3]] == ["bad_base64", "not_an_image"]


def test_what_is_wrong_in_json_is_told_with_what_is_right(ask: Any) -> None:
    detail = refused(ask(b'{"img": ""}', content_type=JSON), 400, "bad_json")
    assert "'img'" in detail
    assert '{"image": ' in detail
    detail = refused(ask(b'{"image": ""}', "/predict_batch", content_type=JSON), 400, "bad_json")
    assert "/predict" in detail
    assert '{"images": [' in detail
    refused(ask(b"", content_type=JSON), 400, "empty")
    refused(ask(b'{"image": "data:;base64,"}', content_type=JSON), 400, "empty")


def test_a_batch_of_json_has_as_many_images_as_a_form(ask: Any, encoded: Encoded) -> None:
    for count, status in ((MAX_IMAGES, 200), (MAX_IMAGES + 1, 400)):
        body = json.dumps({"images": [text_of(encoded())] * count})
        assert ask(body, "/predict_batch", content_type=JSON).status_code == status


def test_an_image_of_exactly_the_limit_is_taken_in_json(ask: Any, encoded: Encoded) -> None:
    fits, large = (encoded().ljust(MAX_BYTES + more, b"\0") for more in (0, 1))
    # In lines, and with every slash escaped, as some programs write it.
    body = json.dumps({"image": base64.encodebytes(fits).decode()}).replace("/", "\\/")
    assert best(ask(body, content_type=JSON)) == "red"
    refused(ask(json.dumps({"image": text_of(large)}), content_type=JSON), 413, "too_large")


def test_json_is_bounded_while_it_is_read(ask: Any) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield b'{"image": "'
        while True:
            read += 10_000
            yield b"A" * 10_000

    refused(ask(endless(), content_type=JSON), 413, "too_large")
    assert read < 2 * MAX_BYTES


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
def test_gzip_is_decoded(ask: Any, encoded: Encoded, coding: str) -> None:
    data = encoded("blue", "BMP")
    assert best(ask(gzip.compress(data), content_encoding=coding)) == "blue"
    body = json.dumps({"image": text_of(data)}).encode()
    packed = ask(gzip.compress(body), content_encoding=coding, content_type=JSON)
    assert best(packed) == "blue"
    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n%b\r\n--b--'
    headers = {"content_encoding": coding, "content_type": "multipart/form-data; boundary=b"}
    assert best(ask(gzip.compress(form % data), **headers)) == "blue"
    batch = ask(gzip.compress(form % data), "/predict_batch", **headers)
    assert best(httpx.Response(200, json=batch.json()["results"][0])) == "blue"


def test_no_coding_is_no_coding(ask: Any, encoded: Encoded) -> None:
    for coding in ("identity", ""):
        assert best(ask(encoded("blue"), content_encoding=coding)) == "blue"


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip"])
@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
def test_another_coding_is_refused_with_the_one_that_is_not(
    ask: Any, coding: str, path: str
) -> None:
    response = ask(b"x", path, content_encoding=coding, content_type=JSON)
    detail = refused(response, 415, "unsupported_coding")
    assert repr(coding) in detail
    assert "gzip" in detail
    assert response.headers["accept-encoding"] == "gzip"


def test_gzip_without_its_header_is_named(ask: Any, encoded: Encoded) -> None:
    detail = refused(ask(gzip.compress(encoded())), 415, "unsupported_image")
    assert "Content-Encoding: gzip" in detail


def test_broken_gzip_is_told_as_such(ask: Any, encoded: Encoded) -> None:
    packed = gzip.compress(encoded())
    for broken in (packed[:-1], packed + b"more", encoded(), b""):
        refused(ask(broken, content_encoding="gzip"), 400, "bad_gzip")


def test_gzip_is_bounded_by_what_it_holds(ask: Any, encoded: Encoded) -> None:
    fits, large = (encoded().ljust(MAX_BYTES + more, b"\0") for more in (0, 1))
    assert best(ask(gzip.compress(fits), content_encoding="gzip")) == "red"
    refused(ask(gzip.compress(large), content_encoding="gzip"), 413, "too_large")
    bomb = gzip.compress(bytes(100 * MAX_BYTES))
    assert len(bomb) < MAX_BYTES
    for kind in (JSON, "multipart/form-data; boundary=b", "image/png"):
        refused(ask(bomb, content_encoding="gzip", content_type=kind), 413, "too_large")


def test_gzipped_json_is_bounded_by_what_came(ask: Any, encoded: Encoded) -> None:
    headers = {"content_encoding": "gzip", "content_type": JSON}
    bomb = gzip.compress(json.dumps({"images": ["A" * 1_400_000]}).encode())
    assert len(bomb) < 5_000
    detail = refused(ask(bomb, "/predict_batch", **headers), 400, "bad_gzip")
    assert "20 times" in detail
    image = encoded("blue")
    image += random.Random(0).randbytes(MAX_BYTES - len(image))
    body = json.dumps({"images": [text_of(image)] * MAX_IMAGES})
    assert len(body) > 1 << 20
    response = ask(gzip.compress(body.encode(), 1), "/predict_batch", **headers)
    assert [each["predictions"][0]["label"] for each in response.json()["results"]] == [
        "blue"
    ] * MAX_IMAGES


def test_gzip_that_holds_nothing_ends_all_the_same(ask: Any) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield gzip.compress(b"")[:10]  # the head; then empty blocks, one after the other
        while True:
            read += 10_000
            yield b"\0\0\0\xff\xff" * 2_000

    refused(ask(endless(), content_encoding="gzip"), 413, "too_large")
    assert read < 2 * MAX_BYTES


def test_an_image_that_cannot_be_packed_is_taken_at_the_limit(ask: Any, encoded: Encoded) -> None:
    data = encoded().ljust(MAX_BYTES, b"\0")
    packed = gzip.compress(data, 0)
    assert len(packed) > MAX_BYTES
    assert best(ask(packed, content_encoding="gzip")) == "red"


def test_who_sends_too_many_files_is_told_where_they_go(ask: Any, encoded: Encoded) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n%b\r\n'
    body = part % encoded() * (MAX_IMAGES + 1) + b"--b--"
    headers = {"content_type": "multipart/form-data; boundary=b"}
    assert "/predict_batch" in refused(ask(body, **headers), 400, "bad_form")
    assert "send fewer" in refused(ask(body, "/predict_batch", **headers), 400, "bad_form")


@pytest.mark.parametrize("name", ["file", "images", "image[]", "Image"])
def test_a_form_with_another_field_is_told_what_it_holds(
    ask: Any, encoded: Encoded, name: str
) -> None:
    body = (
        f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'.encode()
        + encoded()
        + b'\r\n--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nx\r\n--b--'
    )
    for path in ("/predict", "/predict_batch"):
        response = ask(body, path, content_type="multipart/form-data; boundary=b")
        detail = refused(response, 400, "no_image")
        assert f"file {name!r}" in detail
        assert "text 'note'" in detail


def test_a_part_in_base64_is_decoded(ask: Any, encoded: Encoded) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
        b"Content-Transfer-Encoding: Base64\r\n\r\n%b\r\n--b--"
    ) % base64.encodebytes(encoded("blue")).replace(b"\n", b"\r\n")
    headers = {"content_type": "multipart/form-data; boundary=b"}
    assert best(ask(body, **headers)) == "blue"
    broken = body.replace(b"\r\n\r\niVB", b"\r\n\r\ni?B")
    refused(ask(broken, **headers), 400, "bad_base64")


def test_a_batch_is_a_form_or_json(ask: Any, encoded: Encoded) -> None:
    response = ask(encoded(), "/predict_batch", content_type="image/png")
    detail = refused(response, 415, "unsupported_media_type")
    assert "multipart/form-data" in detail
    assert JSON in detail

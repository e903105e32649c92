from __future__ import annotations

import asyncio
import dataclasses
import io
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_page import served
from PIL import Image, ImageFile
from starlette.applications import Starlette

from artifact.artifact import Artifact
from artifact.records import Logits
from core.preprocess import TYPES, Pixels, Preprocess, decode
from serving.app import create_app
from serving.predictor import Predictor
from serving.settings import Settings

Encoded = Callable[..., bytes]


class Client:
    """Sends requests to an application in this process; a failure there is a 500 here."""

    def __init__(self, app: Starlette) -> None:
        self.transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def request(self, method: str, path: str, **content: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self.transport, base_url="http://test"
            ) as client:
                return await client.request(method, path, **content)

        return asyncio.run(send())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, **content: Any) -> httpx.Response:
        return self.request("POST", path, **content)


@pytest.fixture(scope="module")
def client(artifact_path: Path) -> Iterator[Client]:
    settings = Settings(artifact=artifact_path, threads=2, max_bytes=200_000, max_pixels=1_000_000)
    with Predictor(settings, Artifact.load(artifact_path)) as predictor:
        yield Client(create_app(predictor))


def post(client: Client, data: bytes, kind: str = "image/png", query: str = "") -> Any:
    return client.post(f"/predict{query}", content=data, headers={"content-type": kind})


def check_error(response: Any, status: int, code: str) -> None:
    assert response.status_code == status
    body = response.json()
    assert set(body) == {"error", "detail"}
    assert body["error"] == code
    assert body["detail"]
    assert "\n" not in body["detail"]
    assert "/" + "work" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_form_and_raw_bytes_get_the_same_answer(
    client: Client, encoded: Encoded, colour: str
) -> None:
    data = encoded({"green": "lime"}.get(colour, colour))
    form = client.post("/predict", files={"image": ("a.png", data, "image/png")})
    raw = post(client, data)
    assert form.status_code == raw.status_code == 200
    answer = raw.json()
    assert answer["predictions"] == form.json()["predictions"]
    assert answer["predictions"][0]["index"] == ["red", "green", "blue"].index(colour)
    assert answer["predictions"][0]["label"] == colour
    scores = [p["score"] for p in answer["predictions"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)
    assert (answer["model"], answer["precision"], answer["runtime"]) == (
        "channels",
        "fp32",
        "ort-cpu",
    )
    assert set(answer["timings_ms"]) == {"decode", "resize", "queue", "inference"}
    assert all(value >= 0 for value in answer["timings_ms"].values())
    timing = [part.split(";dur=") for part in raw.headers["server-timing"].split(", ")]
    assert {name: float(ms) for name, ms in timing} == answer["timings_ms"]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats(client: Client, encoded: Encoded, format: str) -> None:
    response = post(client, encoded("red", format), "application/octet-stream")
    assert response.status_code == 200
    assert response.json()["predictions"][0]["label"] == "red"


def test_scores_are_the_softmax_of_the_logits(client: Client, encoded: Encoded) -> None:
    predictions = post(client, encoded((200, 100, 50))).json()["predictions"]
    powers = np.exp(np.array([200, 100, 50]) * 0.05)
    assert [p["score"] for p in predictions] == pytest.approx(powers / powers.sum(), rel=1e-5)


def test_top_k(client: Client, encoded: Encoded) -> None:
    assert len(post(client, encoded()).json()["predictions"]) == 3  # the default 5, of 3 labels
    assert len(post(client, encoded(), query="?top_k=2").json()["predictions"]) == 2


@pytest.mark.parametrize("top_k", ["0", "4", "-1", "1.5", "many", "", "²", "9" * 5000])
def test_bad_top_k(client: Client, encoded: Encoded, top_k: str) -> None:
    check_error(post(client, encoded(), query=f"?top_k={top_k}"), 422, "bad_top_k")


def test_empty(client: Client) -> None:
    check_error(post(client, b""), 400, "empty")
    check_error(client.post("/predict", files={"image": ("a.png", b"")}), 400, "empty")


def test_not_an_image(client: Client) -> None:
    check_error(post(client, b"<html>no</html>"), 400, "not_an_image")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"8BPS\0\1" + bytes(40), "PSD"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ],
)
def test_an_image_of_another_type(client: Client, data: bytes, kind: str) -> None:
    response = post(client, data)
    check_error(response, 415, "unsupported_image")
    assert response.json()["detail"].startswith(f"it is {kind}: send one of JPEG, PNG")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_truncated(client: Client, format: str) -> None:
    file = io.BytesIO()
    Image.effect_noise((200, 200), 90).convert("RGB").save(file, format)
    check_error(post(client, file.getvalue()[: file.tell() // 2]), 400, "not_an_image")


def test_what_escapes_a_decoder_is_the_clients_fault(
    client: Client, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Image.Image:
        raise struct.error("unpack requires 4 bytes, in /a/private/path")

    monkeypatch.setattr(Image, "open", broken)
    response = post(client, encoded())
    check_error(response, 400, "not_an_image")
    assert "private" not in response.text


def test_too_many_bytes_declared_or_streamed(client: Client) -> None:
    check_error(post(client, bytes(200_001)), 413, "too_large")
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 10_000
            yield bytes(10_000)

    headers = {"content-type": "image/png"}
    check_error(client.post("/predict", content=endless(), headers=headers), 413, "too_large")
    assert read <= 210_000


@pytest.mark.parametrize("size", [200_001, 400_000])
def test_too_many_bytes_in_a_form(client: Client, size: int) -> None:
    response = client.post("/predict", files={"image": ("a.png", bytes(size))})
    check_error(response, 413, "too_large")


def test_an_image_of_exactly_the_limit_is_taken(client: Client, encoded: Encoded) -> None:
    data = encoded().ljust(200_000, b"\0")
    assert post(client, data).status_code == 200
    assert client.post("/predict", files={"image": ("a.png", data)}).status_code == 200


def test_too_many_pixels_is_judged_before_decoding(
    client: Client, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    check_error(post(client, encoded(size=(1001, 1000))), 413, "too_many_pixels")
    check_error(post(client, _huge_png()), 413, "too_many_pixels")


def _huge_png() -> bytes:
    """Returns 60-odd bytes that promise 10 thousand megapixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_form_without_an_image_file(client: Client, encoded: Encoded) -> None:
    files = {"picture": ("a.png", encoded())}
    check_error(client.post("/predict", files=files), 400, "no_image")
    text = {"image": (None, "http://example.org/a.png")}
    check_error(client.post("/predict", files=text), 400, "no_image")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b"no boundary here"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
        ),
        (
            "multipart/form-data; boundary=b; charset=punycode",
            b'--b\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\n\xff\r\n--b--\r\n',
        ),
        ("multipart/form-data; boundary=" + "b" * 400, b"x"),
    ],
)
def test_broken_forms(client: Client, kind: str, body: bytes) -> None:
    response = post(client, body, kind)
    assert response.status_code == 400
    assert response.json()["error"] in {"bad_form", "no_image"}


def test_several_files(client: Client, encoded: Encoded) -> None:
    files = [("image", ("a.png", encoded())), ("image", ("b.png", encoded()))]
    check_error(client.post("/predict", files=files), 400, "bad_form")


def files(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("a", data)) for data in images]


def test_a_bad_image_spoils_no_other(client: Client, encoded: Encoded) -> None:
    images = [encoded("red"), b"no image", encoded("blue"), b"", encoded(size=(1001, 1000))]
    response = client.post("/predict_batch?top_k=1", files=files(*images))
    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"results", "model", "precision", "runtime"}
    good, bad = body["results"][::2][:2], [body["results"][i] for i in (1, 3, 4)]
    assert [each["predictions"][0]["label"] for each in good] == ["red", "blue"]
    assert [set(each) for each in bad] == [{"error", "detail"}] * 3
    assert [each["error"] for each in bad] == ["not_an_image", "empty", "too_many_pixels"]


def test_a_batch_of_forty_is_too_many(client: Client, encoded: Encoded) -> None:
    check_error(client.post("/predict_batch", files=files(*[encoded()] * 33)), 400, "bad_form")
    assert client.post("/predict_batch", files=files(*[encoded()] * 32)).status_code == 200


def test_all_of_a_batch_is_bounded_together(client: Client) -> None:
    large = client.post("/predict_batch", files=files(*[bytes(190_000)] * 6))
    check_error(large, 413, "too_large")
    one = client.post("/predict_batch", files=files(bytes(200_001)))
    assert one.json()["results"][0]["error"] == "too_large"


def test_methods(client: Client) -> None:
    response = client.get("/predict")
    check_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_model(client: Client, artifact_path: Path) -> None:
    response = client.get("/model")
    facts = response.json()
    assert facts["labels"] == ["red", "green", "blue"]
    assert facts["preprocess"] == {
        "resize": 32,
        "crop": 32,
        "interpolation": "bilinear",
        "crop_mode": "center",
        "fill": [0, 0, 0],
        "channels": 3,
    }
    assert (facts["model"], facts["data"], facts["precision"]) == ("channels", "colours", "fp32")
    assert facts["limits"] == {"max_bytes": 200_000, "max_pixels": 1_000_000, "max_images": 32}
    assert facts["accepts"]["types"] == list(TYPES)
    assert {".jpg", ".png", ".tif"} <= set(facts["accepts"]["suffixes"])
    assert str(artifact_path) not in response.text
    assert "secret" not in response.text


def test_a_failure_of_ours_is_500_without_a_trace(
    artifact_path: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(artifact=artifact_path, threads=1)
    with Predictor(settings, Artifact.load(artifact_path)) as predictor:
        client = Client(create_app(predictor))
        monkeypatch.setattr(predictor, "_runtime", lambda pixels: 1 / 0)
        failed = post(client, encoded())
        check_error(failed, 500, "internal")
        assert failed.headers["connection"] == "close"
        monkeypatch.undo()
        assert post(client, encoded()).status_code == 200


def test_no_request_is_lost_after_a_failure_of_ours(
    artifact_path: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(Artifact.load(artifact_path)) as site, httpx.Client(base_url=site.url) as client:
        assert client.post("/predict", content=encoded()).status_code == 200
        with monkeypatch.context() as broken:
            broken.setattr(Predictor, "_answer", lambda *_: 1 / 0)
            statuses = [client.post("/predict", content=encoded()).status_code for _ in range(5)]
        assert statuses == [500] * 5
        assert client.post("/predict", content=encoded()).status_code == 200


@pytest.fixture
def strict(artifact_path: Path) -> Iterator[Client]:
    """A service that holds one image, waits two seconds, and wants a token."""
    settings = Settings(
        artifact=artifact_path,
        threads=1,
        queue_size=1,
        max_images=1,
        deadline_ms=2000,
        token="s3cret",
    )
    with Predictor(settings, Artifact.load(artifact_path)) as predictor:
        yield Client(create_app(predictor))


TOKEN = {"authorization": "Bearer s3cret", "content-type": "image/png"}


@pytest.mark.parametrize("header", [None, "s3cret", "Bearer S3CRET", "Basic s3cret", "Bearer é"])
def test_without_the_token_nobody_is_served(
    strict: Client, encoded: Encoded, header: str | None
) -> None:
    headers = {"content-type": "image/png"}
    if header:
        headers["authorization"] = header  # type: ignore[assignment]
    for method, path in (("POST", "/predict"), ("POST", "/predict_batch"), ("GET", "/model")):
        sent = {k: v.encode("latin-1") for k, v in headers.items()}
        response = strict.request(method, path, headers=sent)
        check_error(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
    assert strict.post("/predict", content=encoded(), headers=TOKEN).status_code == 200
    assert strict.get("/openapi.json").status_code == 200


def test_a_slow_upload_loses_its_place(strict: Client, encoded: Encoded) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield encoded()
        await asyncio.sleep(20)

    check_error(strict.post("/predict", content=slowly(), headers=TOKEN), 408, "slow_upload")
    assert strict.post("/predict", content=encoded(), headers=TOKEN).status_code == 200


def test_what_does_not_fit_is_told_so_at_once(strict: Client, encoded: Encoded) -> None:
    app = strict.transport.app

    async def crowd() -> list[httpx.Response]:
        others = asyncio.Event()  # are refused

        async def slowly() -> AsyncIterator[bytes]:
            await others.wait()
            yield encoded()

        async def ask() -> httpx.Response:
            answer = await client.post("/predict", content=slowly(), headers=TOKEN)
            refused.append(answer)
            if len(refused) == 3:
                others.set()
            return answer

        refused: list[httpx.Response] = []
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(*(ask() for _ in range(5)))

    answers = asyncio.run(crowd())
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429]
    check_error(answers[-1], 429, "busy")
    assert answers[-1].headers["retry-after"] == "1"
    assert strict.post("/predict", content=encoded(), headers=TOKEN).status_code == 200


def test_past_the_deadline(
    artifact_path: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(artifact=artifact_path, threads=1, deadline_ms=100)
    with Predictor(settings, Artifact.load(artifact_path)) as predictor:
        client = Client(create_app(predictor))
        runtime = predictor._runtime
        assert runtime is not None

        late = threading.Event()

        def stuck(pixels: Pixels) -> Logits:
            assert late.wait(60)
            return runtime(pixels)

        monkeypatch.setattr(predictor, "_runtime", stuck)
        check_error(post(client, encoded()), 504, "too_late")
        monkeypatch.undo()
        late.set()
        statuses = {504}
        while statuses == {504}:  # the thread works on, at last within the deadline
            statuses = {post(client, encoded()).status_code}
        assert statuses == {200}


def test_who_hangs_up_is_not_worked_for(
    artifact_path: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    settings = Settings(artifact=artifact_path, threads=1, batch_size=1)
    with Predictor(settings, Artifact.load(artifact_path)) as predictor:
        app = create_app(predictor)
        runtime = predictor._runtime
        assert runtime is not None

        left = threading.Event()
        hung_up: list[int] = []

        def slow(pixels: Pixels) -> Logits:
            seen.append(len(pixels))
            assert left.wait(60)
            return runtime(pixels)

        monkeypatch.setattr(predictor, "_runtime", slow)

        async def ask(hang_up: bool) -> int:
            messages = [{"type": "http.request", "body": encoded(), "more_body": False}]
            sent: list[Any] = []

            async def receive() -> Any:
                if messages:
                    return messages.pop()
                await asyncio.sleep(0 if hang_up else 60)
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "method": "POST",
                "path": "/predict",
                "query_string": b"",
                "headers": [(b"content-type", b"image/png")],
            }
            await app(scope, receive, send)
            if hang_up:
                hung_up.append(sent[0]["status"])
            if len(hung_up) == 3:
                left.set()
            return int(sent[0]["status"])

        async def crowd() -> list[int]:
            return await asyncio.gather(ask(False), *(ask(True) for _ in range(3)), ask(False))

        assert asyncio.run(crowd()) == [200, 400, 400, 400, 200]
        monkeypatch.undo()
        assert seen == [1, 1]  # the three that hung up were still waiting


def test_it_is_ready_within_its_lifespan(artifact_path: Path) -> None:
    settings = Settings(artifact=artifact_path, threads=1)
    predictor = Predictor(settings, Artifact.load(artifact_path))
    app = create_app(predictor)

    async def live() -> bool:
        async with app.router.lifespan_context(app):
            return predictor.ready

    assert not predictor.ready
    assert asyncio.run(live())
    assert not predictor.ready


def test_the_pixels_are_those_of_the_shared_preprocessing(
    artifact_path: Path, encoded: Encoded
) -> None:
    artifact = Artifact.load(artifact_path)
    seen = []

    class Watched(Preprocess):
        def __call__(self, image: Image.Image, **options: Any) -> Any:
            seen.append(image)
            return super().__call__(image, **options)

    watched = dataclasses.replace(artifact, preprocess=Watched(resize=32, crop=32))
    data = encoded("red", "JPEG", (300, 400))
    with Predictor(Settings(artifact=artifact_path, threads=1), watched) as predictor:
        assert post(Client(create_app(predictor)), data).status_code == 200
    assert seen[-1].size == (75, 100)
    assert seen[-1].tobytes() == decode(data, least=64).tobytes()

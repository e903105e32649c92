"""The Open Inference Protocol over gRPC: what it answers, refuses, and shares with HTTP."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from artifact.artifact import Artifact
from core.errors import UserError
from core.preprocess import Pixels
from serving import launch
from serving.app import create_app
from serving.errors import Refusal
from serving.grpc_messages import SERVICE, message_classes, parse
from serving.models import Models
from serving.repository import first_listing
from serving.settings import Settings
from serving.token_command import MakeToken

Encoded = Callable[..., bytes]
MODEL = "channels-colours"
SIDE = 32
SECONDS = 20  # a call that hangs fails by then


class Client:
    """Calls methods of the service, whose HTTP is asked in this process.

    Attributes:
        http: a client of the same service.
        models: what it serves.
        told: metadata that came after the last answer.
    """

    def __init__(self, channel: Any, http: httpx.AsyncClient, models: Models) -> None:
        self._channel = channel
        self.http = http
        self.models = models
        self.told: dict[str, str] = {}

    async def send(self, method: str, body: bytes, **options: Any) -> bytes:
        """Returns the bytes of the response to those of a message."""
        call = self._channel.unary_unary(f"/{SERVICE}/{method}")(
            body, **{"timeout": SECONDS, **options}
        )
        try:
            answer: bytes = await call
        finally:
            self.told = dict(await call.trailing_metadata())
        return answer

    async def ask(self, method: str, metadata: dict[str, str] | None = None, **fields: Any) -> Any:
        """Returns the response to a message with ``fields``."""
        classes = message_classes()
        body = classes[f"{method}Request"](**fields).SerializeToString()
        answer = await self.send(method, body, metadata=tuple((metadata or {}).items()))
        return classes[f"{method}Response"].FromString(answer)

    async def refused(self, method: str, **options: Any) -> tuple[str, str]:
        """Returns name and detail of the code of a call that is refused."""
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.ask(method, **options)
        return error.value.code().name, str(error.value.details())


@pytest.fixture
def talk(artifact_path: Path, port: int) -> Callable[..., None]:
    """Returns what runs a function of a :class:`Client`, of a service with other settings.

    The call that it may return is awaited once the service has ended.
    """

    def run(say: Callable[[Client], Awaitable[Any]], **changes: Any) -> None:
        wanted = {"artifact": artifact_path, "threads": 1, "grpc_port": port, "max_bytes": 100_000}
        settings = Settings(**{**wanted, **changes})

        async def main() -> None:
            models = Models(settings, first_listing(settings))
            app = create_app(models)
            transport = httpx.ASGITransport(app)
            async with (
                httpx.AsyncClient(transport=transport, base_url="http://test") as http,
                grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            ):
                async with app.router.lifespan_context(app):
                    pending = await say(Client(channel, http, models))
                if pending is not None:
                    await pending

        asyncio.run(main())

    return run


@pytest.fixture(scope="module")
def golden(artifact_path: Path) -> tuple[Pixels, Any]:
    return Artifact.load(artifact_path).golden()


def pixels_input(pixels: Pixels, **more: Any) -> dict[str, Any]:
    return {"name": "pixels", "datatype": "UINT8", "shape": pixels.shape, **more}


def image_input(count: int, **more: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [count], **more}


def floats(raw: bytes) -> Any:
    return np.frombuffer(raw, "<f4").reshape(-1, 3)


def test_messages_have_the_numbers_of_the_protocol() -> None:
    request = message_classes()["ModelInferRequest"](
        model_name="m",
        id="i",
        inputs=[
            {"name": "n", "datatype": "UINT8", "shape": [1], "contents": {"uint_contents": [5]}}
        ],
        outputs=[{"name": "o", "parameters": {"classification": {"int64_param": 2}}}],
        raw_input_contents=[b"r"],
    )
    assert request.SerializeToString() == bytes.fromhex(
        "0a016d1a01692a120a016e12055549"
        "4e54381a01012a0322010532190a016f12140a0e636c617373696669636174696f6e12021002"
        "3a0172"
    )


def test_server_and_models_describe_themselves(talk: Callable[..., None]) -> None:
    async def say(client: Client) -> None:
        assert (await client.ask("ServerLive")).live
        assert (await client.ask("ServerReady")).ready
        assert (await client.ask("ModelReady", name=MODEL, version="onnx-fp32")).ready
        server = await client.ask("ServerMetadata")
        assert {
            "name": server.name,
            "version": server.version,
            "extensions": list(server.extensions),
        } == (await client.http.get("/v2")).json()
        told = await client.ask("ModelMetadata", name=MODEL)
        known = (await client.http.get(f"/v2/models/{MODEL}")).json()
        assert [told.name, told.platform, *told.versions] == [
            *(known["name"], known["platform"]),
            *known["versions"],
        ]
        for ours, theirs in ((told.inputs, known["inputs"]), (told.outputs, known["outputs"])):
            shown = [
                {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
                for each in ours
            ]
            assert shown == theirs
        code, detail = await client.refused("ModelReady", name="channel-colours")
        assert (code, MODEL in detail) == ("NOT_FOUND", True)
        assert (await client.refused("ModelReady", name=MODEL, version="9"))[0] == "NOT_FOUND"
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            await client.send("ModelConfig", b"")

    talk(say)


def test_pixels_are_answered_in_the_form_in_which_they_came(
    talk: Callable[..., None], golden: tuple[Pixels, Any]
) -> None:
    pixels, logits = golden

    async def say(client: Client) -> None:
        names = {"model_name": MODEL, "id": "7"}
        raw = await client.ask(
            "ModelInfer",
            **names,
            inputs=[pixels_input(pixels)],
            raw_input_contents=[pixels.tobytes()],
        )
        assert (raw.model_name, raw.model_version, raw.id) == (MODEL, "onnx-fp32", "7")
        assert [(each.name, each.datatype, list(each.shape)) for each in raw.outputs] == [
            ("logits", "FP32", [3, 3]),
            ("scores", "FP32", [3, 3]),
        ]
        assert np.allclose(floats(raw.raw_output_contents[0]), logits, atol=1e-4)
        contents = {"uint_contents": pixels.ravel().tolist()}
        typed = await client.ask(
            "ModelInfer", **names, inputs=[pixels_input(pixels, contents=contents)]
        )
        assert not typed.raw_output_contents
        for output, answered in zip(typed.outputs, raw.raw_output_contents, strict=True):
            found = np.float32(output.contents.fp32_contents).reshape(3, 3)
            assert (found == floats(answered)).all()

    talk(say)


def test_files_and_classes(talk: Callable[..., None], encoded: Encoded) -> None:
    files = [encoded("red"), encoded("blue", "JPEG", (90, 70))]
    packed = b"".join(struct.pack("<I", len(file)) + file for file in files)
    classes = {"name": "scores", "parameters": {"classification": {"int64_param": 1}}}

    async def say(client: Client) -> None:
        raw = await client.ask(
            "ModelInfer",
            model_name=MODEL,
            inputs=[image_input(2)],
            outputs=[{"name": "scores"}, classes],
            raw_input_contents=[packed],
        )
        scores, texts = raw.raw_output_contents
        assert floats(scores).argmax(axis=1).tolist() == [0, 2]
        assert (texts[4:].count(b":0:red"), texts[4:].count(b":2:blue")) == (1, 1)
        typed = await client.ask(
            "ModelInfer",
            model_name=MODEL,
            inputs=[image_input(2, contents={"bytes_contents": files})],
            outputs=[classes],
        )
        (output,) = typed.outputs
        assert (output.datatype, list(output.shape)) == ("BYTES", [2, 1])
        found = [text.decode().split(":")[1:] for text in output.contents.bytes_contents]
        assert found == [["0", "red"], ["2", "blue"]]

    talk(say)


@pytest.mark.parametrize(
    ("tensor", "more", "detail"),
    [
        ({"shape": [1, 2]}, {}, "shape of pixels"),
        ({"shape": [-1]}, {}, "greater than or equal to 0"),
        ({"shape": [2**40]}, {}, "less than"),
        ({"datatype": "FP32"}, {}, "pixels of UINT8"),
        ({"name": "x" * 10_000}, {}, "pixels of UINT8"),
        ({}, {"raw_input_contents": [b"12"]}, "have 3072 bytes, not 2"),
        ({}, {"raw_input_contents": [b"1", b"2"]}, "1 inputs have 2 raw contents"),
        ({"contents": {"fp32_contents": [1]}}, {}, "has fp32_contents"),
        ({"contents": {"uint_contents": [256] * 3072}}, {}, "outside of 0..255"),
        ({"contents": {"uint_contents": [1]}}, {"raw_input_contents": [b"1"]}, "send one of both"),
        ({}, {"outputs": [{"name": "labels"}]}, "there are logits and scores"),
        ({}, {"inputs": []}, "at least 1 item"),
        ({}, {"parameters": {"classification": {"int64_param": 2}}}, "of an output"),
    ],
)
def test_requests_that_are_refused(
    talk: Callable[..., None], tensor: dict[str, Any], more: dict[str, Any], detail: str
) -> None:
    async def say(client: Client) -> None:
        good = pixels_input(np.zeros((1, SIDE, SIDE, 3), np.uint8))
        fields = {"model_name": MODEL, "inputs": [{**good, **tensor}], **more}
        code, told = await client.refused("ModelInfer", **fields)
        assert (code, detail in told) == ("INVALID_ARGUMENT", True), told
        assert len(told) < 300

    talk(say)


def test_images_and_messages_that_are_none_or_too_large(
    talk: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def say(client: Client) -> None:
        for file, detail in ((b"x", "not a JPEG"), (bytes(100_001), "exceeds")):
            image = image_input(1, contents={"bytes_contents": [file]})
            code, told = await client.refused("ModelInfer", model_name=MODEL, inputs=[image])
            assert (code, detail in told) == ("INVALID_ARGUMENT", True), told
        for body in (b"\xff", b"\x0b", b"\x0a\x05abc", b"\x0a\x01\xff", b"\x2a\x02\x0a\x09"):
            with pytest.raises(grpc.aio.AioRpcError, match="cannot be read as a ModelInferRequest"):
                await client.send("ModelInfer", body)
        for body in (bytes(2_000_000), b"\x2a\x00" * 100_000):
            for compression in (None, grpc.Compression.Gzip):
                with pytest.raises(grpc.aio.AioRpcError, match=r"larger than max|2000 fields"):
                    await client.send("ModelInfer", body, compression=compression)

    talk(say)
    assert caplog.text == ""


def test_a_message_of_many_fields_is_refused_before_it_is_read() -> None:
    kind = message_classes()["ModelInferRequest"]
    entry = b"\x22\x06\x0a\x00\x12\x02\x10\x01"  # a parameter
    for body in (b"\x2a\x00" * 3000, entry * 1000, b"\x3a\x00" * 3000, b"\x10\x01" * 3000):
        with pytest.raises(Refusal, match="2000 fields"):
            parse(kind, body)
    numbers = b"\x2a" + _sized(b"\x2a" + _sized(b"\x1a" + _sized(bytes(5_000_000))))
    with pytest.raises(Refusal, match="too many numbers"):
        parse(kind, numbers)


def _sized(data: bytes) -> bytes:
    size, count = b"", len(data)
    while count > 127:
        size, count = size + bytes([count & 127 | 128]), count >> 7
    return size + bytes([count]) + data


def test_spoiled_messages_are_read_or_refused() -> None:
    kind = message_classes()["ModelInferRequest"]
    whole = kind(
        model_name=MODEL,
        parameters={"a": {"bool_param": True}},
        inputs=[image_input(1, contents={"bytes_contents": [b"abc"]})],
        outputs=[{"name": "scores", "parameters": {"classification": {"int64_param": 2}}}],
    ).SerializeToString()
    dice, outcomes = random.Random(0), Counter[str]()
    for _ in range(3000):
        body = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        try:
            parse(kind, bytes(body[: dice.choice([len(body), dice.randrange(len(body))])]))
            outcomes["read"] += 1
        except Refusal as refusal:
            outcomes[refusal.code] += 1
    assert outcomes.keys() == {"read", "bad_message"}
    assert min(outcomes.values()) > 100


def test_tokens_and_their_limits_are_those_of_http(
    talk: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tokens"
    MakeToken(name="alice", file=file, per_minute=6)()
    alice = {"authorization": f"Bearer {capsys.readouterr().out.strip()}"}

    async def say(client: Client) -> None:
        assert (await client.ask("ServerLive")).live
        code, detail = await client.refused("ServerMetadata")
        assert (code, "Bearer <token>" in detail) == ("UNAUTHENTICATED", True)
        assert (await client.http.get("/v2", headers=alice)).status_code == 200  # the only one
        code, _ = await client.refused("ServerMetadata", metadata=alice)
        assert code == "RESOURCE_EXHAUSTED"
        assert client.told["retry-after"] == "10"

    talk(say, tokens=file)


def test_a_full_queue_refuses_both(talk: Callable[..., None], golden: tuple[Pixels, Any]) -> None:
    pixels, _ = golden
    fields = {"model_name": MODEL, "inputs": [pixels_input(pixels)]}

    async def say(client: Client) -> None:
        with client.models.default.slots.taken(33):
            code, detail = await client.refused(
                "ModelInfer", **fields, raw_input_contents=[pixels.tobytes()]
            )
        assert (code, "queue is full" in detail) == ("RESOURCE_EXHAUSTED", True)
        assert client.told["retry-after"] == "1"
        await client.ask("ModelInfer", **fields, raw_input_contents=[pixels.tobytes()])

    talk(say, queue_size=32)


def test_images_of_a_client_that_gives_up_are_dropped(
    talk: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say(client: Client) -> None:
        waiting = asyncio.get_running_loop().create_future()
        given_up = asyncio.Event()
        waiting.add_done_callback(lambda _: given_up.set())
        monkeypatch.setattr(client.models.default.predictor, "predict", lambda uploads: [waiting])
        body = message_classes()["ModelInferRequest"](
            model_name=MODEL, inputs=[image_input(1, contents={"bytes_contents": [b"x"]})]
        )
        with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
            await client.send("ModelInfer", body.SerializeToString(), timeout=0.1)
        await asyncio.wait_for(given_up.wait(), SECONDS)
        assert waiting.cancelled()

    talk(say)


def test_calls_that_began_are_answered_at_the_end(
    talk: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say(client: Client) -> Any:
        waiting = asyncio.get_running_loop().create_future()
        begun = asyncio.Event()

        def predict(uploads: Any) -> list[Any]:
            begun.set()
            return [waiting]

        async def call() -> None:
            image = image_input(1, contents={"bytes_contents": [b"x"]})
            answer = await client.ask("ModelInfer", model_name=MODEL, inputs=[image])
            assert answer.outputs[0].contents.fp32_contents[:] == [3, 2, 1]

        monkeypatch.setattr(client.models.default.predictor, "predict", predict)
        pending = asyncio.ensure_future(call())
        await begun.wait()
        asyncio.get_running_loop().call_later(0.3, waiting.set_result, np.float32([3, 2, 1]))
        return pending

    talk(say)


def test_lines_and_figures_of_calls(
    talk: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    async def say(client: Client) -> None:
        await client.ask("ModelReady", name=MODEL, metadata={"x-request-id": "abc"})
        assert client.told["x-request-id"] == "abc"
        await client.refused("ModelInfer", model_name=MODEL)
        assert len(client.told["x-request-id"]) == 32
        figures = (await client.http.get("/metrics")).text
        assert f'path="/{SERVICE}/ModelInfer",status="400",version="onnx-fp32"' in figures

    talk(say, access_log="json")
    ready, infer = [
        line
        for line in map(json.loads, capsys.readouterr().err.splitlines())
        if "Model" in line["path"]
    ]
    assert (ready["request_id"], ready["status"], ready["client"]) == ("abc", 200, "127.0.0.1")
    assert (infer["path"], infer["status"]) == (f"/{SERVICE}/ModelInfer", 400)
    assert infer["model"] == f"{MODEL}:onnx-fp32"


def test_without_the_extra_the_start_says_so(
    artifact_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: None if name == "grpc" else object())
    with pytest.raises(UserError, match=r"POCKETNETS_GRPC_PORT is set.*pip install '\.\[grpc\]'"):
        launch.launch(Settings(artifact=artifact_path, grpc_port=5001), "")

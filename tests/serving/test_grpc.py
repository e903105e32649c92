"""The Open Inference Protocol over gRPC: what it answers, refuses, and shares with HTTP."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_client import SECONDS, Client
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_trace_id

from artifact.artifact import Artifact
from core.preprocess import Pixels
from serving import app as service
from serving.grpc_messages import SERVICE, message_classes
from serving.token_command import MakeToken
from serving.tracing import traced

Encoded = Callable[..., bytes]
MODEL = "channels-colours"
SIDE = 32


@pytest.fixture(scope="module")
def golden(artifact_path: Path) -> tuple[Pixels, Any]:
    return Artifact.load(artifact_path).golden()


def pixels_input(pixels: Pixels, **more: Any) -> dict[str, Any]:
    return {"name": "pixels", "datatype": "UINT8", "shape": pixels.shape, **more}


def image_input(count: int, **more: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [count], **more}


def floats(raw: bytes) -> Any:
    return np.frombuffer(raw, "<f4").reshape(-1, 3)


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


def test_the_prefix_of_http_is_not_that_of_methods(talk: Callable[..., None]) -> None:
    async def say(client: Client) -> None:
        assert (await client.ask("ServerReady")).ready

    talk(say, root_path=f"/{SERVICE}")


def test_health_is_what_probes_expect(talk: Callable[..., None]) -> None:
    health = "grpc.health.v1.Health"

    async def say(client: Client) -> None:
        for name in (b"", SERVICE.encode()):
            asked = bytes([10, len(name)]) + name if name else b""
            assert await client.send("Check", asked, health) == b"\x08\x01"  # SERVING
        with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
            await client.send("Check", b"\x0a\x01x", health)

    talk(say, token="s3cret", max_bytes=2**31 - 1)


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
        ({"contents": {"uint_contents": [1] * 2_000_001}}, {}, "too many numbers"),
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

    talk(say, max_bytes=2_000_000)


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
        for count, size in ((101, 1), (90, 200)):
            keys = tuple((f"key{number}", "v" * size) for number in range(count))
            with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
                await client.send("ModelInfer", b"", metadata=keys)

    talk(say)
    assert caplog.text == ""


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


def test_calls_without_a_token_take_no_places_of_others(talk: Callable[..., None]) -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async def say(client: Client) -> None:
        check = client.channel.stream_unary("/grpc.health.v1.Health/Check")
        calls = [check(never(), timeout=SECONDS) for _ in range(18)]
        await asyncio.gather(*(call.wait_for_connection() for call in calls))
        assert await client.send("Check", b"", "grpc.health.v1.Health") == b"\x08\x01"
        known = {"authorization": "Bearer s3cret"}
        assert (await client.ask("ModelReady", name=MODEL, metadata=known)).ready
        for call in calls:
            call.cancel()

    talk(say, queue_size=16, max_images=16, token="s3cret")


def test_images_of_a_client_that_gives_up_are_dropped(
    talk: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say(client: Client) -> None:
        waiting = asyncio.get_running_loop().create_future()
        begun, given_up = asyncio.Event(), asyncio.Event()
        waiting.add_done_callback(lambda _: given_up.set())

        def predict(uploads: Any) -> list[Any]:
            begun.set()
            return [waiting]

        monkeypatch.setattr(client.models.default.predictor, "predict", predict)
        body = message_classes()["ModelInferRequest"](
            model_name=MODEL, inputs=[image_input(1, contents={"bytes_contents": [b"x"]})]
        )
        asked = client.channel.unary_unary(f"/{SERVICE}/ModelInfer")(body.SerializeToString())
        await asyncio.wait_for(begun.wait(), SECONDS)
        asked.cancel()
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


def test_clients_that_call_by_turns_lose_no_call_at_the_end(talk: Callable[..., None]) -> None:
    async def say(client: Client) -> Any:
        async def call() -> str:
            while True:
                try:
                    await client.ask("ModelReady", name=MODEL)
                except grpc.aio.AioRpcError as error:
                    return error.code().name

        async def end() -> None:
            assert set(await asyncio.gather(*calling)) == {"UNAVAILABLE"}  # nobody listens

        calling = [asyncio.ensure_future(call()) for _ in range(32)]
        await client.ask("ServerReady")
        return end()

    talk(say)


def test_lines_and_figures_of_calls(
    talk: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    async def say(client: Client) -> None:
        metadata = {"x-request-id": "abc", "x-forwarded-for": "203.0.113.7"}
        await client.ask("ModelReady", name=MODEL, metadata=metadata)
        assert client.told["x-request-id"] == "abc"
        await client.refused("ModelInfer", model_name=MODEL)
        assert len(client.told["x-request-id"]) == 32
        figures = (await client.http.get("/metrics")).text
        assert f'path="/{SERVICE}/ModelInfer",status="400",version="onnx-fp32"' in figures

    talk(say, access_log="json", trusted_proxies=("127.0.0.1",))
    ready, infer = [
        line
        for line in map(json.loads, capsys.readouterr().err.splitlines())
        if "Model" in line["path"]
    ]
    assert (ready["request_id"], ready["status"], ready["client"]) == ("abc", 200, "203.0.113.7")
    assert (infer["path"], infer["status"]) == (f"/{SERVICE}/ModelInfer", 400)
    assert infer["client"] == "127.0.0.1"
    assert infer["model"] == f"{MODEL}:onnx-fp32"


def test_a_call_is_part_of_the_clients_trace(
    talk: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = InMemorySpanExporter()
    layers = traced(kept)
    monkeypatch.setattr(service, "traced", lambda: layers)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"

    async def say(client: Client) -> None:
        await client.ask("ServerLive")  # nobody waits for it
        parent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        await client.ask("ModelReady", name=MODEL, metadata=parent)

    talk(say, tracing=True)
    layers[0].kwargs["tracer_provider"].shutdown()  # sends what waits
    (span,) = kept.get_finished_spans()
    assert format_trace_id(span.context.trace_id) == trace
    assert span.attributes["http.target"] == f"/{SERVICE}/ModelReady"

"""LiteRT artifacts on the road that all artifacts take."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from exported import export_trained

from artifact.artifact import Artifact, write_artifact
from artifact.formats import artifact_names
from artifact.golden import check_golden
from artifact.runtimes.base import RuntimeUnavailable, load_runtime
from core.errors import UserError
from export.build import build_artifacts, targets_of
from export.litert.operators import HANDLERS
from export.network import load_network
from export.verify import verify

litert = pytest.importorskip("ai_edge_litert.interpreter")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

NAMES = ("litert-fp32", "litert-fp16", "litert-int8")


@pytest.fixture(scope="module")
def phone(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Returns the LiteRT artifacts of the small trained network, by name."""
    return export_trained(trained, tmp_path_factory.mktemp("phone"), NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_is_proven_like_the_others(phone: dict[str, Artifact], name: str) -> None:
    artifact = Artifact.load(phone[name].path)
    assert (artifact.format, artifact.precision) == tuple(name.split("-"))
    assert artifact.parity is not None
    assert (artifact.parity.runtime, artifact.parity.batches) == ("litert", (1, 2, 8, 32))
    assert artifact.parity.top1_agreement >= (0.95 if name == "litert-int8" else 1.0)
    assert artifact.metrics is not None
    assert artifact.metrics.runtime == "litert"
    assert {"agreement", "drop", "golden"} < {gate.name for gate in artifact.gates}
    assert {"model.tflite", "model.onnx"} < set(artifact.sha256s)
    assert {"ai-edge-litert", "flatbuffers"} < artifact.versions.keys()
    assert (artifact.quantization is not None) == (name == "litert-int8")
    assert artifact.fingerprint is None


def test_float16_is_held_to_its_own_limits_and_takes_half(phone: dict[str, Artifact]) -> None:
    whole, half = phone["litert-fp32"], phone["litert-fp16"]
    assert half.limits.golden_error > whole.limits.golden_error
    assert half.size < 0.6 * whole.size


def test_verify_runs_it_through_its_gates(
    phone: dict[str, Artifact], in_trained: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(phone["litert-fp16"].path, tmp_path / "litert-fp16"))
    assert verify(Artifact.load(folder)).against == "torch, trained on digits"


def test_threads_share_it_and_any_batch_may_follow_another(phone: dict[str, Artifact]) -> None:
    artifact = phone["litert-fp32"]
    pixels, golden = artifact.golden()
    batches = [1, 3, 8, 2, 1, 5] * 4
    with load_runtime("litert", artifact, threads=1) as runtime, ThreadPoolExecutor(4) as pool:
        check_golden(runtime, artifact)
        answers = list(pool.map(lambda count: runtime(pixels[:count]), batches))
        with pytest.raises(UserError, match="a batch of 33: litert-fp32 takes 1 to 32"):
            runtime(np.zeros((33, *pixels.shape[1:]), np.uint8))
    for count, logits in zip(batches, answers, strict=True):
        np.testing.assert_allclose(logits, golden[:count], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_all_of_it_runs_in_xnnpack(phone: dict[str, Artifact], name: str) -> None:
    interpreter = litert.Interpreter(str(phone[name].model_file))
    interpreter.allocate_tensors()
    parts = [each for each in interpreter._get_ops_details() if "DELEGATE" in each["op_name"]]
    assert [len(each["outputs"]) for each in parts] == [1]  # the logits


def spoiled(model: bytes) -> dict[str, bytes]:
    other = schema.ModelT.InitFromPackedBuf(model, 0)
    group = schema.ExternalBufferGroupT()
    group.name = "weights.bin"
    other.externalBufferGroups = [group]
    wrong = schema.ModelT.InitFromPackedBuf(model, 0)
    (graph,) = wrong.subgraphs
    graph.inputs, graph.outputs = graph.outputs, graph.inputs
    return {
        "it is no .tflite file": b"\0" * 64,
        "it refers to other files": packed(other),
        "pixels must be uint8": packed(wrong),
        "not a valid Flatbuffer": model[: len(model) // 2],
    }


def packed(model: object) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")  # type: ignore[attr-defined]
    return bytes(builder.Output())


@pytest.mark.parametrize(
    "reason",
    [
        "it is no .tflite file",
        "it refers to other files",
        "pixels must be uint8",
        "not a valid Flatbuffer",
    ],
)
def test_a_file_that_is_not_what_the_manifest_says_is_not_run(
    phone: dict[str, Artifact], tmp_path: Path, reason: str
) -> None:
    folder = Path(shutil.copytree(phone["litert-fp32"].path, tmp_path / "litert-fp32"))
    artifact = Artifact.load(folder)
    artifact.model_file.write_bytes(spoiled(artifact.model_file.read_bytes())[reason])
    artifact = write_artifact(artifact, *artifact.golden())  # as its maker could
    with pytest.raises(RuntimeUnavailable, match=rf"litert: cannot run .*{reason}"):
        load_runtime("litert", artifact)


def test_groups_of_formats() -> None:
    phone = targets_of(["onnx-int8", "phone", "litert-fp32"])
    assert phone[:4] == ("onnx-int8", *NAMES)
    assert phone[4:]
    assert not {"onnx-fp32", "tensorrt-fp16"} & set(phone)
    assert set(targets_of(["cpu"])) == {
        *("onnx-fp32", "onnx-int8", "openvino-bf16", "openvino-int8"),
        *("litert-fp32", "litert-int8"),
    }
    assert targets_of(["all"]) == tuple(artifact_names())
    assert targets_of([]) == ()
    with pytest.raises(UserError, match="unknown format 'phones': did you mean phone"):
        targets_of(["phones"])


def test_without_the_package_it_says_what_to_install(
    in_trained: Path, monkeypatch: pytest.MonkeyPatch, phone: dict[str, Artifact]
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    (outcome,) = build_artifacts(load_network("mobilenet_v3", "digits"), ["litert-fp32"])
    assert not outcome.failed
    assert outcome.reason is not None
    assert outcome.reason.startswith("litert: cannot be imported")
    assert outcome.reason.endswith("; pip install '.[litert]'")
    with pytest.raises(RuntimeUnavailable, match=r"pip install '\.\[litert\]'"):
        load_runtime("litert", phone["litert-fp32"])


def test_what_it_has_no_form_of_is_a_row_with_the_reason(
    in_trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(HANDLERS, "HardSwish")
    outcomes = list(
        build_artifacts(load_network("mobilenet_v3", "digits"), ["litert-fp32", "litert-fp16"])
    )
    assert [outcome.failed for outcome in outcomes] == [True, True]
    assert str(outcomes[0].reason) == "litert: TFLite has no form here of HardSwish"
    assert not Path("artifacts/mobilenet_v3_large-digits/litert-fp32").exists()


def test_the_command_exports_and_lists_it(
    in_trained: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = command(
        "export", "run", "--model", "mobilenet_v3", "--data", "digits", "--formats", "litert-fp32"
    )
    assert done.returncode == 0, done.stderr
    assert "passed on litert" in done.stdout
    listed = command("export", "list", "--json").stdout.splitlines()
    assert "litert" in [json.loads(line).get("format") for line in listed]
    assert command("export", "show", "artifacts/mobilenet_v3_large-digits/litert-fp32").stdout
    shutil.rmtree("artifacts/mobilenet_v3_large-digits/litert-fp32")

"""Core ML artifacts: made here, run by a stand-in for Core ML, which is on a Mac alone.

make setup does not install coremltools, which takes seconds to import: these tests run where it is.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import fake_coreml
import numpy as np
import onnx
import onnxruntime
import pytest
from exported import export_trained
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array, to_array

from artifact.artifact import Artifact, write_artifact
from artifact.formats import CORE_ML_PACKAGE, group_names
from artifact.gates import GateError
from artifact.golden import relative_error
from artifact.records import Logits
from artifact.runtimes import coreml_mac
from artifact.runtimes.base import RuntimeUnavailable, list_runtimes, load_runtime
from core.preprocess import Preprocess, image_of
from export.build import build_artifacts
from export.coreml.build import build
from export.network import load_network
from export.one_image import Unconvertible
from export.verify import verify

coremltools = pytest.importorskip("coremltools")

NAMES = ("coreml-fp16", "coreml-int8")
MODEL = f"{CORE_ML_PACKAGE}/Data/com.apple.CoreML/model.mlmodel"


@pytest.fixture(scope="module")
def made(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Returns the Core ML artifacts of the small trained network, by name."""
    return export_trained(trained, tmp_path_factory.mktemp("coreml"), NAMES)


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this machine a Mac, with a stand-in for what runs packages there."""
    monkeypatch.setattr(coreml_mac, "_MAC", True)
    monkeypatch.setattr(coremltools.models, "MLModel", fake_coreml.MLModel)


@pytest.mark.parametrize("name", NAMES)
def test_is_made_anywhere_and_says_that_it_was_not_run(
    made: dict[str, Artifact], name: str
) -> None:
    artifact = Artifact.load(made[name].path)
    assert artifact.parity is None
    assert artifact.unverified is not None
    assert artifact.unverified == "coreml: needs a Mac; verify it there"
    assert artifact.versions["coremltools"] == coremltools.__version__
    files = {each.relative_to(artifact.path) for each in artifact.path.rglob("*") if each.is_file()}
    assert {str(file) for file in files} == {*artifact.sha256s, "manifest.json"}
    assert name in group_names()["phone"]
    assert list_runtimes("coreml") == ["coreml"]
    with pytest.raises(RuntimeUnavailable, match="needs a Mac"):
        load_runtime("coreml", artifact)


def test_xcode_shows_it_as_a_classifier_of_images(made: dict[str, Artifact]) -> None:
    artifact = made["coreml-fp16"]
    spec = coremltools.utils.load_spec(str(artifact.path / CORE_ML_PACKAGE))
    described = spec.description
    (source,) = described.input
    assert source.name == "pixels"
    image = source.type.imageType
    assert (image.height, image.width) == artifact.preprocess.size
    assert image.colorSpace == image.ColorSpace.Value("RGB")
    outputs = {each.name: each.type.WhichOneof("Type") for each in described.output}
    assert outputs == {
        "classLabel": "stringType",
        "classLabel_probs": "dictionaryType",
        "logits": "multiArrayType",
    }
    assert described.predictedFeatureName == "classLabel"
    kept = described.metadata.userDefined
    assert {name: kept[name] for name in ("resize", "crop", "interpolation", "crop_mode")} == {
        name: str(getattr(artifact.preprocess, name))
        for name in ("resize", "crop", "interpolation", "crop_mode")
    }


def test_verify_on_a_mac_stamps_it(
    made: dict[str, Artifact], here: Path, tmp_path: Path, mac: None
) -> None:
    folder = Path(shutil.copytree(made["coreml-fp16"].path, tmp_path / "coreml-fp16"))
    verified = verify(Artifact.load(folder))
    assert verified.against.startswith("its golden batch")
    artifact = Artifact.load(folder)
    assert artifact.unverified is None
    assert artifact.parity is not None
    assert (artifact.parity.runtime, artifact.parity.top1_agreement) == ("coreml", 1.0)
    assert artifact.parity.golden_error <= artifact.limits.golden_error


# The network is hardly trained: one level of an int8 input moves its logits by percents.
@pytest.mark.parametrize(("name", "limit"), [("coreml-fp16", 0.02), ("coreml-int8", 0.2)])
def test_the_saved_program_answers_as_its_graph(
    made: dict[str, Artifact], mac: None, name: str, limit: float
) -> None:
    artifact = made[name]
    pixels, golden = artifact.golden()
    with load_runtime("coreml", artifact) as runtime:
        logits = runtime(pixels)
    assert (logits.dtype, logits.shape) == (np.float32, golden.shape)
    assert relative_error(logits, golden) < limit
    np.testing.assert_array_equal(logits.argmax(1), golden.argmax(1))


def test_class_and_probabilities_are_those_of_the_logits(made: dict[str, Artifact]) -> None:
    artifact = made["coreml-fp16"]
    model = fake_coreml.MLModel(str(artifact.path / CORE_ML_PACKAGE))
    (answer,) = model.predict([{"pixels": image_of(artifact.golden()[0][0])}])
    assert answer["classLabel"] == artifact.labels[answer["logits"].argmax()]
    shares = np.exp(answer["logits"][0]) / np.exp(answer["logits"]).sum()
    assert answer["classLabel_probs"] == pytest.approx(
        dict(zip(artifact.labels, shares.tolist(), strict=True)), rel=1e-4
    )


def test_what_misses_its_gates_on_a_mac_is_left_as_it_was(
    made: dict[str, Artifact], here: Path, mac: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = made["coreml-fp16"]
    monkeypatch.setitem(fake_coreml.OPERATORS, "relu", lambda o: o.x)
    before = (artifact.path / "manifest.json").read_bytes()
    with pytest.raises(GateError):
        verify(artifact)
    assert (artifact.path / "manifest.json").read_bytes() == before


def test_int8_has_the_integers_of_the_graph(made: dict[str, Artifact]) -> None:
    artifact = made["coreml-int8"]
    graph = onnx.load(artifact.graph_file).graph
    constants = {each.name: to_array(each) for each in graph.initializer}
    sources = {
        node.output[0]: [constants[name] for name in node.input[:2]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    wanted = [
        (node.op_type, *sources[node.input[1]])
        for node in graph.node
        if node.input[1:2] and node.input[1] in sources
    ]
    (main,) = fake_coreml.program_of(artifact.path / CORE_ML_PACKAGE).functions.values()
    found = [op for op in main.operations if op.op_type == "constexpr_affine_dequantize"]
    assert len(found) == len(wanted) > 0
    for operation, (_, levels, scale) in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(operation.quantized_data.val, levels)
        np.testing.assert_array_equal(operation.scale.val, scale.astype(np.float16))


def spoil(folder: Path, what: str) -> None:
    """Lets a package refer to a file that its manifest does not list."""
    if what == "an item":
        file = folder / CORE_ML_PACKAGE / "Manifest.json"
        fields = json.loads(file.read_bytes())
        next(iter(fields["itemInfoEntries"].values()))["path"] = "../../../other.mlmodel"
        file.write_text(json.dumps(fields))
    else:
        file = folder / MODEL
        file.write_bytes(file.read_bytes().replace(b"weights/weight.bin", b"weights/others.bin"))


@pytest.mark.parametrize("what", ["an item", "weights"])
def test_a_package_that_refers_to_other_files_is_not_run(
    made: dict[str, Artifact], tmp_path: Path, mac: None, what: str
) -> None:
    folder = Path(shutil.copytree(made["coreml-fp16"].path, tmp_path / "coreml-fp16"))
    spoil(folder, what)
    artifact = write_artifact(
        dataclasses.replace(made["coreml-fp16"], path=folder), *made["coreml-fp16"].golden()
    )
    with pytest.raises(RuntimeUnavailable, match=r"cannot run .*refers to .*other"):
        load_runtime("coreml", artifact)


def test_without_the_package_it_says_what_to_install(
    in_trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    (outcome,) = build_artifacts(load_network("mobilenet_v3", "digits"), ["coreml-fp16"])
    assert not outcome.failed
    assert outcome.reason is not None
    assert outcome.reason.endswith("; pip install '.[coreml]'")


RGB = (9, 9, 3)  # height, width and channels of the small graphs


def graph_of(
    *nodes: Any, shape: tuple[int, int, int] = RGB, classes: int = 4, **constants: Any
) -> bytes:
    """Returns a graph for uint8 (N, *shape) to (N, classes) that begins as ours do."""
    front = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["images"], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        [*front, *nodes],
        "net",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def draft_of(artifact: Artifact, folder: Path, shape: tuple[int, int, int] = RGB) -> Artifact:
    """Returns a draft of such a graph's artifact."""
    preprocess = Preprocess(resize=shape[:2], crop=shape[:2], channels=shape[2])
    return dataclasses.replace(artifact, path=folder, labels=tuple("abcd"), preprocess=preprocess)


def run_both(graph: bytes, draft: Artifact) -> tuple[Logits, Logits]:
    """Returns what the package of a graph gives, and what ONNX Runtime does, of three images."""
    build(draft, graph, ())
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (3, *draft.preprocess.shape), np.uint8)
    (wanted,) = onnxruntime.InferenceSession(graph).run(None, {"pixels": pixels})
    model = fake_coreml.MLModel(str(draft.path / CORE_ML_PACKAGE))
    answers = model.predict([{"pixels": image_of(each)} for each in pixels])
    return np.concatenate([each["logits"] for each in answers]), wanted


def test_operators_that_the_small_network_has_not(
    made: dict[str, Artifact], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    node = helper.make_node
    graph = graph_of(
        node("Div", ["images", "most"], ["a"]),
        node(
            "MaxPool", ["a"], ["b"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1
        ),
        node("Split", ["b", "parts"], ["c", "d"], axis=1),
        node("BatchNormalization", ["d", "scale", "bias", "mean", "variance"], ["e"]),
        node("Concat", ["e", "c"], ["f"], axis=1),
        node("AveragePool", ["f"], ["g"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node(
            "AveragePool", ["g"], ["h"], kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1
        ),
        node("Gelu", ["h"], ["i"]),
        node("Sub", ["i", "half"], ["j"]),
        node("Clip", ["j", "low", "high"], ["k"]),
        node("Tanh", ["k"], ["l"]),
        node("Sigmoid", ["l"], ["m"]),
        node("Reshape", ["m", "groups"], ["n"]),
        node("Transpose", ["n"], ["o"], perm=[0, 2, 1, 3]),
        node("Flatten", ["o"], ["p"]),
        node("MatMul", ["p", "matrix"], ["q"]),
        node("Clip", ["q", "", "high"], ["r"]),
        node("Unsqueeze", ["r", "last"], ["s"]),
        node("Clip", ["s", "zero", "six"], ["t"]),
        node("Squeeze", ["t", "last"], ["logits"]),
        most=np.float32(255),
        parts=np.array([2, 1]),
        scale=np.float32([2]),
        bias=np.float32([-1]),
        mean=np.float32([0.3]),
        variance=np.float32([0.5]),
        half=np.float32(0.5),
        low=np.float32(-0.4),
        high=np.float32(0.3),
        groups=np.array([-1, 3, 3, 3]),
        matrix=random.normal(size=(27, 4)).astype(np.float32),
        last=np.array([2]),
        zero=np.float32(0),
        six=np.float32(6),
    )
    logits, wanted = run_both(graph, draft_of(made["coreml-fp16"], tmp_path))
    assert np.ptp(wanted) > 0
    assert relative_error(logits, wanted) < 1e-5


def test_grey_images_that_are_not_square(made: dict[str, Artifact], tmp_path: Path) -> None:
    shape = (9, 7, 1)
    graph = graph_of(
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
        shape=shape,
        matrix=np.random.default_rng(1).normal(size=(63, 4)).astype(np.float32),
    )
    logits, wanted = run_both(graph, draft_of(made["coreml-fp16"], tmp_path, shape))
    assert relative_error(logits, wanted) < 1e-5
    (source,) = coremltools.utils.load_spec(str(tmp_path / CORE_ML_PACKAGE)).description.input
    image = source.type.imageType
    assert (image.height, image.width) == shape[:2]
    assert image.colorSpace == image.ColorSpace.Value("GRAYSCALE")


def test_grey_with_alpha_is_refused(made: dict[str, Artifact], tmp_path: Path) -> None:
    graph = graph_of(helper.make_node("Flatten", ["images"], ["logits"]), shape=(2, 1, 2))
    with pytest.raises(Unconvertible, match="have 1 or 3 channels, and these have 2"):
        build(draft_of(made["coreml-fp16"], tmp_path, (2, 1, 2)), graph, ())


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (
            graph_of(
                helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
                helper.make_node("Flatten", ["pooled"], ["flat"]),
                helper.make_node("Softsign", ["flat"], ["logits"]),
                classes=3,
            ),
            "Core ML has no form here of Softsign",
        ),
        (graph_of(helper.make_node("Identity", ["pixels"], ["logits"])), "pixels is read by Cast"),
    ],
)
def test_what_it_has_no_form_of_is_refused_with_the_reason(
    made: dict[str, Artifact], tmp_path: Path, graph: bytes, reason: str
) -> None:
    with pytest.raises(Unconvertible, match=rf"^coreml: .*{reason}"):
        build(draft_of(made["coreml-fp16"], tmp_path), graph, ())
    assert not (tmp_path / CORE_ML_PACKAGE).exists()


def test_a_number_that_float16_has_not_is_refused(
    made: dict[str, Artifact], tmp_path: Path
) -> None:
    graph = graph_of(
        helper.make_node("Mul", ["images", "much"], ["more"]),
        helper.make_node("ReduceMean", ["more", "axes"], ["logits"], keepdims=0),
        classes=3,
        much=np.float32(1e6),
        axes=np.array([2, 3]),
    )
    with pytest.raises(Unconvertible, match="1e\\+06, overflows float16"):
        build(draft_of(made["coreml-int8"], tmp_path), graph, ())

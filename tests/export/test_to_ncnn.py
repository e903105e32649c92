"""ncnn artifacts on the road that all artifacts take."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import export_trained
from onnx import TensorProto, helper

import pocketnets
from artifact.artifact import Artifact, write_artifact
from artifact.formats import group_names
from artifact.golden import check_golden
from artifact.runtimes.base import RuntimeUnavailable, load_runtime
from core.errors import UserError
from export import to_ncnn
from export.build import build_artifacts
from export.network import load_network
from export.verify import verify
from serving.predictor import Predictor
from serving.settings import Settings

pytest.importorskip("ncnn")
pnnx = pytest.importorskip("pnnx")

NAMES = ("ncnn-fp32", "ncnn-fp16")


@pytest.fixture(scope="module")
def made(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Returns the ncnn artifacts of the small trained network, by name."""
    return export_trained(trained, tmp_path_factory.mktemp("ncnn"), NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_is_proven_like_the_others(made: dict[str, Artifact], name: str) -> None:
    artifact = Artifact.load(made[name].path)
    assert (artifact.format, artifact.precision) == tuple(name.split("-"))
    assert artifact.parity is not None
    assert (artifact.parity.runtime, artifact.parity.batches) == ("ncnn", (1, 2, 8, 32))
    assert artifact.parity.top1_agreement == 1.0
    assert artifact.metrics is not None
    assert artifact.metrics.runtime == "ncnn"
    assert {"agreement", "drop", "golden"} < {gate.name for gate in artifact.gates}
    assert {"model.param", "model.bin", "model.onnx"} < set(artifact.sha256s)
    assert {"ncnn", "pnnx"} < artifact.versions.keys()
    assert {file.name for file in artifact.path.iterdir()} == {
        *artifact.sha256s,
        "manifest.json",
        "README.md",
    }


def test_both_are_for_phones_and_float16_takes_half(made: dict[str, Artifact]) -> None:
    assert set(NAMES) < set(group_names()["phone"])
    assert made["ncnn-fp16"].size < 0.6 * made["ncnn-fp32"].size


def test_verify_runs_it_through_its_gates(
    made: dict[str, Artifact], in_trained: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made["ncnn-fp32"].path, tmp_path / "ncnn-fp32"))
    assert verify(Artifact.load(folder)).against == "torch, trained on digits"


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_it_and_images_do_not_meet(made: dict[str, Artifact], threads: int) -> None:
    artifact = made["ncnn-fp32"]
    pixels, golden = artifact.golden()
    counts = [1, 3, 8, 2, 1, 5] * 3
    with load_runtime("ncnn", artifact, threads=threads) as runtime, ThreadPoolExecutor(4) as pool:
        check_golden(runtime, artifact)
        answers = list(pool.map(lambda count: runtime(pixels[:count]), counts))
        flipped = runtime(pixels[:, :, ::-1])  # not contiguous
        np.testing.assert_array_equal(flipped, runtime(pixels[:, :, ::-1].copy()))
        with pytest.raises(UserError, match="a batch of 33: ncnn-fp32 takes 1 to 32"):
            runtime(np.zeros((33, *pixels.shape[1:]), np.uint8))
    for count, logits in zip(counts, answers, strict=True):
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, golden[:count], rtol=1e-4, atol=1e-4)


def spoiled(artifact: Artifact, what: str) -> Artifact:
    """Returns the artifact with a damaged file, and the digest of that file: as a maker could."""
    param, weights = (artifact.path / name for name in artifact.spec.files)
    text = param.read_text()
    if what == "no .param file":
        param.write_bytes(b"\0" * 64)
    elif what == "half a .param file":
        param.write_text(text[: len(text) // 2])
    elif what == "a layer of somebody's own":
        param.write_text(text.replace("\nConvolution ", "\nTheirs ", 1))
    elif what == "other ends":
        param.write_text(text.replace("pixels", "photo"))
    elif what == "other logits":
        param.write_text(text.replace(f"0={len(artifact.labels)} ", "0=4 "))
    else:
        weights.write_bytes(weights.read_bytes()[:-100])
    return write_artifact(artifact, *artifact.golden())


@pytest.mark.parametrize(
    ("what", "file"),
    [
        ("no .param file", "model.param"),
        ("half a .param file", "model.param"),
        ("a layer of somebody's own", "model.param"),
        ("other ends", "model.param"),
        ("other logits", "model.param"),
        ("half a .bin file", "model.bin"),
    ],
)
def test_files_that_are_not_what_the_manifest_says_are_not_run(
    made: dict[str, Artifact], tmp_path: Path, what: str, file: str
) -> None:
    folder = Path(shutil.copytree(made["ncnn-fp32"].path, tmp_path / "ncnn-fp32"))
    artifact = spoiled(Artifact.load(folder), what)
    with pytest.raises(RuntimeUnavailable, match=rf"^ncnn: cannot r.* {folder / file}"):
        load_runtime("ncnn", artifact)


@pytest.mark.parametrize("package", ["ncnn", "pnnx"])
def test_without_a_package_it_says_what_to_install(
    in_trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: dict[str, Artifact],
    package: str,
) -> None:
    if package == "ncnn":
        monkeypatch.setitem(sys.modules, "ncnn", None)
        with pytest.raises(RuntimeUnavailable, match=r"pip install '\.\[ncnn\]'"):
            load_runtime("ncnn", made["ncnn-fp32"])
    else:
        monkeypatch.setattr(to_ncnn, "find_spec", lambda name: None)
        load_runtime("ncnn", made["ncnn-fp32"]).close()
    (outcome,) = build_artifacts(load_network("mobilenet_v3", "digits"), ["ncnn-fp32"])
    assert not outcome.failed
    assert outcome.reason is not None
    assert outcome.reason.endswith("; pip install '.[ncnn]'")


def graph_of(*nodes: Any) -> bytes:
    """Returns a graph for uint8 (N, 8, 8, 3) to (N, 4) that begins as all of ours do."""
    front = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["images"], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        [*front, *nodes],
        "net",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def test_pnnx_writes_in_the_staged_folder_alone_and_starts_nothing(
    made: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[list[str], Path]] = []
    run = subprocess.run

    def watched(line: list[str], **options: Any) -> Any:
        lines.append((line, Path(options["cwd"])))
        return run(line, **options)

    monkeypatch.setattr(to_ncnn.subprocess, "run", watched)
    home, staged = tmp_path / "home", tmp_path / "staged"
    for folder in (home, staged):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(home))
    monkeypatch.chdir(home)
    package = Path(pnnx.__file__).parent
    before = sorted((file, file.stat().st_mtime) for file in package.rglob("*"))
    draft = dataclasses.replace(made["ncnn-fp32"], path=staged)
    to_ncnn.build(draft, made["ncnn-fp32"].graph_file.read_bytes(), ())
    assert {file.name for file in staged.iterdir()} == {"model.param", "model.bin"}
    assert list(home.iterdir()) == []
    assert sorted((file, file.stat().st_mtime) for file in package.rglob("*")) == before
    ((line, where),) = lines
    assert (line[0], line[1:]) == (pnnx.EXEC_PATH, ["graph.onnx", "fp16=0"])
    assert where.parent == staged


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (
            graph_of(
                helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
                helper.make_node("Flatten", ["pooled"], ["flat"]),
                helper.make_node("Det", ["flat"], ["logits"]),
            ),
            "Det",
        ),
        (graph_of(helper.make_node("Identity", ["pixels"], ["logits"])), "pixels is read by Cast"),
    ],
)
def test_what_it_has_no_form_of_is_refused_with_the_reason(
    made: dict[str, Artifact], tmp_path: Path, graph: bytes, reason: str
) -> None:
    draft = dataclasses.replace(made["ncnn-fp32"], path=tmp_path)
    with pytest.raises(to_ncnn.Unconvertible, match=rf"^ncnn: .*{reason}"):
        to_ncnn.build(draft, graph, ())


def test_it_is_loaded_and_served_like_the_others(made: dict[str, Artifact]) -> None:
    artifact = made["ncnn-fp16"]
    pixels, golden = artifact.golden()
    with pocketnets.load(artifact.path, threads=1) as classify:
        assert classify.runtime == "ncnn"
        assert classify(pixels[0]).label == artifact.labels[golden[0].argmax()]
    with Predictor(Settings(artifact=artifact.path, runtime="ncnn"), artifact):
        pass  # it answers its golden batch, or does not start

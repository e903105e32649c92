from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.artifact import Artifact, digest_of
from artifact.records import Logits
from artifact.validation import ArtifactError
from core.files import sha256, staged

Copy = Callable[..., Path]
Change = Callable[[dict[str, Any]], object]


def edit(folder: Path, change: Change, *, resign: bool = True) -> None:
    """Changes the manifest in ``folder``, whose digest then is right unless not ``resign``."""
    manifest = folder / "manifest.json"
    fields = json.loads(manifest.read_text())
    change(fields)
    if resign:
        del fields["digest"]
        fields["digest"] = digest_of(fields)
    manifest.write_text(json.dumps(fields))


def test_says_all_of_itself(artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts["onnx-fp32"]
    assert artifact.name == "onnx-fp32"
    assert artifact.model == "mobilenet_v3_large"
    assert artifact.labels == tuple("0123456789")
    assert artifact.input.shape == ("batch", 32, 32, 3)
    assert artifact.output.shape == ("batch", 10)
    assert artifact.batch_range == (1, 32)
    assert artifact.macs > 1_000_000
    assert artifact.source.checkpoint == "runs/mobilenet_v3_large-digits/checkpoint.ckpt"
    assert artifact.source.sha256 is not None
    assert artifact.versions["torch"]
    pixels, logits = artifact.golden()
    assert (pixels.dtype, logits.dtype) == (np.uint8, np.float32)
    assert len(pixels) == len(logits) == 8


def test_holds_no_path_of_the_machine_that_made_it(artifacts: dict[str, Artifact]) -> None:
    for artifact in artifacts.values():
        for file in artifact.path.iterdir():
            content = file.read_bytes()
            assert str(Path.cwd()).encode() not in content
            assert b"site-packages" not in content


@pytest.mark.parametrize("file", ["model.onnx", "golden_pixels.npy", "golden_logits.npy"])
def test_a_missing_or_changed_file_is_refused(copied: Copy, file: str) -> None:
    path = copied() / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=rf"{file}: .*manifest"):
        Artifact.load(path.parent)
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{file}: missing"):
        Artifact.load(path.parent)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(model="another"),
        lambda m: m["labels"].reverse(),
        lambda m: m["metrics"].update(images=1),
        lambda m: m.pop("versions"),
        lambda m: m.update(digest="0" * 64),
        lambda m: m.pop("digest"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(copied: Copy, change: Change) -> None:
    folder = copied()
    edit(folder, change, resign=False)
    with pytest.raises(ArtifactError, match=r"manifest\.json: .*changed"):
        Artifact.load(folder)


def test_a_manifest_in_other_words_is_the_same(
    copied: Copy, artifacts: dict[str, Artifact]
) -> None:
    folder = copied()
    manifest = folder / "manifest.json"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(dict(reversed(fields.items())), indent=7))
    assert Artifact.load(folder).labels == artifacts["onnx-fp32"].labels


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(schema=1), r"schema is 1, .*\b2\b"),
        (lambda m: m.pop("schema"), "schema is None"),
        (lambda m: m["labels"].pop(), r"\b9 labels .*float32"),
        (lambda m: m["preprocess"].update(crop=16), r"crop .*\b16 .*uint8"),
        (lambda m: m["preprocess"].update(crop=0), r"crop is 0 .*\b32"),
        (lambda m: m["preprocess"].update(crop_mode="fit"), "crop_mode"),
        (lambda m: m["preprocess"].update(fill=[0, 0, 256]), r"fill is \[0, 0, 256\]"),
        (lambda m: m.pop("macs"), "macs: "),
        (lambda m: m.update(macs="many"), "macs: "),
        (lambda m: m.update(macs="7"), "macs: "),
        (lambda m: m.update(macs=True), "macs: "),
        (lambda m: m.update(macs=-1), "macs: "),
        (lambda m: m.update(macs=10**400), "macs: "),
        (lambda m: m.update(labels=[]), "labels: "),
        (lambda m: m["labels"].append("x" * 1025), r"labels\.10: "),
        (lambda m: m["metrics"].update(top1=1.5), r"metrics\.top1: "),
        (lambda m: m["metrics"].update(images=0), r"metrics\.images: "),
        (lambda m: m["limits"].update(golden_error=7), r"limits\.golden_error: "),
        (lambda m: m["source"].update(sha256="../x"), r"source\.sha256: "),
        (lambda m: m["preprocess"].update(resize=10**9), r"crop is 32 .*\b1000000000\b"),
        (lambda m: m.update({"a\n\x1b[2J": 1}), re.escape(r"a\n\x1b[2J: ")),
        (lambda m: m.update(colour="red"), "colour: "),
        (lambda m: m.update(precision="fp8"), "precision: "),
        (lambda m: m.update(format="caffe"), r"format is 'caffe', .*onnx"),
        (lambda m: m.update(batch_range=[4, 2]), "batch_range is"),
        (lambda m: m.update(batch_range=[1, 5000]), "batch_range is"),
        (lambda m: m.update(parity=None), "parity .*torch"),
        (lambda m: m.update(sha256s={}), r"manifest .*model\.onnx"),
        (lambda m: m["sha256s"].update({"../x": "0" * 64}), r"manifest .*\.\./x"),
        (lambda m: m["sha256s"].update({"model.onnx": "0"}), r"sha256s\.model\.onnx: "),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    copied: Copy, change: Change, reason: str
) -> None:
    folder = copied()
    edit(folder, change)
    with pytest.raises(ArtifactError, match=reason) as caught:
        Artifact.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m["quantization"].update(calibration="Guess"), r"quantization\.calibration: "),
        (lambda m: m["quantization"].update(top1={}), "calibration is .*top1"),
        (lambda m: m.update(precision="fp32"), r"\bfp32\b.*\bint8\b"),
    ],
)
def test_a_quantization_that_contradicts_itself_is_refused(
    copied: Copy, change: Change, reason: str
) -> None:
    folder = copied("onnx-int8")
    edit(folder, change)
    with pytest.raises(ArtifactError, match=reason):
        Artifact.load(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m["parity"].update(finite=False), "finite"),
        (lambda m: m["parity"].update(top1_agreement=0.5), r"agreement: 50\.0%"),
        (lambda m: m["parity"].update(golden_error=0.5), r"golden batch: 0\.5\b"),
        (lambda m: m["metrics"].update(top1=0.0, torch_top1=1.0), r"top-1 lost: 100\.00 "),
    ],
)
def test_a_gate_that_does_not_hold_is_refused(copied: Copy, change: Change, reason: str) -> None:
    folder = copied()
    edit(folder, change)
    with pytest.raises(ArtifactError, match=reason):
        Artifact.load(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(fingerprint=None), "fingerprint"),
        (lambda m: m["fingerprint"].update(onnx_sha256="0" * 64), "graph"),
        (lambda m: m["fingerprint"].update(profiles=[[1, 5, 3]]), r"profile .*\[1, 5, 3\]"),
        (lambda m: m["fingerprint"].update(profiles=[[1, 2, 5000]]), r"profile .*\b5000\b"),
        (lambda m: m["sha256s"].pop("model.onnx"), r"manifest .*model\.engine"),
    ],
)
def test_an_engine_that_is_not_that_of_its_graph_is_refused(
    copied: Copy, change: Change, reason: str
) -> None:
    folder = copied("tensorrt_rtx-fp16")
    edit(folder, change)
    with pytest.raises(ArtifactError, match=reason):
        Artifact.load(folder)


def test_a_graph_has_no_fingerprint(copied: Copy, artifacts: dict[str, Artifact]) -> None:
    engine = json.loads((artifacts["tensorrt_rtx-fp16"].path / "manifest.json").read_text())
    folder = copied()
    edit(folder, lambda m: m.update(fingerprint=engine["fingerprint"]))
    with pytest.raises(ArtifactError, match="fingerprint"):
        Artifact.load(folder)


def test_what_is_no_artifact_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ArtifactError, match=rf"^{folder}: .*manifest\.json"):
            Artifact.load(folder)


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        (
            np.zeros((8, 3), np.float32),
            r"float32 \[8, 3\], .*float32 \['n', 10",
        ),
        (np.zeros((7, 10), np.float32), r"\b8 .*\b7\b"),
        (np.full((8, 10), np.inf, np.float32), "finite"),
    ],
)
def test_a_golden_batch_of_another_network_is_refused(
    copied: Copy, logits: Logits, reason: str
) -> None:
    folder = copied()
    np.save(folder / "golden_logits.npy", logits)
    digest = sha256(folder / "golden_logits.npy")
    edit(folder, lambda m: m["sha256s"].update({"golden_logits.npy": digest}))
    with pytest.raises(ArtifactError, match=reason):
        Artifact.load(folder)


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"

    def fill(text: str, *, fail: bool = False) -> None:
        with staged(target) as folder:
            (folder / "file").write_text(text)
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill("never", fail=True)
    assert not target.exists()
    fill("first")
    with pytest.raises(KeyboardInterrupt):
        fill("never", fail=True)
    assert (target / "file").read_text() == "first"
    fill("second")
    assert (target / "file").read_text() == "second"
    assert list(target.parent.iterdir()) == [target]


def test_a_precision_that_its_format_has_not_is_refused(copied: Copy) -> None:
    folder = copied("tensorrt_rtx-fp16")
    edit(folder, lambda m: m.update(precision="fp32"))
    with pytest.raises(ArtifactError, match=r"precision is fp32, .*tensorrt_rtx .*fp16"):
        Artifact.load(folder)


def test_a_folder_of_artifacts_names_those_in_it(copied: Copy) -> None:
    folder = copied().parent
    with pytest.raises(ArtifactError, match=r": onnx-fp32\b"):
        Artifact.load(folder)

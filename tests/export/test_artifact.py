from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.artifact import Artifact
from export.integrity import ArtifactError
from models.files import sha256, staged

Copy = Callable[..., Path]


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Changes the manifest in ``folder``."""
    manifest = folder / "manifest.json"
    fields = json.loads(manifest.read_text())
    change(fields)
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
    with pytest.raises(ArtifactError, match=rf"{file}: its bytes are not those of the manifest"):
        Artifact.load(path.parent)
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{file}: missing"):
        Artifact.load(path.parent)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(schema=2), "schema is 2, this version reads 1"),
        (lambda m: m.pop("schema"), "schema is None"),
        (lambda m: m["labels"].pop(), "9 labels and a crop of 32 want float32"),
        (lambda m: m["preprocess"].update(crop=16), "a crop of 16 want uint8"),
        (lambda m: m["preprocess"].update(crop=64), "crop is 64 and resize is 32"),
        (lambda m: m.pop("macs"), "macs: "),
        (lambda m: m.update(macs="many"), "macs: "),
        (lambda m: m.update(colour="red"), "colour: "),
        (lambda m: m.update(precision="fp8"), "precision: "),
        (lambda m: m.update(batch_range=[4, 2]), "batch_range is"),
        (lambda m: m.update(parity=None), "either its parity with torch or the reason"),
        (lambda m: m.update(sha256s={}), "the manifest lists"),
        (lambda m: m["sha256s"].update({"../x": "0"}), "the manifest lists"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    copied: Copy, change: Callable[[dict[str, object]], object], reason: str
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
        (lambda m: m["quantization"].update(top1={}), "calibration is MinMax, but top1 holds"),
        (lambda m: m.update(precision="fp32"), "how an fp32 graph came to int8"),
    ],
)
def test_a_quantization_that_contradicts_itself_is_refused(
    copied: Copy, change: Callable[[dict[str, object]], object], reason: str
) -> None:
    folder = copied("onnx-int8")
    edit(folder, lambda m: m["quantization"].update(calibration="MinMax"))  # type: ignore[attr-defined]
    edit(folder, change)
    with pytest.raises(ArtifactError, match=reason):
        Artifact.load(folder)


def test_an_artifact_from_before_quantization_was_recorded_still_loads(copied: Copy) -> None:
    folder = copied("onnx-int8")
    edit(folder, lambda m: m.pop("quantization"))
    assert Artifact.load(folder).quantization is None


def test_what_is_no_artifact_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ArtifactError, match=r"not an artifact, it holds no manifest\.json"):
            Artifact.load(folder)
    for text in ("no", "[]", "{}", "\x00"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ArtifactError):
            Artifact.load(tmp_path)


def test_a_golden_batch_of_another_network_is_refused(copied: Copy) -> None:
    folder = copied()
    np.save(folder / "golden_logits.npy", np.zeros((8, 3), dtype=np.float32))
    digest = sha256(folder / "golden_logits.npy")
    edit(folder, lambda m: m["sha256s"].update({"golden_logits.npy": digest}))  # type: ignore[attr-defined]
    with pytest.raises(ArtifactError, match="the golden batch maps"):
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

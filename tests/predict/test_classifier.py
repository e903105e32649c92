from __future__ import annotations

import asyncio
import dataclasses
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bombs import bombs
from PIL import Image
from samples import samples

from artifact.artifact import Artifact
from artifact.formats import FORMATS
from artifact.runtimes import base, coreml_mac
from artifact.store import SavedPick, save_pick
from core.errors import UserError
from core.preprocess import ImageError, encode_png
from predict.classifier import Classifier, Limits, Prediction
from predict.pipeline import Item, classify
from serving.predictor import Predictor, Upload, decode_upload
from serving.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def colours(count: int) -> list[Image.Image]:
    dice = np.random.default_rng(1)
    return [
        Image.fromarray(dice.integers(0, 256, (40, 50, 3), dtype=np.uint8) // np.uint8(1 + at % 3))
        for at in range(count)
    ]


def item(name: str, data: bytes) -> Item:
    return Item(path=name, load=lambda: data)


@pytest.fixture
def classifier(artifact_path: Path) -> Classifier:
    return Classifier.open(artifact_path, threads=2)


def test_an_image_comes_in_many_forms(classifier: Classifier, tmp_path: Path) -> None:
    image = colours(1)[0]
    file = tmp_path / "a.png"
    file.write_bytes(encode_png(image))
    forms = [file, str(file), file.read_bytes(), image, np.asarray(image)]
    answers = [classifier(form, top_k=2) for form in forms]
    assert answers == [answers[0]] * len(forms)
    assert classifier(forms, top_k=2) == answers
    assert classifier(iter(forms), top_k=2) == answers
    assert classifier([]) == []
    first = answers[0]
    assert isinstance(first, Prediction)
    assert (first.label, first.score) == first.top[0]
    assert first.index == first.indices[0] == classifier.labels.index(first.label)
    assert len(first.top) == len(first.indices) == 2
    means = np.asarray(image.resize((32, 32))).mean(axis=(0, 1))
    assert classifier.labels[int(means.argmax())] == first.label


def test_top_holds_no_more_than_there_are(classifier: Classifier) -> None:
    found = classifier(colours(1)[0], top_k=100)
    assert sorted(found.indices) == [0, 1, 2]
    assert sum(score for _, score in found.top) == pytest.approx(1)


def test_a_turned_image_is_turned_back(classifier: Classifier) -> None:
    pixels = np.zeros((60, 40, 3), dtype=np.uint8)
    pixels[:10, :, 0], pixels[50:, :, 1] = 255, 255  # the centre crop of 40x40 sees neither
    pixels[10:50, :, 2] = 200
    upright = Image.fromarray(pixels)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    assert classifier(file.getvalue()) == classifier(upright)
    assert classifier(Image.open(file)) == classifier(upright)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "no bytes"),
        (b"GIF89a, or not", "not a"),
        ("nowhere.png", "No such file"),
        ("a\0b.png", "null"),
        (np.zeros((4, 4), dtype=np.uint8), r"\[4, 4\]"),
        (np.zeros((4, 4, 3), dtype=np.float32), "float32"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"\[0, 4, 3\]"),
        (5, "5 is no image, but int: give a path"),
        ([None], "None is no image, but NoneType"),
        (b"0" * 101, "limit of 100 bytes"),
        (encode_png(Image.new("RGB", (10, 10)))[:44], "cannot be read"),
        (encode_png(Image.new("L", (11, 10))), "110 pixels"),
    ],
)
def test_what_is_no_image_is_said(artifact_path: Path, image: object, words: str) -> None:
    limits = Limits(max_bytes=100, max_pixels=109)
    with (
        Classifier.open(artifact_path, batch_size=1, limits=limits) as classifier,
        pytest.raises(ImageError, match=words) as raised,
    ):
        classifier(image)  # type: ignore[call-overload]
    assert "\n" not in str(raised.value)


def test_limits_are_those_of_the_service() -> None:
    settings, limits = Settings(), Limits()
    for name in ("max_bytes", "max_pixels", "truncated"):
        assert getattr(limits, name) == getattr(settings, name)


def files() -> dict[str, bytes]:
    """Returns files that decode, of every type, and files that do not."""
    broken = {
        "pdf": b"%PDF-1.7",
        "text": b"no image",
        "empty": b"",
        "cut": samples()["jpeg"][:-2],
        "jxl": b"\xff\x0a\0\0",
        "heic": (24).to_bytes(4) + b"ftypmif1" + bytes(4) + b"mif1heic" + bytes(40),
    }
    costly = {f"bomb {name}": data for name, (_, data) in bombs().items()}
    return {**samples(), **broken, **costly}


def test_answers_and_refusals_are_those_of_the_service(artifact_path: Path) -> None:
    given = files()
    with Classifier.open(artifact_path, threads=2) as classifier:
        items = [item(name, data) for name, data in given.items()]
        rows = [outcome.row for outcome in classify(classifier, items, top_k=3)]
    assert [row.path for row in rows] == list(given)
    settings = Settings(threads=1, artifact=artifact_path)

    async def ask(predictor: Predictor) -> list[object]:
        uploads = [Upload(data, 3) for data in given.values()]
        futures = [each for upload in uploads for each in predictor.predict([upload])]
        return list(await asyncio.gather(*futures, return_exceptions=True))

    queue = Settings(threads=1, artifact=artifact_path, queue_size=len(given))
    with Predictor(queue, Artifact.load(artifact_path)) as predictor:
        answers = asyncio.run(ask(predictor))
        preprocess = predictor.artifact.preprocess
    kinds = set()
    for row, answer in zip(rows, answers, strict=True):
        refusal = decode_upload(Upload(given[row.path], 3), settings, preprocess).refusal
        kinds.add(None if refusal is None else refusal.code)
        if row.prediction is None:
            assert refusal is not None, row.path
            if refusal.code not in ("empty", "too_large"):
                assert row.error == refusal.detail
            continue
        assert row.error is None
        assert isinstance(answer, dict), row.path
        for number, expected in enumerate(answer["predictions"]):
            label, score = row.prediction.top[number]
            assert (label, row.prediction.indices[number]) == (expected["label"], expected["index"])
            assert score == pytest.approx(expected["score"], abs=1e-6)
    assert {None, "not_an_image", "unsupported_image", "too_many_pixels"} <= kinds


def test_a_benchmark_picks_artifact_and_runtime(make_artifact: Callable[..., Path]) -> None:
    path = make_artifact()
    pick = SavedPick(artifact=path.name, runtime="openvino", threads=4, p50_s=1e-3, machine="here")
    save_pick(path.parent, pick)
    for place in (path, path.parent):
        with Classifier.open(place) as classifier:
            assert (classifier.artifact.path, classifier.runtime) == (path, "openvino")
    with Classifier.open(path.parent, runtime="ort-cpu") as classifier:
        assert classifier.runtime == "ort-cpu"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runtime": "torch"}, "ort-cpu"),
        ({"runtime": "ort-cpo"}, "ort-cpu"),
        ({"threads": 0}, "at least 1"),
        ({"batch_size": -1}, "at least 0"),
    ],
)
def test_a_bad_option_is_refused(
    artifact_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        Classifier.open(artifact_path, **options)  # type: ignore[arg-type]


def test_an_unverified_artifact_is_opened_only_on_demand(
    make_artifact: Callable[..., Path],
) -> None:
    path = make_artifact(unverified="no GPU was there", parity=None)
    with pytest.raises(UserError, match="--allow-unverified"):
        Classifier.open(path)
    with Classifier.open(path, allow_unverified=True) as classifier:
        assert classifier.artifact.unverified


def test_what_no_server_runs_is_refused_in_one_line(
    artifact_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "is_servable", lambda name: False)
    with pytest.raises(UserError) as error:
        Classifier.open(artifact_path)
    assert str(error.value) == (
        "no server, predict or evaluate runs onnx artifacts; bench and verify do"
    )


@pytest.mark.parametrize("allowed", [False, True])
def test_what_needs_another_machine_is_not_to_be_verified_here(
    make_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    path = make_artifact(unverified="made on Linux", parity=None)
    spec = dataclasses.replace(FORMATS["onnx"], proving_runtime="coreml")
    monkeypatch.setitem(FORMATS, "onnx", spec)
    monkeypatch.setitem(
        base.RUNTIMES, "coreml", dataclasses.replace(base.RUNTIMES["coreml"], formats=("onnx",))
    )
    monkeypatch.setattr(coreml_mac, "_MAC", False)
    with pytest.raises(UserError) as error:
        Classifier.open(path, allow_unverified=allowed)
    assert str(error.value) == "coreml: needs a Mac; verify it there"


def test_classifying_loads_no_torch(artifact_path: Path) -> None:
    code = (
        "import sys; from predict.classifier import Classifier\n"
        f"with Classifier.open({str(artifact_path)!r}) as classify:\n"
        f"    classify({encode_png(colours(1)[0])!r})\n"
        "print(sorted({'torch', 'torchvision', 'timm', 'starlette'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"

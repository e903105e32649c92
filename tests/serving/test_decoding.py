from __future__ import annotations

import struct

import pytest
from bombs import bombs
from samples import samples

from core.preprocess import TYPES, Preprocess
from serving.predictor import Decoded, Upload, decode_upload
from serving.settings import Settings

SMALL = Preprocess(resize=40, crop=32)


def answer(data: bytes, **settings: str) -> Decoded:
    environment = {f"POCKETNETS_{name.upper()}": value for name, value in settings.items()}
    return decode_upload(Upload(data, top_k=1), Settings.from_environment(environment), SMALL)


def refusal(data: bytes, **settings: str) -> tuple[int, str, str]:
    refused = answer(data, **settings).refusal
    assert refused is not None
    return refused.status, refused.code, refused.detail


@pytest.mark.parametrize("name", samples())
def test_every_type_gives_pixels(name: str) -> None:
    pixels = answer(samples()[name]).pixels
    assert pixels is not None
    assert pixels.shape == (32, 32, 3)


def test_a_cut_jpeg_is_refused_unless_the_operator_takes_it() -> None:
    short = samples()["jpeg"][:-2]
    status, code, detail = refusal(short)
    assert (status, code) == (400, "not_an_image")
    assert "only its end marker is missing" in detail
    assert "--truncated accept" in detail
    assert "POCKETNETS_TRUNCATED=accept" in detail
    taken, whole = answer(short, truncated="accept").pixels, answer(samples()["jpeg"]).pixels
    assert taken is not None
    assert whole is not None
    assert (taken == whole).all()
    status, code, detail = refusal(samples()["jpeg"][:-400], truncated="accept")
    assert (status, code) == (400, "not_an_image")
    assert "of 40 rows are missing" in detail


@pytest.mark.parametrize(
    ("data", "status", "code", "words"),
    [
        (samples()["avif"][:200], 400, "not_an_image", ""),
        (samples()["heif"][:200], 400, "not_an_image", ""),
        (samples()["jpeg2000"][:200], 400, "not_an_image", ""),
        (bombs()["avif, huge"][1], 413, "too_many_pixels", "400000000 pixels"),
        (b"%PDF-1.4", 415, "unsupported_image", f"it is PDF: send one of {', '.join(TYPES)}"),
        (
            samples()["tiff float"].replace(
                struct.pack("<HHIHH", 258, 3, 1, 32, 0), struct.pack("<HHIHH", 258, 3, 1, 64, 0)
            ),
            415,
            "unsupported_image",
            "64 bits",
        ),
    ],
    ids=["cut AVIF", "cut HEIC", "cut JPEG 2000", "huge", "PDF", "doubles"],
)
def test_what_is_refused_says_why(data: bytes, status: int, code: str, words: str) -> None:
    assert refusal(data)[:2] == (status, code)
    assert words in refusal(data)[2]


def test_heic_without_its_extra_is_a_type_that_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.preprocess.FORMATS", ("JPEG", "AVIF"))
    status, code, detail = refusal(samples()["heif"])
    assert (status, code) == (415, "unsupported_image")
    assert "pillow-heif" in detail

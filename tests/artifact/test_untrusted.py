from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from artifact.artifact import files_of
from artifact.formats import FORMATS
from artifact.validation import ArtifactError, max_bytes, read_array, read_fields, regular_file
from core.files import contains


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b"no", "Expecting value"),
        (b"[]", "no object"),
        (b"\0", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b'{"a": "\xff"}', "0xff"),
        (b'\xef\xbb\xbf{"a": 1}', "Unexpected UTF-8 BOM"),
        ('{"a": 1}'.encode("utf-16"), "0xff"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": {"b": 1, "\\u0062": 1}}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [-Infinity]}', "-Infinity"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "digits"),
        (b'{"a": ' + b"[" * 8 + b"0" + b"]" * 8 + b"}", r"\b8 levels"),
        (b'{"a": ' + b"[" * 100_000, "recursion"),
        (b'{"a": ' * 100_000, "recursion"),
    ],
)
def test_what_is_not_plain_json_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(ArtifactError, match=reason) as caught:
        read_fields(tmp_path, "manifest.json")
    assert "\n" not in str(caught.value)


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode()


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a .npy file"),
        (b"\x93NUMPY", "not a .npy file"),
        (header("{"), "not a .npy file"),
        (header("(" * 9000), "not a .npy file"),
        (header("9" * 9000), "not a .npy file"),
        (header(FLOATS % "(1, 3)", b"\x02\x00"), "not a .npy file"),
        (header(FLOATS % "(10**9, 3)"), "not a .npy file"),
        (header(FLOATS % "(1000000000000, 3)"), r"\b0 bytes .*1000000000000"),
        (header(FLOATS % "(-1, 3)"), r"\b0 bytes .*-1"),
        (header(FLOATS % "(0, 3)"), r"\b0 bytes "),
        (header(FLOATS % "(1, 3)") + bytes(11), r"\b11 bytes "),
        (header(FLOATS % "(1, 3)") + bytes(13), r"\b13 bytes "),
        (header(FLOATS % "()"), r"float32 \[\], .*float32 \['n', 3\]"),
        (header(FLOATS % "(3,)") + bytes(12), r"float32 \[3\], .*float32 \['n', 3\]"),
        (header((FLOATS % "(1, 3)").replace("False", "True")) + bytes(12), "C order"),
        (header((FLOATS % "(1, 3)").replace("<f4", ">f4")) + bytes(12), ">f4"),
        (header((FLOATS % "(1, 3)").replace("<f4", "|O")) + b"cos\nsystem\n.", "object"),
        (header((FLOATS % "(1, 3)").replace("'<f4'", "[('a', '<f4')]")) + bytes(12), "float32"),
    ],
)
def test_what_is_not_the_array_is_refused_before_it_takes_memory(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    (tmp_path / "golden_logits.npy").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=reason) as caught:
        read_array(tmp_path, "golden_logits.npy", "float32", (3,))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_an_array_is_read_as_it_was_saved(tmp_path: Path) -> None:
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "golden_logits.npy", logits)
    read = read_array(tmp_path, "golden_logits.npy", "float32", (3,))
    np.testing.assert_array_equal(read, logits)
    assert read.flags.writeable  # torch warns of others


def link(target: str) -> Callable[[Path], None]:
    return lambda file: file.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: None, "missing"),
        (link("nothing"), "missing"),
        (lambda file: file.mkdir(), "not a file"),
        (os.mkfifo, "not a file"),
        (link("/dev/zero"), "out of the folder"),
        (link("../secret"), "out of the folder"),
        (link("inside"), "not a file"),
    ],
)
def test_only_a_file_of_the_folder_is_opened(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    folder = tmp_path / "artifact"
    (folder / "inside").mkdir(parents=True)
    make(folder / "model.onnx")
    with pytest.raises(ArtifactError, match=reason):
        regular_file(folder, "model.onnx")


def test_a_volume_of_links_is_opened(tmp_path: Path) -> None:
    """Kubernetes mounts a folder as links to ``..data/``, itself a link to a dated folder."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "model.onnx").write_bytes(b"graph")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "model.onnx").symlink_to("..data/model.onnx")
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    assert regular_file(tmp_path / "elsewhere", "model.onnx").read_bytes() == b"graph"


@pytest.mark.parametrize("name", sorted({"manifest.json", *files_of(FORMATS.find("tensorrt"))}))
def test_a_file_over_its_bound_is_not_read(tmp_path: Path, name: str) -> None:
    limit = max_bytes(name)
    with (tmp_path / name).open("wb") as file:
        file.truncate(limit)  # takes no room on the disk
    assert regular_file(tmp_path, name)
    with (tmp_path / name).open("ab") as file:
        file.truncate(limit + 1)
    with pytest.raises(ArtifactError, match=rf"\b{limit + 1} .*\b{limit}\b"):
        regular_file(tmp_path, name)


@pytest.mark.parametrize("start", [0, 1, 2**20 - 8, 2**20 - 4, 2**20 - 1, 2**20, 3 * 2**20 - 3])
def test_a_word_is_found_wherever_it_stands(tmp_path: Path, start: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(start) + b"location")
    assert contains(file, b"location")
    file.write_bytes(bytes(start) + b"locatio\0n")
    assert not contains(file, b"location")

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.images import golden_images, read_images
from export.artifact import Artifact
from models.errors import UserError
from models.preprocess import decode


def test_images_come_from_files_or_an_artifact(
    tmp_path: Path, make_artifact: Callable[..., Artifact]
) -> None:
    artifact = make_artifact()
    pixels, _ = artifact.golden()
    files = golden_images(artifact.path)
    assert [artifact.preprocess(decode(file)).tolist() for file in files] == pixels.tolist()
    folder = tmp_path / "images"
    folder.mkdir()
    with pytest.raises(UserError, match="no image there"):
        read_images(folder)
    (folder / "b.png").write_bytes(b"2")
    (folder / "a.png").write_bytes(b"1")
    assert read_images(folder) == [b"1", b"2"]

"""How busy a GPU is, by an nvidia-smi that is played."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.gpu.training import watched


def test_samples_are_taken_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 40; echo '[N/A]'; echo 60; echo \"$@\" >&2\nexec sleep 60\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    start = time.monotonic()
    with watched() as busy:
        assert busy.mean is None
        time.sleep(0.5)
    assert busy.samples == [40, 60]
    assert busy.mean == 50
    assert time.monotonic() - start < 10


def test_without_the_program_there_is_no_figure() -> None:
    with watched("no-such-program") as busy:
        pass
    assert busy.mean is None

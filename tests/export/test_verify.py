from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifact.artifact import Artifact, write_artifact, write_manifest
from artifact.gates import GateError
from artifact.runtimes.base import RuntimeUnavailable
from core.errors import UserError
from export import verify as module
from export.verify import verify

Copy = Callable[..., Path]


def unstamped(folder: Path) -> Artifact:
    """Returns a graph whose manifest says that it was never run."""
    artifact = Artifact.load(folder)
    return write_manifest(
        replace(artifact, parity=None, metrics=None, unverified="made where it could not run")
    )


def test_where_its_run_is_at_hand_it_is_compared_with_torch(copied: Copy, in_trained: Path) -> None:
    before = Artifact.load(copied())
    verified = verify(unstamped(before.path))
    assert verified.against == "torch, trained on digits"
    assert [gate.name for gate in verified.gates] == [
        "finite",
        "agreement",
        "drop",
        "batches",
        "golden",
    ]
    after = Artifact.load(before.path)
    assert after == verified.artifact
    assert after.unverified is None
    assert after.parity is not None
    assert before.parity is not None
    # Float32's last digits: they depend on how many threads summed.
    error = before.parity.relative_error
    assert 0 < error < 1e-5
    assert after.parity.relative_error == pytest.approx(error, rel=0.01, abs=1e-6)
    assert replace(after.parity, relative_error=0) == replace(before.parity, relative_error=0)
    assert after.metrics == before.metrics
    np.testing.assert_array_equal(after.golden()[1], before.golden()[1])


def test_elsewhere_it_is_compared_with_its_golden_batch(copied: Copy, here: Path) -> None:
    verified = verify(unstamped(copied()))
    assert verified.against.startswith("its golden batch (not with torch: no run of ")
    assert [gate.name for gate in verified.gates] == ["finite", "agreement", "batches", "golden"]
    parity = Artifact.load(verified.artifact.path).parity
    assert parity is not None
    assert (parity.reference, parity.images, parity.batches) == ("golden", 8, (1, 2, 8, 32))


def test_less_does_not_replace_what_was_measured_against_torch(copied: Copy, here: Path) -> None:
    before = Artifact.load(copied())
    verified = verify(before)
    assert [gate.name for gate in verified.gates] == ["finite", "agreement", "batches", "golden"]
    assert Artifact.load(before.path) == before == verified.artifact


def test_another_run_is_not_its_network(
    copied: Copy, in_trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = unstamped(copied())
    other = write_manifest(replace(artifact, source=replace(artifact.source, sha256="0" * 64)))
    assert "is not the one it was made from" in verify(other).against
    with pytest.raises(UserError, match="is not the one it was made from"):
        verify(other, data="digits")


def test_what_does_not_pass_stays_as_it_was(copied: Copy, here: Path) -> None:
    artifact = unstamped(copied())
    pixels, logits = artifact.golden()
    wrong = write_artifact(artifact, pixels, np.roll(logits, 1, axis=1))
    manifest = (wrong.path / "manifest.json").read_bytes()
    with pytest.raises(GateError, match=r"top-1 agreement: .*% with the golden batch on 8 images"):
        verify(wrong)
    assert (wrong.path / "manifest.json").read_bytes() == manifest


@pytest.mark.no_gpu
def test_an_engine_stays_unverified_where_there_is_no_gpu(copied: Copy) -> None:
    engine = Artifact.load(copied("tensorrt_rtx-fp16"))
    with pytest.raises(RuntimeUnavailable, match="no NVIDIA driver"):
        verify(engine)
    assert Artifact.load(engine.path) == engine


def test_the_old_engine_stays_until_the_new_one_has_passed(
    copied: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Artifact.load(copied("tensorrt_rtx-fp16"))
    assert engine.fingerprint is not None
    here = replace(engine.fingerprint, capabilities=("8.9",))
    monkeypatch.setattr(
        "artifact.runtimes.tensorrt_builder.rebuild_engine",
        lambda _: (b"a new engine", here),
        raising=False,
    )

    def passes(artifact: Artifact, *, data: str | None) -> module.Verified:
        assert artifact.path != engine.path
        assert artifact.model_file.read_bytes() == b"a new engine"
        assert artifact.unverified == "built again, not run yet"
        return module.Verified(artifact, (), "nothing")

    def fails(artifact: Artifact, *, data: str | None) -> module.Verified:
        raise GateError("no")

    monkeypatch.setattr(module, "verify", fails)
    with pytest.raises(GateError):
        module.rebuild(engine)
    assert Artifact.load(engine.path) == engine
    monkeypatch.setattr(module, "verify", passes)
    verified = module.rebuild(engine)
    assert verified.artifact.path == engine.path
    assert Artifact.load(engine.path).fingerprint == here
    assert list(engine.path.parent.iterdir()) == [engine.path]

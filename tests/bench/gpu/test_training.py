"""Short trainings on the CPU, as the step does them on a GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import bench.training.measure
from bench.gpu import training
from bench.gpu.process import Budget
from bench.gpu.training import (
    FILE,
    NETWORKS,
    Piece,
    Trained,
    choose_data,
    in_short,
    pieces,
    recipe_for,
    run,
    training_section,
)
from bench.training.measure import Rates
from core.errors import UserError
from core.record_file import read_rows
from training.recipe import Recipe


def small(recipe: Recipe) -> Recipe:
    """Makes a recipe one for a CPU, with images of 8x8."""
    return dataclasses.replace(recipe, crop=8, resize=8, precision="fp32", shift=0.0, rotate=0.0)


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this a machine without Fashion-MNIST."""
    monkeypatch.setattr(training, "DEBIAN_FASHION", Path("nowhere"))


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes rates known, save of one network."""

    def rates(model: str, *_: Any, **__: Any) -> Rates:
        if model == "mobilenet_v2":
            raise RuntimeError("Triton cannot find a compiler")
        return Rates(loader=3000.0, step=2000.0, both=1900.0, loops={}, device="GPU")

    monkeypatch.setattr(bench.training.measure, "training_rates", rates)


@pytest.mark.usefixtures("digits", "here", "played")
def test_rates_and_a_run_that_learns(tmp_path: Path) -> None:
    todo = [Piece("eager", "resnet14"), Piece("run", "resnet14"), Piece("eager", "mobilenet_v2")]
    said = run(tmp_path, Budget(600), todo=todo, epochs=2, change=small)
    rates, short, failed = read_rows(tmp_path / FILE, Trained)
    assert (rates.loader, rates.step, rates.both) == (3000, 2000, 1900)
    assert (rates.epochs, rates.top1, rates.size, rates.batch) == (None, None, 8, 64)
    assert short.epochs == 2
    assert short.top1 is not None
    assert short.top1 > 0.3
    assert short.both is not None
    assert short.both > 0
    assert failed.reason == "RuntimeError: Triton cannot find a compiler"
    assert "1 networks on digits; fastest step 2,000 images/s (resnet14, eager" in said
    assert "1 not measured (RuntimeError: Triton cannot find a compiler)" in said
    assert said.endswith(": digits it is")
    section = training_section([rates, short, failed])
    assert section is not None
    speeds, results = section.tables
    assert speeds.rows[0][6:] == ("3,000", "2,000", "1,900", "")
    assert speeds.rows[1][6:] == (
        "-", "-", "-", "not measured: RuntimeError: Triton cannot find a compiler",
    )  # fmt: skip
    assert results.rows[0][6] == "2"


@pytest.mark.usefixtures("digits", "here", "played")
def test_without_time_each_piece_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not measured \(no time left \(0 s of 0\)\)"):
        run(tmp_path, Budget(0))
    rows = read_rows(tmp_path / FILE, Trained)
    assert len(rows) == len(pieces())
    assert {row.reason for row in rows} == {"no time left (0 s of 0)"}


def test_what_is_worth_most_comes_first() -> None:
    every = pieces()
    assert every[: len(NETWORKS)] == [Piece("eager", name) for name in NETWORKS]
    assert [piece.kind for piece in every[len(NETWORKS) :][:3]] == ["run", "run", "compiled"]
    for kind in ("eager", "large", "run", "compiled"):
        assert sorted(p.model for p in every if p.kind == kind) == sorted(NETWORKS)


def test_recipes_are_those_of_the_data() -> None:
    eager = recipe_for(Piece("eager", "mobilenet_v2"), "fashion_mnist", 3)
    assert (eager.precision, eager.channels_last, eager.compile) == ("bf16", True, False)
    assert (eager.batch_size, eager.crop, eager.epochs) == (128, 32, 3)
    large = recipe_for(Piece("large", "mobilenet_v2"), "fashion_mnist", 3)
    assert (large.batch_size, large.compile) == (1024, False)
    assert recipe_for(Piece("compiled", "mobilenet_v2"), "fashion_mnist", 3).compile
    # Of 1,438 digits a batch of 1,024 would leave one step an epoch.
    assert recipe_for(Piece("large", "mobilenet_v2"), "digits", 3).batch_size == 64


def test_files_that_were_taken_along_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "DEBIAN_FASHION", tmp_path / "debian")
    monkeypatch.setenv("POCKETNETS_DATA", str(tmp_path))
    name, why = choose_data()
    assert name == "digits"
    assert str(tmp_path / "FashionMNIST" / "raw") in why
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for file in training.FASHION_FILES:
        (folder / file).touch()
    assert choose_data() == ("fashion_mnist", "")


def test_no_rows() -> None:
    assert training_section([]) is None
    assert in_short([]) == "nothing was trained"

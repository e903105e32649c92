from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from few_digits import few_digits, write_images
from PIL import Image

from bench.experiment import this_machine, write_page
from bench.studies.ablation import NETWORKS, PRINTED, AblationRow, ablation_section, run_ablation
from core.errors import UserError
from core.record_file import read_rows


def row(network: str, seconds: float = 10.0) -> AblationRow:
    return AblationRow(
        network=network,
        parameters=195_000,
        macs=28_800_000,
        epochs=1,
        peak_bytes=900_000_000,
        train_seconds=seconds,
        test_seconds=0.5,
        top1=0.876,
        machine=asdict(this_machine()),
        date="2026-11-22",
    )


def test_table_and_chart_hold_measured_and_printed_figures(tmp_path: Path) -> None:
    rows = [row(network, 10.0 + index) for index, network in enumerate(NETWORKS)]
    page = write_page(ablation_section("cifar10", rows), tmp_path / "page.md")
    text = page.read_text()
    assert (
        "| resnet14_g4 | 195,000 | 28.8 | 900 | 12.0 | 1.20 | 0.50 | 87.6 % | 50 | 834 | 1.25 |"
        in text
    )
    assert this_machine().cpu in text
    with Image.open(page.with_suffix(".png")) as image:
        assert image.width > 500
    assert set(PRINTED) == set(NETWORKS)


def test_rows_measured_before_are_kept_and_the_missing_one_is_trained(here: Path) -> None:
    folder = write_images(few_digits("written", train=200, val=40), here / "elsewhere")
    kept = [row(network) for network in NETWORKS if network != "resnet14_separable"]
    file = here / "ablation-written.jsonl"
    file.write_text("".join(json.dumps(asdict(r)) + "\n" for r in kept))
    rows = list(run_ablation(str(folder), epochs=1, out=here))
    assert [r.network for r in rows] == list(NETWORKS)
    trained = rows[NETWORKS.index("resnet14_separable")]
    assert trained.train_seconds != 10.0
    assert 0 < trained.top1 < 1
    assert trained.peak_bytes > 100_000_000
    assert trained.cpu_seconds is not None
    assert trained.cpu_seconds > 1
    assert len(read_rows(file, AblationRow)) == 6
    again = run_ablation(str(folder), epochs=1, out=here)
    assert [r.train_seconds for r in again] == [r.train_seconds for r in rows]


def test_cpu_time_is_compared_if_all_rows_have_it(tmp_path: Path) -> None:
    rows = [
        replace(row(network, 100.0), cpu_seconds=50.0 + index)
        for index, network in enumerate(NETWORKS)
    ]
    text = write_page(ablation_section("cifar10", rows), tmp_path / "all.md").read_text()
    assert "| train CPU s |" in text
    assert "| 51.0 | 1.02 |" in text
    some = [replace(rows[0], cpu_seconds=None), *rows[1:]]
    text = write_page(ablation_section("cifar10", some), tmp_path / "some.md").read_text()
    assert "| train s |" in text
    assert "| 100.0 | 1.00 |" in text


def test_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown data 'flowers102'"):
        next(run_ablation("flowers102", epochs=1, out=tmp_path))

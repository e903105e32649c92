"""The report of all steps, whole and in parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.gpu import sections, training
from bench.gpu.parity import FILE, ParityRow
from bench.gpu.process import Budget
from bench.gpu.training import Trained
from bench.latency.record import Row, Sweep, write_sweep
from core.record_file import append_row

WHEN = "2026-11-22T00:00:00+00:00"
TRAINED = Trained(
    model="mobilenet_v2",
    data="digits",
    size=32,
    batch=64,
    precision="bf16",
    channels_last=True,
    compile=False,
    loader=1.0,
    step=2.0,
    both=1.0,
    when=WHEN,
)


def test_every_step_has_its_section(
    tmp_path: Path, make_row: Callable[..., Row], make_sweep: Callable[..., Sweep]
) -> None:
    row = make_row(runtime="ort-cuda", device=make_row(ms=0.5).latency)
    write_sweep(make_sweep(row), tmp_path)
    append_row(tmp_path / training.FILE, TRAINED)
    append_row(
        tmp_path / FILE, ParityRow(model="a", runtime="ort-cuda", batch=8, reason="why", when=WHEN)
    )
    said = sections.run(tmp_path, Budget(60))
    assert said.startswith("report.html, ")
    html = (tmp_path / "report.html").read_text()
    for title in ("Training on the GPU", "copies, launches", "fp16 against fp32, computed here"):
        assert title in html
    assert not (tmp_path / "latency.html").exists()
    assert (tmp_path / "latency.png").exists()
    assert "Training on the GPU" in (tmp_path / "latency.md").read_text()


def test_without_latencies_the_rest_is_a_report(tmp_path: Path) -> None:
    append_row(tmp_path / training.FILE, TRAINED)
    sections.run(tmp_path, Budget(60))
    html = (tmp_path / "report.html").read_text()
    assert "Training on the GPU" in html
    assert "Nothing could be measured" in html


def test_a_section_that_fails_says_why(
    tmp_path: Path,
    make_row: Callable[..., Row],
    make_sweep: Callable[..., Sweep],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / training.FILE).write_text('{"model": 1}\n')
    found = sections.sections(tmp_path, make_sweep(make_row()))
    assert found[0].title == "Training on the GPU"
    assert found[0].sentences[0].startswith("Not written: ")
    assert "training.jsonl: line 1" in found[0].sentences[0]


def test_too_large_a_folder_is_named(
    tmp_path: Path, make_row: Callable[..., Row], make_sweep: Callable[..., Sweep]
) -> None:
    write_sweep(make_sweep(make_row()), tmp_path)
    (tmp_path / "big.log").write_bytes(bytes(4_000_000))
    assert sections.run(tmp_path, Budget(60)).endswith("MB in all: more than the 3 MB it should be")

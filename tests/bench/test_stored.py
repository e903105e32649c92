"""Records of real runs, and the words made of them: what moves code moves no word.

The records were measured on 2026-11-26 and cut down: of each network few settings, of each setting
few samples. Where a report is meant to say something else, write the files beside the records again
in a commit of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.experiment import write_page
from bench.latency.command import Report
from bench.latency.record import read_sweep
from bench.layers.explanation import predict
from bench.layers.peaks import known_peaks
from bench.layers.record import RECORDS as LAYERS
from bench.layers.record import LayerTimes
from bench.layers.roofline import roof
from bench.layers.sections import write_layers
from bench.load.record import RECORDS as LOAD
from bench.load.record import Turns
from bench.load.sections import load_section
from bench.studies.measure import find_study, run_study
from bench.studies.record import StudyRow
from bench.studies.sections import study_section
from core.machine import Machine
from core.record_file import read_rows
from report.markdown import markdown

STORED = Path(__file__).with_name("stored")
RUN, STUDY = STORED / "run", "resnet_tweaks"


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Machine], Path]:
    """Copies stored records, on the machine that they were measured on."""

    def copied(name: str, machine: Machine) -> Path:
        monkeypatch.setattr("core.machine.this_machine", lambda packages: machine)
        monkeypatch.setattr("report.write.png", lambda spec: b"")  # drawing takes seconds
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(machine.cores)))
        return Path(shutil.copytree(STORED / name, tmp_path / "out"))

    return copied


def test_a_report_with_its_layers(
    out: Callable[[str, Machine], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = out("run", read_sweep(RUN).machine)
    (folder / "latency.md").unlink()
    Report(out=folder, all=True)()
    assert (folder / "latency.md").read_text() == (RUN / "latency.md").read_text()
    said = capsys.readouterr().out.replace(str(folder), "OUT")
    assert [line.rstrip() for line in said.splitlines()] == (
        (RUN / "terminal.txt").read_text().splitlines()
    )


def test_the_page_of_a_networks_layers(out: Callable[[str, Machine], Path]) -> None:
    header, rows = LAYERS.read(RUN / "layers.jsonl")
    folder = out("run", header.machine)
    page = write_layers(roof(_first(rows), known_peaks(folder)[0]), header.machine, folder)
    assert page.read_text() == (RUN / page.name).read_text()


def _first(rows: list[LayerTimes]) -> LayerTimes:
    return next(row for row in rows if (row.model, row.precision) == ("resnet14", "fp32"))


def test_a_prediction() -> None:
    _, rows = LAYERS.read(RUN / "layers.jsonl")
    (peaks,) = known_peaks(RUN)
    section = predict([roof(times, peaks) for times in rows])
    lines = [*markdown(section), *section.notes]
    assert "\n".join(lines) + "\n" == (RUN / "prediction.md").read_text()


def test_a_server_under_load(out: Callable[[str, Machine], Path]) -> None:
    header, rows = LOAD.read(STORED / "load" / "load.jsonl")
    folder, turns = out("load", header.machine), Turns(tuple(rows))
    page = write_page(load_section(header, turns), folder / "load.md")
    assert page.read_text() == (STORED / "load" / "load.md").read_text()
    LOAD.write(folder / "load.jsonl", header, turns.all)
    assert (folder / "load.jsonl").read_text() == (STORED / "load" / "load.jsonl").read_text()


def test_a_study(out: Callable[[str, Machine], Path]) -> None:
    name = f"study-{STUDY}"
    stored = (STORED / "study" / f"{name}.md").read_text()
    first, *_ = read_rows(STORED / "study" / f"{name}.jsonl", StudyRow)
    folder = out("study", first.machine)
    found = run_study(STUDY, folder, seconds=0.1, on=("CPU",))
    page = write_page(study_section(find_study(STUDY), found), folder / f"{name}.md")
    assert page.read_text() == stored

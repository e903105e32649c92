"""How a study is measured, kept, reused and shown."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bench.studies.measure
import bench.studies.sections
import bench.studies.variants
from artifact.runtimes import ort
from artifact.runtimes.base import RUNTIMES
from bench.experiment import this_machine, write_page
from bench.studies import ablation
from bench.studies.command import Study as Command
from bench.studies.measure import EXTRA, ROUNDS, Study, run_study
from bench.studies.record import Results, StudyRow
from bench.studies.sections import study_section
from bench.studies.variants import Variant, digest, platforms, prepare, runtimes, settle
from bench.studies.verdict import Claim, Verdict, faster
from core.errors import UserError
from core.record_file import read_rows
from export.to_onnx import to_graph
from report.section import Section

SIDE = 8


def block(*widths: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        convs = (nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(widths))
        return nn.Sequential(*convs, nn.BatchNorm2d(widths[-1]))

    return build


NARROW = Variant(group="g", name="narrow", build=block(4, 8, 4), shape=(4, SIDE, SIDE), paper=1.0)
WIDE = Variant(
    group="g",
    name="wide",
    build=block(4, 16, 4),
    shape=(4, SIDE, SIDE),
    paper=1.5,
    printed="1.5 ms",
)
STUDY = Study(
    title="Does width cost time?",
    question="The paper says so.",
    paper={"CPU": "a phone", "GPU": "a GPU"},
    variants=lambda platform: [NARROW, WIDE],
    claims=(Claim("narrow is faster", faster(lambda r: [(r.groups["g"][0], r.groups["g"][1])])),),
    notes=("Chosen by dice.",),
)


GRAPHS: dict[str, Any] = {}


def exported(network: nn.Module, *settings: Any) -> Any:
    """Returns the graph of ``network``, exported once: the weights of equal layers are equal."""
    key = repr((network, settings))
    if key not in GRAPHS:
        GRAPHS[key] = to_graph(network, *settings)
    return GRAPHS[key]


@pytest.fixture(autouse=True)
def _two_runtimes_and_few_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.studies.measure, "runtimes", lambda platform: ["torch", "ort-cpu"])
    monkeypatch.setattr(bench.studies.variants, "to_graph", exported)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Callable[[Study], None]:
    """Makes a study the one that every name finds, without extra rounds; at first ``STUDY``."""
    monkeypatch.setattr(bench.studies.measure, "EXTRA", 0)

    def use(chosen: Study) -> None:
        for module in (bench.studies.measure, bench.studies.sections):
            monkeypatch.setattr(module, "find_study", lambda name: chosen)

    use(STUDY)
    return use


@pytest.fixture
def quick(study: Callable[[Study], None], tmp_path: Path) -> Callable[..., Results]:
    def run(**options: Any) -> Results:
        return run_study("made_up", tmp_path, **{"seconds": 0.0, **options})["CPU"]

    return run


def samples(results: Results) -> list[Any]:
    return [row.latency for row in results.rows]


def test_rows_hold_what_was_counted_and_measured(quick: Callable[..., Results]) -> None:
    before = datetime.now(UTC).isoformat(timespec="seconds")
    results = quick(batch=3)
    assert [(row.variant, row.runtime) for row in results.rows] == [
        ("narrow", "torch"),
        ("narrow", "ort-cpu"),
        ("wide", "torch"),
        ("wide", "ort-cpu"),
    ]
    narrow, wide = results.row(NARROW), results.row(WIDE)
    assert narrow.macs == SIDE * SIDE * (4 * 8 + 8 * 4)
    assert wide.macs == 2 * narrow.macs
    pixels = 3 * SIDE * SIDE
    assert narrow.bytes == 4 * (pixels * (4 + 8 + 8 + 4) + (4 * 8 + 8) + (8 * 4 + 4))
    for row in results.rows:
        assert (row.batch, row.threads, row.machine) == (3, 1, this_machine_as(row.machine))
        assert row.when >= before
        assert len(row.latency.turns) == ROUNDS
        assert row.latency.count >= row.plan.count
        assert row.latency.p50 > 0


def test_an_undecided_claim_is_measured_for_more_rounds(
    study: Callable[[Study], None],
    quick: Callable[..., Results],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench.studies.measure, "EXTRA", EXTRA)
    for word, rounds in (("a tie", ROUNDS + EXTRA), ("holds", ROUNDS)):
        judge = partial(_says, word)
        study(dataclasses.replace(STUDY, claims=(Claim("it is so", judge),)))
        rows = quick(fresh=True).rows
        assert [len(row.latency.turns) for row in rows] == [rounds] * len(rows)
        assert all(row.latency.cpu for row in rows)


def _says(word: str, results: Results, source: str) -> Verdict:
    return Verdict(word, "")


def this_machine_as(machine: Any) -> Any:
    """Returns this machine; what changes by the second is that of ``machine``."""
    now = this_machine()
    assert now.key == machine.key
    return machine


def test_an_earlier_run_is_reused_whole_or_not_at_all(
    quick: Callable[..., Results], study: Callable[[Study], None], tmp_path: Path
) -> None:
    first = quick()
    assert samples(quick()) == samples(first)
    other = quick(batch=2)
    assert samples(other) != samples(first)
    assert samples(quick()) == samples(first), "other settings do not drop it"
    assert samples(quick(batch=2)) == samples(other)
    assert samples(quick(seconds=0.001)) != samples(first), "another plan asks for other samples"

    kept = quick()
    renamed = dataclasses.replace(WIDE, build=block(4, 32, 4))
    study(dataclasses.replace(STUDY, variants=lambda platform: [NARROW, renamed]))
    changed = quick()
    assert changed.row(renamed).macs == 4 * kept.row(NARROW).macs
    assert changed.row(NARROW).latency != kept.row(NARROW).latency, "all took turns again"
    assert (
        len(read_rows(tmp_path / "study-made_up.jsonl", StudyRow)) == 4 + 4
    )  # batch 1 and batch 2


def test_rows_of_another_machine_are_not_reused(
    quick: Callable[..., Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = quick()
    newer = dataclasses.replace(this_machine(), versions={"torch": "99"})
    monkeypatch.setattr(bench.studies.measure, "this_machine", lambda: newer)
    again = quick()
    assert samples(again) != samples(first)
    assert again.rows[0].machine.versions == {"torch": "99"}


def test_fresh_measures_again_and_forgets(quick: Callable[..., Results], tmp_path: Path) -> None:
    quick(batch=2)
    first = quick()
    assert samples(quick(fresh=True)) != samples(first)
    assert {row.batch for row in read_rows(tmp_path / "study-made_up.jsonl", StudyRow)} == {1}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "line 5: Invalid JSON"),
        ('{"group": "g"}', "line 5: variant: Field required"),
    ],
)
def test_a_corrupt_line_is_named(
    quick: Callable[..., Results], tmp_path: Path, line: str, what: str
) -> None:
    quick()
    file = tmp_path / "study-made_up.jsonl"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(UserError, match=what) as caught:
        quick()
    assert "--fresh" in str(caught.value)
    quick(fresh=True)
    assert samples(quick())


@pytest.mark.parametrize("options", [{"batch": 0}, {"threads": 0}, {"threads": 10_000}])
def test_settings_that_cannot_be_are_refused(
    quick: Callable[..., Results], tmp_path: Path, options: dict[str, int]
) -> None:
    with pytest.raises(UserError, match=r"batch .*\b1, threads .*\b1 to \d+"):
        quick(**options)
    assert list(tmp_path.iterdir()) == []


def test_unequal_macs_are_noticed(
    quick: Callable[..., Results], study: Callable[[Study], None], tmp_path: Path
) -> None:
    study(dataclasses.replace(STUDY, tolerance=0.5))
    with pytest.raises(AssertionError, match=r"MACs .*100\.0%"):
        quick()
    assert list(tmp_path.iterdir()) == [], "before anything is kept"


def test_page_names_machine_date_and_figures(quick: Callable[..., Results], tmp_path: Path) -> None:
    results = quick()
    page = write_page(study_section(STUDY, {"CPU": results}), tmp_path / "study-made_up.md")
    text = page.read_text()
    assert page == tmp_path / "study-made_up.md"
    row = results.rows[0]
    assert text.startswith(
        "# Does width cost time?\n\nThe paper says so.\n\nnarrow is faster. torch: "
    )
    assert "; the paper (a phone): holds (1 of 1; 1.50 times)." in text
    assert this_machine().cpu in text
    assert row.when in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    assert "batch 1, 1 CPU thread in a call" in text
    assert f"{row.latency.count:,}" in text
    assert "Chosen by dice." in text
    assert re.search(r"^- openvino .*: it is not installed here", text, re.MULTILINE)
    line = next(line for line in text.splitlines() if line.startswith("| g | wide | 0.0 | 2.00 |"))
    assert line.endswith("| 1.50 | 1.5 ms |")
    with Image.open(io.BytesIO((tmp_path / "study-made_up.png").read_bytes())) as image:
        assert image.width > 1000
    assert "![Does width cost time? (CPU)](study-made_up.png)" in text


def test_a_gpu_is_measured_beside_the_cpu(
    quick: Callable[..., Results],
    study: Callable[[Study], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Its loader is a fake: what CUDA does was not seen."""
    played = dataclasses.replace(RUNTIMES["torch-cuda"], bare=RUNTIMES["torch"].bare)
    monkeypatch.setitem(RUNTIMES, "torch-cuda", played)
    monkeypatch.setattr(bench.studies.measure, "platforms", lambda: ["CPU", "GPU"])
    monkeypatch.setattr(
        bench.studies.measure, "runtimes", lambda p: ["torch-cuda"] if p == "GPU" else ["torch"]
    )
    found = run_study("made_up", tmp_path, seconds=0.0)
    assert {(row.runtime, row.batch) for r in found.values() for row in r.rows} == {
        ("torch", 1),
        ("torch-cuda", 8),
    }
    again = run_study("made_up", tmp_path, seconds=0.0)
    assert [samples(r) for r in again.values()] == [samples(r) for r in found.values()]
    page = write_page(study_section(STUDY, found), tmp_path / "study-made_up.md")
    assert "torch-cuda: " in page.read_text()
    assert "the paper (a GPU): holds" in page.read_text()
    assert "captured once as a CUDA graph" in page.read_text()
    assert (tmp_path / "study-made_up-2.png").exists()
    alone = run_study("made_up", tmp_path, seconds=0.0, on=["GPU"])
    assert [samples(r) for r in alone.values()] == [samples(found["GPU"])]


def test_runtimes_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtimes("CPU")[:2] == ["torch", "ort-cpu"]
    assert runtimes("GPU") == ["torch-cuda"]
    here = bench.studies.variants.this_machine()
    fewer = {name: version for name, version in here.versions.items() if name != "openvino"}
    other = dataclasses.replace(here, versions=fewer)
    monkeypatch.setattr(bench.studies.variants, "this_machine", lambda: other)
    assert runtimes("CPU") == ["torch", "ort-cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert platforms() == ["CPU"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert platforms() == ["CPU", "GPU"]


def test_every_runtime_computes_the_same() -> None:
    candidate = prepare(WIDE, runtimes("CPU"), batch=2, threads=1)
    assert list(candidate.calls) == runtimes("CPU")
    outputs = [np.asarray(call()) for call in candidate.calls.values()]
    for output in outputs:
        np.testing.assert_allclose(output, outputs[0], atol=1e-5)
    assert outputs[0].shape == (2, 4, SIDE, SIDE)


@pytest.mark.parametrize("wrong", [lambda x: x * 1.01, lambda x: x * np.nan])
def test_a_runtime_that_computes_something_else_is_named(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Any], Any]
) -> None:
    right = ort.load_bare

    def load(*args: Any) -> Callable[[], Any]:
        call = right(*args)
        return lambda: wrong(call())

    monkeypatch.setattr(ort, "load_bare", load)
    with pytest.raises(UserError, match="g, wide: ort-cpu computes something else than torch"):
        prepare(WIDE, ["torch", "ort-cpu"], batch=1, threads=1)


def test_digest_follows_the_layers() -> None:
    assert digest(NARROW) == digest(dataclasses.replace(NARROW))
    changes = {"build": block(4, 9, 4), "shape": (4, 16, 16), "name": "other", "group": "other"}
    changed = [digest(dataclasses.replace(NARROW, **{k: v})) for k, v in changes.items()]
    assert len({digest(NARROW), *changed}) == 5


def test_settled_convolutions_have_a_deviation_of_1() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
    ).eval()
    nn.init.normal_(network[0].weight, std=1e-3)
    example = torch.randn(1, 4, SIDE, SIDE)
    settle(network, example)
    with torch.inference_mode():
        first = network[0](example) - network[0].bias.view(-1, 1, 1)
        assert first.std().item() == pytest.approx(1, abs=1e-4)
        assert network[:3](example).std().item() == pytest.approx(1, abs=1e-4)
    assert network[3].bias.abs().min() > 0
    assert not network[0]._forward_hooks


def test_command_prints_the_page(
    study: Callable[[Study], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Command(name="se", seconds=0.0, batch=2, out=tmp_path)()
    printed = capsys.readouterr().out
    assert printed.startswith("# Does width cost time?")
    assert "batch 2," in printed
    assert printed.splitlines()[-1] == str(tmp_path / "study-se.md")
    names = {"study-se.jsonl", "study-se.md", "study-se.png"}
    assert {file.name for file in tmp_path.iterdir()} == names


def test_command_still_runs_the_ablation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run_ablation(data: str, *, epochs: int, out: Path) -> list[Any]:
        asked.append((data, epochs, out))
        return []

    monkeypatch.setattr(ablation, "run_ablation", run_ablation)
    monkeypatch.setattr(ablation, "ablation_section", lambda data, rows: Section(title=data))
    Command(name="ablation", out=tmp_path)()
    Command(name="ablation", data="cifar10", epochs=3, out=tmp_path)()
    assert asked == [("fashion_mnist", 80, tmp_path), ("cifar10", 3, tmp_path)]
    page = tmp_path / "ablation-cifar10.md"
    assert page.read_text().startswith("# cifar10\n")
    assert capsys.readouterr().out.endswith(f"{page.read_text()}\n{page}\n")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            Command(name="se", data="cifar10", epochs=1),
            r"--data, --epochs: .*\bse; .*--batch, --threads, --seconds, --fresh and --out",
        ),
        (
            Command(name="servers", batch=0, data="cifar10"),
            r"--batch, --data: .*\bservers; .*--artifact, --rounds, --seconds and --out",
        ),
        (
            Command(name="ablation", threads=2, fresh=True),
            r"--threads, --fresh: .*\bablation; .*--data, --epochs and --out",
        ),
        (
            Command(name="decoding", batch=1),
            r"--batch: .*\bdecoding; .*--images, --seconds and --out",
        ),
    ],
)
def test_options_of_other_studies_are_refused(command: Command, line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}$"):
        command()

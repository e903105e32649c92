from __future__ import annotations

import copy
from pathlib import Path

import onnx
import pytest
from small_graphs import SIDE, pixels_of, run_onnx, small_graph
from tiny_artifact import tiny_artifact

from artifact.artifact import Artifact, write_artifact
from artifact.records import TensorSpec
from bench.experiment import this_machine
from bench.measure.timing import Plan
from bench.studies import rewrites
from bench.studies.command import Study
from bench.studies.rewrite_table import FILE, RewriteRow, known_rewrites
from bench.studies.rewrites import pairs
from core.errors import UserError
from core.files import staged
from core.record_file import read_rows
from export.quantization.calibration import measure_ranges
from export.quantization.qdq import prepare, to_int8
from export.rewrites.hard_sigmoid import add_in_integers

NETWORK = "small-toy"


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the int8 artifacts of a small network with two HardSigmoids."""
    prepared = prepare(small_graph("convolutions"))
    pixels = pixels_of(prepared)
    graph = to_int8(prepared, measure_ranges(prepared, pixels, ["MinMax"])["MinMax"])
    assert add_in_integers(graph) == 2
    logits = run_onnx(graph, pixels)
    for form, changes in (("onnx", {"hard_sigmoid": 2}), ("openvino", {"float_activations": 9})):
        with staged(tmp_path / "artifacts" / NETWORK / f"{form}-int8") as folder:
            onnx.save(graph, folder / "model.onnx")
            for name in ("model.xml", "model.bin") if form == "openvino" else ():
                (folder / name).write_bytes(b"not read")
            labels = tuple(f"class {index}" for index in range(logits.shape[1]))
            artifact = tiny_artifact(
                folder,
                SIDE,
                model="small",
                data="toy",
                precision="int8",
                format=form,
                labels=labels,
                output=TensorSpec(name="logits", dtype="float32", shape=("batch", len(labels))),
                rewrites=changes,
            )
            write_artifact(artifact, pixels, logits)
    monkeypatch.setattr(rewrites, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(rewrites, "PLAN", Plan(count=5, seconds=0, limit=0.1, rounds=5))
    return tmp_path / "artifacts"


def test_the_study_measures_each_rewrite_and_the_report_shows_it(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "reports"
    Study(name="rewrites", seconds=0, out=out)()
    printed = capsys.readouterr().out
    rows = read_rows(out / FILE, RewriteRow)
    assert {(row.rewrite, row.runtime, row.count) for row in rows} == {
        ("hard_sigmoid", "ort-cpu", 2),
        ("hard_sigmoid", "openvino", 2),
        ("float_activations", "openvino", 9),
    }
    assert all(row.error < 0.2 and min(row.before.count, row.after.count) >= 5 for row in rows)
    assert all(row.network in printed and row.runtime in printed for row in rows)

    Study(name="rewrites", seconds=0, out=out)()
    assert read_rows(out / FILE, RewriteRow) == rows  # not measured again
    assert capsys.readouterr().out == printed
    section = known_rewrites(out, [NETWORK], this_machine())
    assert section is not None
    (table,) = section.tables
    assert len(table.rows) == 3
    assert known_rewrites(out, ["other-toy"], this_machine()) is None
    assert known_rewrites(tmp_path, [NETWORK], this_machine()) is None
    Study(name="rewrites", seconds=0, out=out, fresh=True)()
    assert [row.when for row in read_rows(out / FILE, RewriteRow)] != []


def test_the_graph_without_is_the_graph_before(artifacts: Path) -> None:
    made = Artifact.load(artifacts / NETWORK / "onnx-int8")
    (pair,) = pairs([made])
    without, with_ = (onnx.load_from_string(graph) for graph in pair.graphs())
    assert [node.op_type for node in without.graph.node].count("HardSigmoid") == 2
    again = copy.deepcopy(without)
    assert add_in_integers(again) == 2
    pixels, golden = made.golden()
    assert (run_onnx(again, pixels) == golden).all()
    assert (run_onnx(with_, pixels) == golden).all()


def test_without_a_rewritten_graph_there_is_nothing_to_measure(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrites, "pairs", lambda artifacts: iter(()))
    with pytest.raises(UserError, match="no graph here was rewritten"):
        rewrites.run("rewrites", tmp_path)
    assert not (tmp_path / FILE).exists()

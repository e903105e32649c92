from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from artifact.artifact import Artifact
from bench.measure.timing import Latency, Plan
from bench.peers import command, measure, prepare
from bench.peers.command import Peers
from bench.peers.material import Material
from bench.peers.prepare import kept_folder, make_files, why_missing, write_material
from bench.peers.record import OURS, PeerRow, read_peers
from bench.peers.registry import PEERS, PeerSpec, Setting
from bench.peers.sections import peers_section, standings
from core.errors import UserError
from core.machine import Machine
from core.registry import Registry
from export.network import Network
from models.classifier import Classifier
from report.format import MISSING

FAKES = Path(__file__).parents[2] / "fakes"
SIDE = 32
MACHINE = Machine(
    cpu="a processor",
    cores=2,
    memory=None,
    os="a system",
    kernel="1.0",
    governor=None,
    gpu=None,
    driver=None,
    versions={"python": "3.11"},
)
TOY = PeerSpec(
    name="toy",
    module="toy_peer",
    settings=(
        Setting(name="fp32", precision="fp32", files="plain"),
        Setting(name="slow", precision="fp32", files="plain"),
        Setting(name="wrong", precision="int8", files="plain"),
        Setting(name="needs more", precision="bf16", files="plain"),
        Setting(name="broken", precision="int8", files="broken"),
        Setting(name="no tool", precision="int8", absent="its tool is in no package"),
    ),
    packages=("numpy",),
    tools=("onnx",),
)


def channel_means() -> Classifier:
    """Returns a network whose logits are the mean of each channel."""
    means = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(means, mean=(0, 0, 0), std=(1 / 255,) * 3).eval()


def network_of(artifact: Artifact, module: nn.Module | None = None) -> Network:
    """Returns the network of a tiny artifact, with photos of three colours."""
    colours = [Image.new("RGB", (SIDE, SIDE), c) for c in ("#c84020", "#20c840", "#2040c8")]
    photos = [(colour, 0) for colour in colours]
    return Network(
        model=artifact.model,
        data=artifact.data,
        weights="trained",
        module=module or channel_means(),
        labels=artifact.labels,
        preprocess=artifact.preprocess,
        source=artifact.source,
        calibration=photos,
        held_out=photos,
        labelled=False,
    )


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    from tiny_artifact import tiny_artifact

    folder = tmp_path_factory.mktemp("material")
    return write_material(network_of(tiny_artifact(folder, SIDE)), folder)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> PeerSpec:
    """Makes a toy the only peer."""
    registry = Registry[PeerSpec]("peer")
    registry.register(TOY)
    for module in (measure, command):
        monkeypatch.setattr(module, "PEERS", registry)
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    return TOY


def row(ms: float | None = 1.0, **changes: Any) -> PeerRow:
    turns = ((ms / 1e3,) * 5,) * 7 if ms else ()
    fields: dict[str, Any] = {
        "network": "tiny-toy",
        "macs": 10_000_000,
        "weights": "trained",
        "toolchain": OURS,
        "setting": "onnx-fp32 in ort-cpu",
        "precision": "fp32",
        "agreement": 1.0,
        "error": 0.0,
        "images": 64,
        "latency": Latency(turns=turns, warmup=5) if turns else None,
        "plan": Plan(count=35, seconds=0, rounds=7),
        "machine": MACHINE,
        "when": "2026-11-27T00:00:00+00:00",
    }
    return PeerRow(**{**fields, **changes})


def test_every_form_of_a_network_is_the_same_network(material: Material) -> None:
    pixels = material.calibration[:1]
    expected = pixels.mean(axis=(1, 2))
    mean, factor = material.normalisation
    images = ((pixels - np.float32(mean)) * np.float32(factor)).transpose(0, 3, 1, 2)
    for file, name, given in (
        (material.graph, "pixels", pixels),
        (material.backbone, "images", images.astype(np.float32)),
    ):
        (logits,) = onnxruntime.InferenceSession(file).run(["logits"], {name: given})
        np.testing.assert_allclose(logits, expected, rtol=1e-5)
    program = torch.export.load(material.program).module()
    np.testing.assert_allclose(program(torch.from_numpy(pixels)), expected, rtol=1e-5)


def test_what_a_peer_cannot_make_is_said(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    kinds = ("plain", "broken", "crash", "absent")
    settings = tuple(Setting(name=kind, precision="fp32", files=kind) for kind in kinds)
    spec = replace(TOY, settings=settings, elsewhere="give its Python")
    failed = make_files(spec, material, tmp_path)
    assert failed == {
        "broken": "its tool failed: RuntimeError: no such operator",
        "crash": "its tool failed: status 3, without a word",
        "absent": "ModuleNotFoundError: No module named 'a_package_that_nobody_has'; "
        "give its Python",
    }
    assert (tmp_path / "plain" / "copied.onnx").is_file()
    away = make_files(replace(TOY, settings=settings[:1]), material, tmp_path / "2", Path("/none"))
    assert away == {"plain": "/none: No such file or directory"}
    monkeypatch.setattr(prepare, "_LIMIT", 0.01)
    late = make_files(replace(TOY, settings=settings[:1]), material, tmp_path / "3")
    assert late == {"plain": "not made within 0.01 s"}


def test_a_peer_that_is_not_installed_is_named() -> None:
    assert why_missing(TOY) is None
    missing = why_missing(replace(TOY, packages=("a-package-that-nobody-has",)))
    assert missing == "a-package-that-nobody-has is not installed; pip install '.[peers]'"


def test_the_command_measures_shows_and_reuses(
    toy: PeerSpec,
    material: Material,
    tmp_path: Path,
    make_artifact: Callable[..., Artifact],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_artifact()
    made: list[str] = []

    def networks(artifact: Artifact) -> Network:
        made.append(artifact.name)
        return network_of(artifact)

    monkeypatch.setattr(measure, "network_of", networks)
    monkeypatch.setattr(measure, "write_material", lambda *_: material)
    monkeypatch.setattr("bench.peers.candidates.list_runtimes", lambda *_: ["torch", "ort-cpu"])
    monkeypatch.setenv("COLUMNS", "300")
    out = tmp_path / "reports"
    run = Peers(artifacts=tmp_path / "artifacts", out=out, count=7, seconds=0, rounds=7)
    run()
    printed = capsys.readouterr().out
    assert "a_package" not in printed
    rows = {one.setting: one for one in read_peers(out)}
    assert list(rows) == ["onnx-fp32 in ort-cpu", *(one.name for one in TOY.settings)]
    ran = {name for name, one in rows.items() if one.latency}
    assert ran == {"onnx-fp32 in ort-cpu", "fp32", "slow", "wrong"}
    assert rows["fp32"].latency is not None
    assert rows["fp32"].latency.count >= 7
    assert (rows["fp32"].agreement, rows["fp32"].images) == (1.0, 3)
    assert rows["fp32"].tools.keys() == {"onnx"}
    assert rows["wrong"].missed == "agreement 0.0%, must be at least 95.0%"
    assert rows["needs more"].reason == "RuntimeError: this CPU has no such arithmetic"
    assert rows["broken"].reason == "its tool failed: RuntimeError: no such operator"
    assert rows["no tool"].reason == "its tool is in no package"
    assert printed.splitlines()[-1] == str(out / "peers.md")
    page = (out / "peers.md").read_text()
    for why in ("agreement 0.0%", "no such arithmetic", "no such operator", "in no package"):
        assert why in page

    run()  # nothing is measured again
    assert made == ["onnx-fp32"]
    assert capsys.readouterr().out == printed
    replace(run, show=True, artifacts=tmp_path / "none")()
    assert capsys.readouterr().out == printed
    replace(run, fresh=True, keep=tmp_path / "kept")()
    assert made == ["onnx-fp32"] * 2
    assert len(list((tmp_path / "kept").rglob("copied.onnx"))) == 1


def test_files_that_are_kept_are_not_made_again(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    spec = replace(TOY, settings=TOY.settings[3:5])  # plain and broken
    assert make_files(spec, material, tmp_path).keys() == {"broken"}
    copied = tmp_path / "plain" / "copied.onnx"
    copied.write_bytes(b"of the first time")
    (tmp_path / "broken" / "half.onnx").touch()
    assert make_files(spec, material, tmp_path).keys() == {"broken"}
    assert copied.read_bytes() == b"of the first time"
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["log.txt"]


def test_files_are_kept_for_the_same_weights_images_and_versions(tmp_path: Path) -> None:
    from tiny_artifact import tiny_artifact

    network = network_of(tiny_artifact(tmp_path / "artifact", SIDE))
    keep = tmp_path / "kept"
    first = kept_folder(keep, network, MACHINE)
    assert kept_folder(keep, network, MACHINE) == first
    linear = Classifier(nn.Linear(1, 1), mean=(0, 0, 0), std=(1, 1, 1))
    others = {
        first,
        kept_folder(keep, network, replace(MACHINE, versions={"python": "3.12"})),
        kept_folder(keep, replace(network, module=linear), MACHINE),
        kept_folder(keep, replace(network, calibration=network.calibration[:1]), MACHINE),
    }
    assert set(keep.iterdir()) == others
    assert len(others) == 4


def test_mistakes_are_told_before_anything_is_measured(toy: PeerSpec, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown peer 'to'"):
        Peers(only=("to",), out=tmp_path)()
    with pytest.raises(UserError, match="leave out --show"):
        Peers(show=True, out=tmp_path)()
    with pytest.raises(UserError, match="no artifacts here"):
        Peers(artifacts=tmp_path, out=tmp_path)()
    assert not list(tmp_path.iterdir())


def test_the_best_of_the_others_holds_the_same_gates() -> None:
    slow = row(ms=4.0)
    ours = row(ms=2.0, setting="onnx-int8 in ort-cpu", precision="int8")
    fp32 = row(ms=3.0, toolchain="mnn", setting="fp32")
    theirs = row(ms=2.5, toolchain="openvino", setting="NNCF int8", precision="int8")
    cheat = row(ms=0.1, toolchain="ncnn", setting="fp16", precision="fp16", missed="agreement")
    dead = row(ms=None, toolchain="litert", setting="int8", reason="not installed")
    (one,) = standings([slow, ours, fp32, theirs, cheat, dead])
    assert (one.ours, one.best, one.float32, one.verdict) == (ours, theirs, fp32, "ours")
    assert one.ratio is not None
    assert one.over_float32 is not None
    assert (one.ratio.value, one.over_float32.value) == (1.25, 1.5)
    (other,) = standings([slow, theirs])
    assert (other.verdict, other.float32) == ("theirs", None)
    (tied,) = standings([slow, row(ms=4.0, toolchain="mnn")])
    assert tied.verdict == "a tie"
    (alone,) = standings([slow, dead])
    assert (alone.best, alone.ratio) == (None, None)


def test_ours_and_peers_that_tie_take_more_rounds() -> None:
    peer = row(ms=2.0, toolchain="mnn", setting="fp32")
    cheat = row(ms=0.1, toolchain="ncnn", setting="fp16", precision="fp16", missed="agreement")

    def undecided(*rows: PeerRow) -> list[int]:
        latencies = {index: one.latency for index, one in enumerate(rows) if one.latency}
        return measure.tied_with_peers(dict(enumerate(rows)), latencies)

    assert undecided(cheat, row(ms=2.0), peer, row(ms=3.0)) == [1, 2]
    assert undecided(cheat, row(ms=1.0), row(ms=1.0), peer) == []
    assert undecided(row(ms=3.0), peer, peer) == []
    assert undecided(cheat) == []


def test_the_page_counts_wins_and_tells_what_is_left_out() -> None:
    rows = [
        row(ms=2.0),
        row(ms=3.0, toolchain="mnn", setting="fp32", tools={"a-tool": "1.2"}),
        row(ms=None, toolchain="ncnn", setting="int8", reason="no tool"),
        row(ms=4.0, network="large-toy", macs=2_000_000_000),
        row(ms=3.0, network="large-toy", toolchain="mnn", setting="fp32"),
        row(ms=None, network="large-toy", toolchain="ncnn", setting="int8", reason="no tool"),
    ]
    section = peers_section(rows)
    first, second = section.sentences
    assert "faster than the best of the others on 1 of 2 networks, slower on 1" in first
    assert "1.50 times as long as the pick (geometric mean of 1 networks" in second
    standing, fastest, left = section.tables
    assert standing.rows[0][0] == "tiny-toy"
    assert standing.rows[0][7].startswith("1.50")
    assert fastest.rows[1] == ("large-toy", "4.00 onnx-fp32 in ort-cpu", MISSING, "3.00 fp32")
    assert left.rows == (("ncnn", "int8", "tiny-toy, large-toy", "no tool"),)
    assert "a_tool 1.2" in section.notes[0]


def test_each_peer_has_a_module_for_its_settings() -> None:
    for spec in PEERS.values():
        module = importlib.import_module(spec.module)
        assert callable(module.make), spec.name
        assert callable(module.load), spec.name
        assert spec.packages
        assert all(bool(one.files) != bool(one.absent) for one in spec.settings), spec.name
        names = [one.name for one in spec.settings]
        assert len(names) == len(set(names))


def test_the_page_has_a_row_for_each_peer() -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmark.md").read_text()
    part = page.split("## Beside other toolchains")[1].split("\n## ")[0]
    rows = [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]
    assert rows[1:] == list(PEERS)  # after the header

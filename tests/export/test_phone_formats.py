"""Every default network in every format for phones: what is made, what it costs, what is refused.

Its rows are the table in docs/results.md: ``make test ARGS="--slow -n 0 -s -k phone_formats"``.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest

from artifact.artifact import Artifact
from artifact.formats import default_names
from artifact.runtimes.base import Runtime, load_runtime
from export.build import Outcome, build_artifacts, targets_of
from export.network import load_network
from models.registry import DEFAULT_NETWORKS

BESIDE = ("onnx-fp32", "onnx-int8")  # measured in the same turns
REFUSED: set[tuple[str, str]] = set()  # (network, artifact) that misses a gate, or has no form
ROUNDS = 40


def cpu_ms(artifacts: dict[str, Artifact]) -> dict[str, float]:
    """Returns the median CPU time of a call, ms: one image, one thread, all by turns."""
    with ExitStack() as stack:
        runtimes: dict[str, Runtime] = {
            name: stack.enter_context(
                load_runtime(artifact.spec.proving_runtime, artifact, threads=1)
            )
            for name, artifact in artifacts.items()
        }
        pixels = {name: artifact.golden()[0][:1] for name, artifact in artifacts.items()}
        took: dict[str, list[float]] = {name: [] for name in runtimes}
        turns = random.Random(0)
        for number in range(ROUNDS + 3):
            for name in turns.sample(list(runtimes), len(runtimes)):
                started = time.process_time()
                runtimes[name](pixels[name])
                if number >= 3:  # the first ones warm it up
                    took[name].append(1e3 * (time.process_time() - started))
    return {name: median(times) for name, times in took.items()}


def row(outcome: Outcome, latencies: dict[str, float]) -> str:
    """Returns size, gates, error, agreement and CPU time of an artifact, or the reason for none."""
    artifact = outcome.artifact
    if artifact is None:
        return f"not made: {outcome.reason} | | | |"
    if artifact.parity is None:
        return f"{artifact.size / 1e6:.1f} | not run here: {artifact.unverified} | | |"
    gates = ", ".join(gate.name for gate in artifact.gates)
    return (
        f"{artifact.size / 1e6:.1f} | {gates} | {artifact.parity.relative_error:.1e} | "
        f"{artifact.parity.top1_agreement:.1%} | {latencies[outcome.target]:.2f}"
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside ExecuTorch
@pytest.mark.parametrize("model", DEFAULT_NETWORKS)
def test_every_default_network(model: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = model == "efficientnet_lite0"  # whose published weights are installed
    beside = default_names() if real else BESIDE
    network = load_network(model, None, "imagenet" if real else "random")
    outcomes = list(build_artifacts(network, (*beside, *targets_of(["phone"]))))
    artifacts = {each.target: each.artifact for each in outcomes if each.artifact}
    proven = {name: artifact for name, artifact in artifacts.items() if artifact.parity}
    latencies = cpu_ms(proven)
    with capsys.disabled():
        print()
        for outcome in outcomes:
            print(f"| {model} ({network.weights}) | {outcome.target} | {row(outcome, latencies)} |")
    assert {(model, each.target) for each in outcomes if each.failed} == {
        each for each in REFUSED if each[0] == model
    }
    assert set(BESIDE) < set(proven)
    for artifact in proven.values() if real else ():
        assert artifact.parity is not None
        assert artifact.parity.images == 64  # photo crops
        assert artifact.parity.top1_agreement >= (0.95 if artifact.precision == "int8" else 1.0)

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
from artifact.runtimes.base import Runtime, load_runtime
from export.build import build_artifacts, targets_of
from export.network import load_network
from models.registry import DEFAULT_NETWORKS

BESIDE = ("onnx-fp32", "onnx-int8")  # measured in the same turns
REFUSED: set[tuple[str, str]] = set()  # (network, artifact)
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


@pytest.mark.slow
@pytest.mark.parametrize("model", DEFAULT_NETWORKS)
def test_every_default_network(model: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = "imagenet" if model == "efficientnet_lite0" else "random"
    targets = (*BESIDE, *targets_of(["phone"]))
    outcomes = list(build_artifacts(load_network(model, None, weights), targets))
    made = {each.target: each.artifact for each in outcomes if each.artifact}
    latencies = cpu_ms(made)
    with capsys.disabled():
        print()
        for outcome in outcomes:
            cells = f"not made: {outcome.reason} | | | |"
            if (artifact := outcome.artifact) is not None and artifact.parity is not None:
                gates = ", ".join(gate.name for gate in artifact.gates)
                cells = (
                    f"{artifact.size / 1e6:.1f} | {gates} | {artifact.parity.relative_error:.1e} | "
                    f"{artifact.parity.top1_agreement:.1%} | {latencies[outcome.target]:.2f}"
                )
            print(f"| {model} ({weights}) | {outcome.target} | {cells} |", flush=True)
    assert {(model, each.target) for each in outcomes if each.artifact is None} == {
        each for each in REFUSED if each[0] == model
    }
    assert all(artifact.parity for artifact in made.values())

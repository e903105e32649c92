"""``bench study rewrites``: what each graph rewrite gains, with and without it by turns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from artifact.artifact import ARTIFACTS, Artifact
from artifact.golden import golden_pixels, relative_error
from artifact.records import Rewrite
from artifact.runtimes.base import RUNTIMES, RuntimeUnavailable, require_runtime
from bench.experiment import progress_bars, this_machine, write_page
from bench.latency.plan import Grid, find_artifacts, network_of
from bench.measure.timing import Call, Latency, Plan, measure, overlap
from bench.studies.rewrite_table import FILE, REMEDY, RewriteRow, rewrites_section
from core.conditions import now
from core.errors import UserError
from core.lazy import resolve
from core.machine import Machine
from core.record_file import read_rows, write_rows

PLAN = Plan(count=100, seconds=1.0, limit=4.0, rounds=12, extra=12)
RUNTIME_NAMES = ("ort-cpu", "openvino")  # those that take a bare graph in QDQ form


@dataclass(frozen=True, slots=True)
class Pair:
    """A rewrite of an artifact, with a function that returns the graph without and with it."""

    artifact: Artifact
    rewrite: Rewrite
    graphs: Callable[[], tuple[bytes, bytes]]


def pairs(artifacts: Sequence[Artifact]) -> Iterator[Pair]:
    """Yields each rewrite once that the graphs of a network's artifacts have had."""
    graphs = {artifact.name: artifact for artifact in artifacts}
    plain = graphs.get("onnx-fp32")
    if plain and "channel_shuffle" in plain.rewrites:
        yield Pair(plain, "channel_shuffle", partial(_shuffles, plain))
    if plain and "channel_blocks" in plain.rewrites:
        yield Pair(plain, "channel_blocks", partial(_blocks, plain))
    if plain and "pixel_order" in plain.rewrites:
        yield Pair(plain, "pixel_order", partial(_pixel_orders, plain))
    whole = graphs.get("onnx-int8")
    if whole and "hard_sigmoid" in whole.rewrites:
        yield Pair(whole, "hard_sigmoid", partial(_hard_sigmoids, whole))
    if whole and "average_pool" in whole.rewrites:
        yield Pair(whole, "average_pool", partial(_average_pools, whole))
    if whole and "grouped_shuffle" in whole.rewrites:
        yield Pair(whole, "grouped_shuffle", partial(_grouped_shuffles, whole))
    if whole and "pixel_order" in whole.rewrites:
        yield Pair(whole, "pixel_order", partial(_pixel_orders, whole))
    inputs = graphs.get("openvino-int8")
    if inputs and "float_activations" in inputs.rewrites:
        yield Pair(inputs, "float_activations", partial(_roundings, inputs))


def _shuffles(artifact: Artifact) -> tuple[bytes, bytes]:
    from export.rewrites.channel_shuffle import fold_shuffles

    plain = _exported(artifact)
    folded = copy.deepcopy(plain)
    fold_shuffles(folded)
    return plain.SerializeToString(), folded.SerializeToString()


def _blocks(artifact: Artifact) -> tuple[bytes, bytes]:
    from export.rewrites.channel_shuffle import fold_shuffles
    from export.rewrites.pixel_order import normalise_before_transpose

    plain = _exported(artifact)
    fold_shuffles(plain)
    normalise_before_transpose(plain)
    return plain.SerializeToString(), artifact.graph_file.read_bytes()


def _exported(artifact: Artifact) -> Any:
    """Returns the ``ModelProto`` of the network that ``artifact`` was made of, not rewritten."""
    from export.to_onnx import to_onnx
    from export.verify import network_of as source_of
    from models.classifier import Classifier
    from models.inference_form import inference_form

    module = source_of(artifact).module
    assert isinstance(module, Classifier)
    return to_onnx(inference_form(module), size=artifact.preprocess.crop)


def _hard_sigmoids(artifact: Artifact) -> tuple[bytes, bytes]:
    from export.rewrites.hard_sigmoid import restore

    return _restored(artifact, partial(restore, rounded=True))


def _average_pools(artifact: Artifact) -> tuple[bytes, bytes]:
    from export.rewrites.average_pool import restore

    return _restored(artifact, restore)


def _grouped_shuffles(artifact: Artifact) -> tuple[bytes, bytes]:
    from export.rewrites.grouped_shuffle import restore

    return _restored(artifact, restore)


def _pixel_orders(artifact: Artifact) -> tuple[bytes, bytes]:
    from export.rewrites.pixel_order import restore

    return _restored(artifact, restore)


def _restored(artifact: Artifact, restore: Callable[[Any], object]) -> tuple[bytes, bytes]:
    """Returns the graph with the rewrite undone by ``restore``, and as it is."""
    import onnx

    graph = onnx.load(artifact.graph_file)
    without = copy.deepcopy(graph)
    restore(without)
    return without.SerializeToString(), graph.SerializeToString()


def _roundings(artifact: Artifact) -> tuple[bytes, bytes]:
    import onnx

    from export.rewrites.float_activations import round_inputs_only

    graph = onnx.load(artifact.graph_file)  # beside the model file, not yet rewritten
    rewritten = copy.deepcopy(graph)
    round_inputs_only(rewritten)
    return graph.SerializeToString(), rewritten.SerializeToString()


def run(name: str, out: Path, *, seconds: float = PLAN.seconds, fresh: bool = False) -> Path:
    """Measures the rewrites of all artifacts, and returns the path of the page.

    Networks that were measured on this machine are not measured again, unless ``fresh``.

    Args:
        name: name of the study.
        out: folder of the file with the rows, and of the page.
        seconds: least total time of the samples of a graph.
        fresh: measure again and discard all rows of the file.

    Raises:
        UserError: there are no artifacts, or none of them was rewritten.
    """
    machine, plan = this_machine(), replace(PLAN, seconds=seconds, limit=max(PLAN.limit, seconds))
    rows = [] if fresh else read_rows(out / FILE, RewriteRow, remedy=REMEDY)
    found = list(_all_pairs())
    if not found:
        raise UserError(
            f"{ARTIFACTS}: no graph here was rewritten; make some with: "
            "make export MODEL=mobilenet_v3 DATA=digits"
        )
    with progress_bars() as bar:
        tick = bar("Measuring", len(found))
        for network, pair in found:
            key = (network, pair.rewrite, _digest(pair.artifact), machine.key)
            if key not in {(r.network, r.rewrite, r.sha256, r.machine.key) for r in rows}:
                rows += measure_pair(network, pair, plan, machine)
                write_rows(out / FILE, rows)
            tick()
    here = [row for row in rows if row.machine.key == machine.key]
    return write_page(rewrites_section(here), out / f"study-{name}.md")


def measure_pair(network: str, pair: Pair, plan: Plan, machine: Machine) -> list[RewriteRow]:
    """Returns a row for each runtime of this machine that takes both graphs."""
    graphs, pixels = pair.graphs(), golden_pixels(pair.artifact, 1)
    calls: dict[tuple[str, int], Call] = {}
    errors = {}
    for name in _runtimes(pair.rewrite):
        load = resolve(RUNTIMES[name].bare or "")
        made = [load(None, graph, pixels, 1) for graph in graphs]
        before, after = (np.array(call()) for call in made)
        errors[name] = relative_error(after, before)
        calls |= {(name, index): call for index, call in enumerate(made)}

    def undecided(latencies: dict[tuple[str, int], Latency]) -> list[tuple[str, int]]:
        tied = [name for name in errors if overlap(latencies[name, 0], latencies[name, 1])]
        return [key for key in calls if key[0] in tied]

    when = now()
    latencies = measure(calls, plan, one_thread=calls, undecided=undecided)
    return [
        RewriteRow(
            network=network,
            artifact=pair.artifact.name,
            rewrite=pair.rewrite,
            count=pair.artifact.rewrites[pair.rewrite],
            runtime=name,
            error=error,
            before=latencies[name, 0],
            after=latencies[name, 1],
            machine=machine,
            when=when,
            sha256=_digest(pair.artifact),
        )
        for name, error in errors.items()
    ]


def _all_pairs() -> Iterator[tuple[str, Pair]]:
    grouped: dict[str, list[Artifact]] = {}
    for folder in find_artifacts(Grid(artifacts=ARTIFACTS)):
        grouped.setdefault(network_of(ARTIFACTS, folder), []).append(Artifact.load(folder))
    for network, artifacts in grouped.items():
        yield from ((network, pair) for pair in pairs(artifacts))


def _runtimes(rewrite: Rewrite) -> list[str]:
    """Returns the runtimes of this machine that ``rewrite`` is for."""
    names = RUNTIME_NAMES[1:] if rewrite == "float_activations" else RUNTIME_NAMES
    found = []
    for name in names:
        try:
            require_runtime(name)
        except RuntimeUnavailable:
            continue
        found.append(name)
    return found


def _digest(artifact: Artifact) -> str:
    return artifact.sha256s[artifact.spec.model_file]
